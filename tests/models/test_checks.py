"""Settings of labelled models that cannot work are refused by their names."""

from dataclasses import replace
from typing import Any

import pytest

from nerfstudio_gan3d.models.checks import check_labels, fit_to_labels, validate
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.label_objective import LabelLossConfig
from tests.models.tiny import field_config, model_config

SEG = LabelConfig(kind="seg", classes=3)


def labelled(labels: LabelConfig = SEG, **changes: Any) -> GanModelConfig:
    return model_config(labels=labels, **changes)


def test_a_sound_configuration_passes() -> None:
    validate(labelled())
    validate(labelled(LabelConfig(kind="edge")))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (labelled(LabelConfig(kind="seg", classes=1)), "labels.classes = 1: .* 2 to 256"),
        (labelled(LabelConfig(kind="edge", classes=4)), "labels.classes = 4: edge maps have 1"),
        (
            labelled(
                replace(SEG, feature_dim=2),
                image_resolution=16,
                field=field_config(5),
            ),
            "labels.feature_dim = 2: .* each of the 3 classes",
        ),
        (labelled(conventions="reference"), "labels.encode_pose"),
        (labelled(replace(SEG, palette=((0, 0, 0),))), "1 colours for 3 classes"),
        (labelled(replace(SEG, class_names=("a", "b"))), "2 names for 3 classes"),
        (
            labelled(label_losses=LabelLossConfig(cross_view=-1.0)),
            "label_losses.cross_view = -1.0",
        ),
        (
            labelled(label_losses=LabelLossConfig(cross_view_interval=0)),
            "cross_view_interval = 0",
        ),
        (labelled(label_losses=LabelLossConfig(random_pose=1.5)), "random_pose = 1.5"),
        (labelled(field=replace(field_config(), palette=4)), "palette = 4: with labels"),
    ],
)
def test_settings_that_cannot_work_are_named(config: GanModelConfig, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        validate(config)


def test_label_maps_need_the_cameras_they_were_taken_from() -> None:
    check_labels(labelled(), labelled=True)
    with pytest.raises(ValueError, match=r"labels.kind = seg: the data set has no camera labels"):
        check_labels(labelled(), labelled=False)


def test_classes_come_from_the_data_set_where_they_are_open() -> None:
    config = labelled(LabelConfig(kind="seg"))
    fit_to_labels(config, ["sky", "car"], [[1, 2, 3], [4, 5, 6]])
    assert config.labels.classes == 2
    assert config.labels.class_names == ("sky", "car")
    assert config.labels.palette == ((1, 2, 3), (4, 5, 6))


def test_a_set_that_names_nothing_gets_numbers_and_distinct_colours() -> None:
    config = labelled()
    fit_to_labels(config, None, None)
    assert config.labels.class_names == ("class 0", "class 1", "class 2")
    assert len(set(config.labels.palette)) == 3
    named = labelled(replace(SEG, class_names=("a", "b", "c")))
    fit_to_labels(named, ["x", "y", "z"], None)
    assert named.labels.class_names == ("a", "b", "c")


def test_other_classes_than_the_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="classes = 3, but the data set names 2"):
        fit_to_labels(labelled(), ["a", "b"], None)
    with pytest.raises(ValueError, match="does not name its classes"):
        fit_to_labels(labelled(LabelConfig(kind="seg")), None, None)
