"""Augmentation within a training step."""

import pytest
import torch

from nerfstudio_gan3d.data.augment import AugmentConfig
from nerfstudio_gan3d.models.objective_config import AdaConfig
from tests.models.objectives import Record, make_objective, step, sure_of_reals
from tests.models.tiny import images, make_generator


def test_adaptive_augmentation_rises_while_reals_are_recognised() -> None:
    generator = make_generator()
    ada = AdaConfig("adaptive", interval=2, kimg=1.0, max_p=0.01, transforms=AugmentConfig.off())
    objective = make_objective(ada=ada)
    sure_of_reals(objective)
    found = [step(objective, generator, number)[1]["augment_p"].item() for number in range(4)]
    # Every second step p rises by 4 * 2 / 1000, up to max_p.
    assert found == pytest.approx([0, 0.008, 0.008, 0.01])
    assert objective.augment is not None
    assert objective.augment.p.item() == pytest.approx(0.01)


def test_fixed_augmentation_stays_and_acts_on_reals_and_fakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = make_generator()
    transforms = AugmentConfig.off()
    transforms.brightness = 0.5
    objective = make_objective(ada=AdaConfig("fixed", initial_p=1.0, transforms=transforms))
    record = Record(monkeypatch, objective, generator)
    figures = step(objective, generator)[1]
    assert figures["augment_p"] == 1
    sources = (record.fakes[0].image.detach(), images(4))
    for (seen, _, _), source in zip(record.judged, sources, strict=True):
        shift = (seen.detach() - source).flatten(1)
        # Brightness adds one number to all pixels of an image, another to each image.
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=0)
        assert (shift[:, 0].abs() > 1e-4).all()
