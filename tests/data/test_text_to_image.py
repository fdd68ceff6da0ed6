"""Images of words by the real package, with a tiny pipeline that a test makes."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.data.dataset import DataError
from nerfstudio_gan3d.data.text_to_image import ImageMaker, from_diffusers
from tests.data.tiny_pipeline import SIDE, stable_diffusion, without_words


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder with the pipeline, and the pipeline that was written there."""
    root = tmp_path_factory.mktemp("diffusion")
    pipeline = stable_diffusion(root)
    return SimpleNamespace(folder=root / "pipeline", pipeline=pipeline)


def pixels(maker: ImageMaker, prompt: str, seed: int) -> np.ndarray:
    found = maker(prompt, seed)
    assert isinstance(found, Image.Image)
    return np.array(found)


def test_the_image_is_that_of_the_pipeline(tiny: SimpleNamespace):
    def plain(prompt: str, seed: int, **settings: Any) -> np.ndarray:
        source = torch.Generator().manual_seed(seed)
        return np.array(tiny.pipeline(prompt, generator=source, **settings).images[0])

    maker = from_diffusers(str(tiny.folder), steps=2)
    made = pixels(maker, "a red car", 3)
    assert made.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(made, plain("a red car", 3, num_inference_steps=2))
    np.testing.assert_array_equal(made, pixels(maker, "a red car", 3))
    assert (made != pixels(maker, "a red car", 4)).any()
    assert (made != pixels(maker, "a blue bird", 3)).any()
    settings = {"num_inference_steps": 3, "guidance_scale": 30.0, "height": 24, "width": 24}
    made = pixels(from_diffusers(str(tiny.folder), steps=3, guidance=30.0, side=24), "a hut", 5)
    assert made.shape == (24, 24, 3)
    np.testing.assert_array_equal(made, plain("a hut", 5, **settings))


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(DataError, match=r"run `pip install 'nerfstudio-gan3d\[diffusion\]'`, or "):
        from_diffusers("somebody/something")


def test_models_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(DataError) as caught:
        from_diffusers("nobody/no-such-model")
    for part in (
        "text-to-image model 'nobody/no-such-model': no such folder, not in ",
        "(Name or service not known); run `hf download nobody/no-such-model`",
        "or give --pipeline a folder that save_pretrained of a pipeline of diffusers wrote",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"cannot be loaded \(Error no file named model_index.json"):
        from_diffusers(str(tmp_path))


def test_weights_that_are_not_here(tiny: SimpleNamespace, tmp_path: Path):
    part = shutil.copytree(tiny.folder, tmp_path / "part")
    weights = part / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    with pytest.raises(DataError, match=rf"cannot be loaded \(.*{weights.name}.*{part}/unet"):
        from_diffusers(str(part))
    # What is there in their place is a pickle, which is not opened.
    torch.save(tiny.pipeline.unet.state_dict(), weights.with_suffix(".bin"))
    with pytest.raises(DataError, match=rf"cannot be loaded \(.*{weights.name}"):
        from_diffusers(str(part))


def test_a_pipeline_without_words_is_refused(tmp_path: Path):
    without_words(tmp_path)
    with pytest.raises(DataError, match="DDPMPipeline takes no prompt; give a pipeline that does"):
        from_diffusers(str(tmp_path))
    with pytest.raises(DataError, match="no prompt and no guidance_scale and no height and no wid"):
        from_diffusers(str(tmp_path), guidance=1.0, side=8)


def test_what_a_pipeline_cannot_make_is_explained(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    maker = from_diffusers(str(tiny.folder), steps=1, side=12)
    with pytest.raises(DataError, match=r"make an image of 'a car' \(.height. and .width. have to"):
        maker("a car", 0)

    def withheld(**asked: object) -> SimpleNamespace:
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))], nsfw_content_detected=[True])

    monkeypatch.setattr(maker, "_pipeline", withheld)
    with pytest.raises(
        DataError, match="safety checker withholds the image of 'a car' with seed 7"
    ):
        maker("a car", 7)
