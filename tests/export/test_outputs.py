"""Which outputs share a file, and which no video holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerfstudio_gan3d.export.outputs import check_video_outputs, files_of, parse_outputs
from nerfstudio_gan3d.export.sample_options import SampleOptions, parse_truncations


def test_layers_lie_beside_the_picture() -> None:
    file = Path("a/car.png")
    assert files_of(parse_outputs("rgb,depth"), file) == {file: ["rgb", "depth"]}
    assert files_of(parse_outputs("rgba"), file) == {file: ["rgba"]}
    assert files_of(parse_outputs("depth16,rgb,rgba"), file) == {
        file: ["rgb"],
        Path("a/car_depth.png"): ["depth16"],
        Path("a/car_rgba.png"): ["rgba"],
    }
    # Without a picture the first layer has the name that was given.
    assert files_of(parse_outputs("matte,rgba"), file) == {
        file: ["matte"],
        Path("a/car_rgba.png"): ["rgba"],
    }


@pytest.mark.parametrize(
    ("name", "instead"), [("rgba", "foreground"), ("matte", "accumulation"), ("depth16", "depth")]
)
def test_videos_hold_no_layers(name: str, instead: str) -> None:
    check_video_outputs(parse_outputs(instead))
    with pytest.raises(ValueError, match=f"has {name}, which .* choose {instead}"):
        check_video_outputs(parse_outputs(f"rgb,{name}"))


def test_truncations() -> None:
    assert parse_truncations("0,0.5, 1") == [0.0, 0.5, 1.0]
    for text in ("", "0,", "a", "-0.1", "2.1", "nan", "inf"):
        with pytest.raises(ValueError, match="is no number between 0 and 2"):
            parse_truncations(text)
    with pytest.raises(ValueError, match=r"has 0\.5 twice"):
        parse_truncations("0.5,0.50")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"truncation": 0.5}, "--truncations and --truncation"),
        ({"interpolate": "appearance", "output": Path("a.mp4")}, "--truncations and --interpolate"),
        ({"grid": "shape,appearance"}, "--truncations and --grid"),
    ],
)
def test_a_sweep_contradicts(changed: dict[str, object], told: str) -> None:
    given: dict[str, object] = {"output": Path("a.png"), "truncations": "0,1"}
    SampleOptions(Path("config.yml"), **given).validate()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=told):
        SampleOptions(Path("config.yml"), **(given | changed)).validate()  # type: ignore[arg-type]
