"""The whole evaluation on painted images whose figures are known."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from nerfstudio_gan3d.metrics.config import EvaluationConfig, build_extractor
from nerfstudio_gan3d.metrics.evaluate import GeneratedBatch, RealBatch, evaluate
from nerfstudio_gan3d.metrics.features import TorchScriptExtractor
from tests.metrics.reader import MeanColour, Reader, save

SIZE = 8


def painted(degrees: torch.Tensor, turn: float = 0.0) -> GeneratedBatch:
    """Images from which `Reader` reads the azimuth of their label plus `turn` degrees.

    The foreground is the left half at depth 2.5, in alpha as in blue.
    """
    count = len(degrees)
    shown, camera = (degrees + turn).deg2rad(), degrees.deg2rad()
    alpha = torch.zeros(count, 1, SIZE, SIZE)
    alpha[..., : SIZE // 2] = 1
    image = torch.zeros(count, 3, SIZE, SIZE)
    image[:, 0] = 0.9 * shown.sin()[:, None, None]
    image[:, 1] = 0.9 * shown.cos()[:, None, None]
    image[:, 2:] = alpha - 0.5
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, 0, 3], pose[:, 2, 3] = 1.9 * camera.sin(), 1.9 * camera.cos()
    label = torch.cat([pose.flatten(1), torch.eye(3).flatten().repeat(count, 1)], dim=1)
    return GeneratedBatch(image, label, alpha, alpha * 2.5)


def as_real(batch: GeneratedBatch) -> RealBatch:
    image = ((batch.image + 1) * 127.5).round().to(torch.uint8)
    return RealBatch(image, batch.label, batch.alpha, batch.depth)


@pytest.fixture
def reader(tmp_path: Path) -> TorchScriptExtractor:
    return TorchScriptExtractor(save(Reader(), tmp_path / "reader.pt"), input_size=SIZE)


def test_every_figure_of_painted_images(reader: TorchScriptExtractor):
    degrees = torch.linspace(-180, 174, 60)[torch.randperm(60)]
    samples = [painted(part, turn=10) for part in degrees.split(16)]
    reals = [as_real(painted(part)) for part in degrees.split(25)]
    result = evaluate(samples, reals, reader, seed=5, settings={"truncation": 0.7})
    figures = result.figures
    # Images are judged at 8 bits, half a step of which is 0.25 degrees at this saturation.
    assert figures["azimuth_error_median_deg"] == pytest.approx(10, abs=0.3)
    assert figures["azimuth_offset_deg"] == pytest.approx(10, abs=0.3)
    assert figures["real_azimuth_error_median_deg"] < 0.3
    assert figures["azimuth_control_median_deg"] > 45
    assert figures["elevation_error_median_deg"] == 0
    assert figures["mask_iou"] == figures["real_mask_iou"] == 1
    # The evaluator says 2 and the render 2.5.
    assert figures["depth_abs_rel"] == pytest.approx(0.2)
    assert figures["coverage_mean"] == figures["truth_coverage_mean"] == 0.5
    assert figures["opacity_ambiguity"] == 0
    assert figures["foreground_depth_mean"] == pytest.approx(2.5)
    assert figures["foreground_depth_relief"] == 0
    # 60 colours evenly round a circle: turned by 10 degrees it is all but the same circle.
    assert figures["frechet_distance"] < 1e-4
    assert result.provenance == {
        "feature_space": reader.name,
        "num_samples": 60,
        "num_reals": 60,
        "seed": 5,
        "resolution": SIZE,
        "real_resolution": SIZE,
        "conditioning": "independent",
        "alpha_resolution": SIZE,
        "kernel_samples": 60,
        "kernel_reals": 60,
        "truncation": 0.7,
    }
    flat = result.as_dict()
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat
    assert all(type(value) is float for value in figures.values())
    again = evaluate(samples, reals, reader, seed=5, settings={"truncation": 0.7})
    assert again == result


def test_distances_see_a_shift_of_colour_and_copies(tmp_path: Path):
    extractor = TorchScriptExtractor(save(MeanColour(), tmp_path / "c.pt"), input_size=SIZE)
    levels = torch.randint(0, 200, (50, 3, 1, 1), dtype=torch.uint8).expand(-1, -1, SIZE, SIZE)
    label = painted(torch.zeros(50)).label
    shift = 51 / 127.5  # 51 of 255 grey levels
    shifted = GeneratedBatch(levels.float() / 127.5 - 1 + shift, label)
    figures = evaluate([shifted], [levels], extractor, seed=0).figures
    # Equal covariances: the distance is |shift|^2 over three channels.
    assert figures["frechet_distance"] == pytest.approx(3 * shift**2, rel=1e-4)
    assert figures["nearest_real_median"] > 0
    copies = GeneratedBatch(levels.float() / 127.5 - 1, label)
    figures = evaluate([copies], [levels.float() / 127.5 - 1], extractor, seed=0).figures
    assert figures["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert figures["nearest_real_median"] < 1e-6
    assert figures["nearest_real_floor_median"] > 0.05
    # Only features were read, so nothing else may be claimed.
    assert set(figures) == {
        "frechet_distance",
        "kernel_distance",
        "nearest_real_median",
        "nearest_real_floor_median",
    }


class Classifier(nn.Module):
    """Features are the mean colour, and so are the scores of three classes, times 100."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colour = x.mean(dim=(2, 3))
        return colour, 100 * colour


