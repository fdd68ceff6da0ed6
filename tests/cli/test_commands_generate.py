"""`gan3d generate`: words to an image, and to all that a photograph becomes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.export.generate import generate, imagine
from nerfstudio_gan3d.export.reconstruct_options import GenerateOptions
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.g3dr import G3drModel
from nerfstudio_gan3d.run import load_run
from tests.cli.g3dr_run import untrained_g3dr
from tests.cli.test_commands import refuse, succeed
from tests.data.test_estimators import tiny_depth_model
from tests.data.tiny_pipeline import stable_diffusion
from tests.export.test_generate import noise, sideways
from tests.models.tiny_g3dr import SIDE, g3dr_config


@pytest.fixture(scope="module")
def g3dr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an untrained micro G3DR."""
    return untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run")


def test_any_function_makes_the_image(g3dr: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = GenerateOptions(
        load_config=g3dr,
        output=out,
        class_name="tabby cat",
        template="a drawing of a {name}",
        pipeline="my own",
        seed=5,
        frames=0,
        mesh="none",
        splats="none",
        azimuths="0,15",
    )
    told = generate(options, maker=noise, depth=sideways)
    assert told.startswith(f"{out / 'generated.png'}: a drawing of a tabby cat\n")
    made = imagine("a drawing of a tabby cat", 5, noise, sideways, g3dr_config())
    for name, expected in (
        ("generated", made.picture),
        ("image", made.image),
        ("image_depth", made.depth),
    ):
        np.testing.assert_array_equal(np.array(Image.open(out / f"{name}.png")), expected)
    # The run that was written shows the Scene of that image.
    opened = load_run(out / "run", device="cpu")
    assert isinstance(opened.model, G3drModel)
    view = opened.model.images.view(0)
    assert torch.equal(view.image, made.view.image)
    assert torch.equal(view.distance, made.view.distance)
    scene = opened.scene(SceneRequest(image=made.view))
    rgb = opened.render(scene, opened.orbit([15.0], 0.0), ["rgb"])["rgb"][0].numpy()
    found = np.array(Image.open(out / "rgb_+15.png")).astype(float)
    np.testing.assert_allclose(found, rgb * 255, atol=0.51)
    record = json.loads((out / "reconstruction.json").read_text())
    assert record["prompt"] == "a drawing of a tabby cat"
    assert (record["seed"], record["pipeline"]) == (5, "my own")
    assert [one["azimuth_deg"] for one in record["views"]] == [0.0, 15.0]


def test_a_pipeline_and_a_depth_model_of_ones_own(
    g3dr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = stable_diffusion(tmp_path)
    tiny_depth_model(tmp_path / "depth")
    command = ["generate", "--prompt", "a red car", "--load-config", g3dr, "--output", "out"]
    command += ["--pipeline", tmp_path / "pipeline", "--depth-model", tmp_path / "depth"]
    command += ["--steps", 1, "--guidance", 2, "--image-size", 24, "--seed", 3]
    succeed(
        capsys,
        *command,
        "--azimuths",
        0,
        "--frames",
        0,
        "--mesh",
        "none",
        "--splats",
        "none",
        "--no-run",
    )
    source = torch.Generator().manual_seed(3)
    settings = {"num_inference_steps": 1, "guidance_scale": 2.0, "height": 24, "width": 24}
    expected = pipeline("a red car", generator=source, **settings).images[0]
    np.testing.assert_array_equal(np.array(Image.open("out/generated.png")), np.array(expected))
    assert Image.open("out/image.png").size == (SIDE, SIDE)
    # As gan3d prepare scales it: from the nearest to the farthest value.
    depth = np.array(Image.open("out/image_depth.png"))
    assert (depth.min(), depth.max()) == (0, 65535)
    names = ["depth_+0", "generated", "image", "image_depth", "input", "rgb_+0", "views"]
    written = [f"{name}.png" for name in names]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *written[:-2],
        "reconstruction.json",
        *written[-2:],
    ]


def test_bad_input_is_one_sentence(
    g3dr: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(config: Path, *options: object) -> str:
        command = ["generate", "--load-config", config, "--output", "out", "--pipeline", tmp_path]
        found = refuse(capsys, *command, *options)
        assert not Path("out").exists()
        return found

    words = "--prompt", "a car"
    assert "--prompt and --class-name: give one of them" in refused(g3dr)
    assert "--prompt and --class-name" in refused(g3dr, *words, "--class-name", "car")
    assert "--prompt is empty" in refused(g3dr, "--prompt", " ")
    told = refused(g3dr, "--class-name", "car", "--template", "a photo")
    assert "--template is 'a photo'; write {name} where" in told
    assert "--seed is -1" in refused(g3dr, *words, "--seed", -1)
    assert "--steps is 0" in refused(g3dr, *words, "--steps", 0)
    assert "--guidance is -1.0" in refused(g3dr, *words, "--guidance", -1)
    assert "--image-size is 4" in refused(g3dr, *words, "--image-size", 4)
    assert "--crop subject needs" in refused(g3dr, *words, "--crop", "subject")
    assert "--frames is 1" in refused(g3dr, *words, "--frames", 1)
    assert "whose Scenes are not made of photographs" in refused(trained, *words)
    # Networks that are missing are told of before any image is made.
    told = refused(g3dr, *words, "--depth-model", tmp_path)
    assert "give --depth-model the name or the folder" in told
