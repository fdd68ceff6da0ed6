"""Images that cannot be read end a training in a sentence, after what was trained is saved."""

import zipfile
from pathlib import Path

import pytest

from nerfstudio_gan3d.data.batches import ImageBatches
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from tests.data.sets import encode, files, image, write_folder, write_zip
from tests.training.micro import micro_config, trainer

BATCH = 4


def first_seen_at(step: int, folder: Path) -> str:
    """Name of an image that training sees at this step for the first time."""
    images = ImageSet(write_folder(folder, files(10, 16)))
    batches = ImageBatches(images, BATCH, 16)
    seen = [set(batches.order(earlier)[0].tolist()) for earlier in range(step + 1)]
    return images.names[min(seen[step].difference(*seen[:step]))]


def check_refused(
    data: Path, output: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainer(micro_config(data, output, max_num_iterations=5))
    with pytest.raises(SystemExit) as stop:
        made.train()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    (sentence,) = [line for line in said.err.splitlines() if line.startswith("gan3d: ")]
    for word in words:
        assert word in sentence
    # The image was due at the third step; the two before it are kept.
    (path,) = made.checkpoint_dir.iterdir()
    assert path.name == "step-000000001.ckpt"
    state = read_checkpoint(path)
    assert state["pipeline"]["_model.objective.images_seen"] == 2 * BATCH


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_a_truncated_image(
    tmp_path: Path, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = first_seen_at(2, tmp_path / "whole")
    content = files(10, 16)
    content["images/" + name] = content["images/" + name][:-30]
    if container == "zip":
        data = write_zip(tmp_path / "set.zip", content)
    else:
        data = write_folder(tmp_path / "set", content)
    words = [f"{data}/images/{name}: ", "truncated or damaged image"]
    check_refused(data, tmp_path / "out", words, capsys)


def test_an_image_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = first_seen_at(2, tmp_path / "whole")
    content = files(10, 16) | {"images/" + name: encode(image(0, 8))}
    data = write_folder(tmp_path / "set", content)
    words = [f"{data}/images/{name}: 8 pixels a side", "has 16"]
    check_refused(data, tmp_path / "out", words, capsys)


def test_a_damaged_member_of_a_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = first_seen_at(2, tmp_path / "whole")
    data = write_zip(tmp_path / "set.zip", files(10, 16), zipfile.ZIP_LZMA)
    packed = bytearray(data.read_bytes())
    # The name stands before the content and in the directory; then come LZMA's nine bytes.
    start = packed.find(b"images/" + name.encode()) + len("images/" + name) + 9
    packed[start + 100 : start + 116] = b"\xff" * 16
    data.write_bytes(packed)
    words = [f"{data}/images/{name}: damaged in the zip (Corrupt input data"]
    check_refused(data, tmp_path / "out", words, capsys)