def plain(*colours: tuple[float, float, float]) -> GeneratedBatch:
    """An image of each colour."""
    image = torch.tensor(colours)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    return GeneratedBatch(image, painted(torch.zeros(len(colours))).label)


RED, GREEN, BLUE, GREY = (1.0, -1, -1), (-1.0, 1, -1), (-1.0, -1, 1), (0.0, 0, 0)


def test_inception_scores_of_painted_images(tmp_path: Path):
    path = save(Classifier(), tmp_path / "classes.pt")
    names = ("features", "class_logits")
    config = EvaluationConfig(
        features="torchscript", evaluator=path, evaluator_outputs=names, evaluator_size=SIZE
    )
    extractor = build_extractor(config)

    def score(*batches: GeneratedBatch) -> tuple[float, float]:
        figures = evaluate(list(batches), [plain(RED, GREEN).image], extractor, seed=0).figures
        # Of generated images alone.
        assert not [name for name in figures if name.startswith("real")]
        return figures["inception_score"], figures["inception_score_std"]

    # Ten parts of three, each with all classes; and of one, which shows nothing.
    assert score(*[plain(RED, GREEN, BLUE)] * 10) == pytest.approx((3, 0), abs=1e-4)
    assert score(*[plain(RED)] * 4, *[plain(GREEN)] * 6) == pytest.approx((1, 0), abs=1e-4)
    # Grey is a third of each: the means are 2/3, 1/6, 1/6 with the entropy 0.86756, from which the
    # mean of 0 and log 3 goes off: exp(0.31825) = 1.37472. Half of the parts have it, in order.
    mixed = score(plain(*[RED, GREY] * 5), plain(*[RED] * 10))
    assert mixed == pytest.approx((1.18736, 0.18736), abs=1e-4)
    # Too few for ten parts.
    figures = evaluate([plain(*[RED] * 9)], [plain(RED, GREEN).image], extractor, seed=0).figures
    assert "inception_score" not in figures


def test_without_a_network_only_shape_statistics_and_it_says_so():
    batch = painted(torch.arange(4.0))
    result = evaluate([batch], [as_real(batch)], None, seed=0, conditioning="none")
    assert result.provenance["feature_space"] == "none (only figures that need no network)"
    assert result.provenance["conditioning"] == "none"
    names = {"coverage_mean", "coverage_std", "opacity_ambiguity"}
    names |= {f"foreground_depth_{kind}" for kind in ("mean", "std", "relief")}
    assert set(result.figures) == names | {f"truth_{name}" for name in names}
    result = evaluate([batch], [as_real(batch)], None, seed=0, ground_truth=False)
    assert set(result.figures) == names


