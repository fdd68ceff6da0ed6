"""Small objectives, and what they hand to the two players."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.objective import Objective
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator, Judgement
from nerfstudio_gan3d.scene import Condition
from tests.models.tiny import images, labels

ONLY_ADVERSARIAL = {"r1_gamma": 0.0, "background": 0.0, "density_variation": 0.0}


def make_objective(
    losses: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    ada: AdaConfig | None = None,
    size: int = 8,
    patch: int | None = None,
    dual: bool = False,
) -> Objective:
    """An objective whose losses are the adversarial ones and those that are given."""
    weights = LossConfig(**{**ONLY_ADVERSARIAL, **(losses or {})})
    discriminator = DualDiscriminator(
        patch or size,
        dual=dual,
        channel_base=64,
        channel_max=8,
        mbstd_group=2,
        mapping_layers=2,
        mapping_lr_multiplier=0.1,
        camera_head=weights.camera > 0,
    )
    plan = ScheduleConfig(**{"blur_sigma": 0.0, **(schedule or {})})
    return Objective(discriminator, weights, plan, ada or AdaConfig(), size, patch or size)


class Record:
    """What a step hands to the generator and to the discriminator, and what they return."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, objective: Objective, generator: Generator
    ) -> None:
        self.conditions: list[Condition] = []
        self.latents: list[Latents] = []
        self.cameras: list[Tensor] = []
        self.fakes: list[Images] = []
        self.judged: list[tuple[Tensor, Tensor | None, Tensor]] = []
        self.judgements: list[Judgement] = []
        self.watch(monkeypatch, generator, "map", self.on_map)
        self.watch(monkeypatch, generator, "scene", self.on_scene)
        self.watch(monkeypatch, generator, "render", self.on_render)
        self.watch(monkeypatch, objective.discriminator, "judge", self.on_judge)

    def watch(
        self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, note: Callable[..., None]
    ) -> None:
        plain = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = plain(*args, **kwargs)
            note(result, *args)
            return result

        monkeypatch.setattr(owner, name, watched)

    def on_map(self, result: Latents, condition: Condition, *_: Any) -> None:
        self.conditions.append(condition)

    def on_scene(self, result: Any, latents: Latents) -> None:
        self.latents.append(latents)

    def on_render(self, result: Images, scene: Any, cameras: Tensor, *_: Any) -> None:
        self.cameras.append(cameras)
        self.fakes.append(result)

    def on_judge(
        self, result: Judgement, image: Tensor, raw: Tensor | None, label: Tensor, *_: Any
    ) -> None:
        self.judged.append((image, raw, label))
        self.judgements.append(result)


def step(
    objective: Objective, generator: Generator, number: int = 0, batch: int = 4
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    size = objective.image_resolution
    return objective(generator, images(batch, size), labels(batch, 1), labels(batch, 2), number)


def gradients_of(module: torch.nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


def sure_of_reals(objective: Objective) -> None:
    """Makes every logit 1: the last layer gives the label's own direction, scaled."""
    critic = objective.discriminator
    assert isinstance(critic, DualDiscriminator)
    with torch.no_grad():
        critic.b4.out.weight.zero_()
        critic.b4.out.bias.fill_(1)
        assert critic.mapping is not None
        for name, parameter in critic.mapping.named_parameters():
            parameter.fill_(1.0 if name.endswith("fc1.bias") else 0.0)