def test_num_samples_cuts_the_last_batch_and_asks_for_no_more():
    def stream() -> Iterator[GeneratedBatch]:
        yield painted(torch.arange(4.0))
        yield painted(torch.arange(4.0))
        raise AssertionError("one batch too many was generated")

    real = as_real(painted(torch.arange(4.0)))
    for count in (6, 8):
        result = evaluate(stream(), [real], None, seed=0, num_samples=count)
        assert result.provenance["num_samples"] == count
    with pytest.raises(ValueError, match="num_samples is 9 and only 4 were generated"):
        evaluate([painted(torch.arange(4.0))], [real], None, seed=0, num_samples=9)


def test_kernel_samples_bounds_the_subset_and_is_recorded(reader: TorchScriptExtractor):
    degrees = torch.rand(40) * 360
    batch = painted(degrees)
    result = evaluate([batch], [as_real(batch)], reader, seed=0, kernel_samples=15)
    assert result.provenance["kernel_samples"] == 15
    assert result.provenance["kernel_reals"] == 15
    full = evaluate([batch], [as_real(batch)], reader, seed=0).figures
    assert result.figures["frechet_distance"] == full["frechet_distance"]
    assert result.figures["kernel_distance"] != full["kernel_distance"]


def test_bad_input_is_named(reader: TorchScriptExtractor):
    good = painted(torch.arange(4.0))
    real = as_real(good)

    def refuse(batch: GeneratedBatch, sentence: str, reals: object = real) -> None:
        with pytest.raises(ValueError, match=sentence):
            evaluate([batch], [reals], reader, seed=0)  # pyright: ignore[reportArgumentType]

    refuse(good._replace(image=good.image * math.nan), "generated image holds NaN")
    refuse(good._replace(label=good.label[:, :16]), r"\(4, 16\); \[4, 25\]")
    refuse(good._replace(alpha=None), "depth needs an alpha")
    refuse(good._replace(depth=torch.zeros(4, 1, 2, 2)), "of its own size")
    refuse(painted(torch.arange(1.0)), "there are 1 generated images; at least 2")
    refuse(good, "there are 1 real images", RealBatch(real.image[:1]))
    refuse(good, r"real images lie in 64\.\.242; floats", real.image.float())
    refuse(good, "real images are torch.int64", real.image.long())
    refuse(good, r"255\.\.255; opacity", real._replace(mask=torch.full((4, 1, 8, 8), 255.0)))
    other = GeneratedBatch(torch.zeros(2, 3, 16, 16), good.label[:2])
    with pytest.raises(ValueError, match="images of 8 and of 16 pixels are mixed"):
        evaluate([good, other], [real], reader, seed=0)
    with pytest.raises(ValueError, match="settings names seed"):
        evaluate([good], [real], reader, seed=0, settings={"seed": 3})


def test_config_builds_what_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert build_extractor(EvaluationConfig()) is None
    path = save(Reader(), tmp_path / "reader.pt", size=SIZE)
    config = EvaluationConfig(features="torchscript", evaluator=path, evaluator_size=SIZE)
    extractor = build_extractor(config)
    assert isinstance(extractor, TorchScriptExtractor)
    assert extractor.name.startswith("torchscript:reader.pt@")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"Inception weights are not at .*set features to none"):
        build_extractor(EvaluationConfig(features="inception"))


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = EvaluationConfig(features="torchscript", evaluator=Path("reader.pt"))
    config.inception_weights = Path("weights.pt")
    monkeypatch.chdir("/")
    assert config.evaluator == tmp_path / "reader.pt"
    assert config.inception_weights == tmp_path / "weights.pt"
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"num_samples": 1}, "num_samples is 1; at least 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"kernel_samples": 1}, "kernel_samples is 1"),
        ({"truncation": math.nan}, "truncation is nan"),
        ({"truncation": -0.5}, "truncation is -0.5"),
        ({"features": "torchscript"}, "set evaluator to a TorchScript file"),
        ({"evaluator": Path("x.pt")}, "evaluator is set and features is none"),
        ({"features": "inception", "evaluator": Path("x.pt")}, "features is inception"),
        ({"allow_download": True}, "inception_weights or allow_download is set"),
    ],
)
def test_impossible_options_are_refused(values: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        EvaluationConfig(**values).validate()
