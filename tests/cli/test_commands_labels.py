"""`gan3d sample` on runs with labels: exact colours, label maps, videos, mixing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.export.inputs import data_set
from nerfstudio_gan3d.latents import Appearance, LabelView, SceneRequest, request_latents
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.viewer.label_files import save_edit
from tests.cli.test_commands import GAP, SIDE, refuse, succeed

PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
"""Classes of the data set in `tests.data.sets`."""


def kept(run: Run, index: int) -> np.ndarray:
    """Class ids, or grey values, of a label map that the run keeps."""
    store = run.model.label_store
    assert store is not None
    return store.maps[index, 0].numpy()


def picture(run: Run, request: SceneRequest, pose: torch.Tensor, name: str = "rgb") -> np.ndarray:
    """A picture of a Scene from one camera, bytes [H, W, 3]."""
    found = run.render(run.scene(request), pose, [name])[name][0]  # type: ignore[list-item]
    return found.mul(255).round().byte().numpy()


def rendered_ids(run: Run, request: SceneRequest, pose: torch.Tensor) -> np.ndarray:
    """The class with the highest score in the generator's own label image."""
    with torch.no_grad():
        labels = run.generator.render(run.scene(request), pose).labels
    assert labels is not None
    return labels[0].argmax(0).numpy()


def test_a_folder_holds_maps_that_can_be_used_again(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--outputs", "labels"]
    told = succeed(capsys, *words, "--output", "many", "--inputs", "2,9", "--seeds", "0-1")
    assert "2 label maps, 2 seeds from 1 view" in told
    samples = [f"input000{i}_seed000{seed}.png" for i in (2, 9) for seed in (0, 1)]
    records = ["samples.json", "samples.npz"]
    names = {path.name for path in Path("many").iterdir()}
    assert names == {"input0002.png", "input0009.png", *samples, *records}
    for index in (2, 9):
        found = mediapy.read_image(f"many/input000{index}.png")
        np.testing.assert_array_equal(found, PALETTE[kept(labelled_run, index)])
    view = labelled_run.label_view(9)
    ids = rendered_ids(labelled_run, SceneRequest(1, label=view), view.pose)
    assert len(np.unique(ids)) >= 2
    np.testing.assert_array_equal(mediapy.read_image(f"many/{samples[3]}"), PALETTE[ids])
    again = labelled_run.label_view(f"many/{samples[3]}")
    np.testing.assert_array_equal(again.map[0, 0], ids)


def test_label_pictures_of_any_size_have_the_colours_of_classes_alone(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--outputs", "labels", "--seeds", 0]
    for size in (9, 50):
        succeed(capsys, *words, "--output", f"at{size}", "--size", size, "--views", 2)
        found = mediapy.read_image(f"at{size}/input0000_seed0000.png")
        assert found.shape == (size, 2 * size + GAP, 3)
        given = mediapy.read_image(f"at{size}/input0000.png")
        assert given.shape == (size, size, 3)
        for tile in (given, found[:, :size], found[:, -size:]):
            colors = {tuple(color) for color in tile.reshape(-1, 3)}
            assert colors <= {tuple(color) for color in PALETTE}
            assert len(colors) >= 2


def test_a_grid_has_label_maps_before_their_samples(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--output", "grid.png", "--inputs", "3,13"]
    succeed(capsys, *words, "--seeds", "4,6", "--outputs", "rgb,labels")
    found = mediapy.read_image("grid.png")
    step = SIDE + GAP
    assert found.shape == (2 * SIDE + GAP, 5 * SIDE + 4 * GAP, 3)
    np.testing.assert_array_equal(found[step:, :SIDE], PALETTE[kept(labelled_run, 13)])
    # Second row, second seed: from the camera of the label map.
    view = labelled_run.label_view(13)
    request = SceneRequest(6, label=view)
    for column, name in ((3, "rgb"), (4, "labels")):
        tile = found[step:, column * step : column * step + SIDE]
        np.testing.assert_array_equal(tile, picture(labelled_run, request, view.pose, name))
    record = json.loads(Path("grid.json").read_text())
    assert [one["name"] for one in record["inputs"]] == ["input0003", "input0013"]
    assert record["inputs"][1]["label"] == pytest.approx(view.pose[0].tolist())
    assert record["views"] == "each row from the camera of its label map"
    arrays = np.load("grid.npz")
    np.testing.assert_array_equal(arrays["label_maps"][1], kept(labelled_run, 13))
    expected = request_latents(labelled_run.generator, request).foreground
    np.testing.assert_allclose(arrays["foreground"][3], expected[0], atol=1e-6)
    # The recorded command writes the same again.
    Path("grid.png").unlink()
    succeed(capsys, *shlex.split(record["command"])[1:])
    np.testing.assert_array_equal(mediapy.read_image("grid.png"), found)


def test_without_a_choice_the_first_kept_map_is_shown(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed(capsys, "sample", "--load-config", labelled, "--output", "a.png")
    found = mediapy.read_image("a.png")
    assert found.shape == (SIDE, 5 * SIDE + 4 * GAP, 3)
    np.testing.assert_array_equal(found[:, :SIDE], PALETTE[kept(labelled_run, 0)])


def test_a_map_of_ones_own(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:12, 2:14], ids[10:13, 4:7] = 1, 2
    Image.fromarray(ids).save("ids.png")
    Image.fromarray(PALETTE[ids]).save("colours.png")
    words = ["sample", "--load-config", labelled, "--seeds", 3, "--output"]
    angles = ["--input-azimuth", 90, "--input-elevation", 20]
    succeed(capsys, *words, "a.png", "--input", "ids.png", *angles)
    succeed(capsys, *words, "b.png", "--input-file", "colours.png", *angles)
    found = mediapy.read_image("a.png")
    np.testing.assert_array_equal(found, mediapy.read_image("b.png"))
    np.testing.assert_array_equal(found[:, :SIDE], PALETTE[ids])
    pose = labelled_run.orbit([90.0], 20.0)
    view = LabelView(torch.from_numpy(ids)[None, None], pose)
    expected = picture(labelled_run, SceneRequest(3, label=view), pose)
    np.testing.assert_array_equal(found[:, SIDE + GAP :], expected)
    # From elsewhere it is another thing: this model's encoder sees the rays of the map's pixels.
    succeed(capsys, *words, "c.png", "--input", "ids.png")
    latents = [np.load(name)["foreground"] for name in ("a.npz", "c.npz")]
    assert np.abs(latents[0] - latents[1]).max() > 1e-3


def test_a_map_that_the_viewer_saved_brings_its_pose(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:12, 2:14], ids[10:13, 4:7] = 1, 2
    view = LabelView(torch.from_numpy(ids)[None, None], labelled_run.orbit([70.0], 25.0))
    worn = Appearance(torch.zeros(1, labelled_run.generator.latent.w_dim))
    file = save_edit(Path("edits"), view, worn, labelled_run.labels()) / "labels.png"
    words = ["sample", "--load-config", labelled, "--seeds", 3, "--input", file, "--output"]
    succeed(capsys, *words, "a.png")
    found = mediapy.read_image("a.png")
    expected = picture(labelled_run, SceneRequest(3, label=view), view.pose)
    np.testing.assert_array_equal(found[:, SIDE + GAP :], expected)
    (described,) = json.loads(Path("a.json").read_text())["inputs"]
    assert described["source"] == f"{file}, seen from where edit.json beside it says"
    assert described["azimuth_deg"] == pytest.approx(70, abs=1e-3)
    assert described["elevation_deg"] == pytest.approx(25, abs=1e-3)
    # Where it is seen from may be said otherwise; the other angle is then the usual 0.
    succeed(capsys, *words, "b.png", "--input-azimuth", 10)
    (described,) = json.loads(Path("b.json").read_text())["inputs"]
    assert described["source"] == str(file)
    assert described["azimuth_deg"] == pytest.approx(10, abs=1e-3)
    assert described["elevation_deg"] == pytest.approx(0, abs=1e-3)
    view_again = labelled_run.label_view(file)
    torch.testing.assert_close(view_again.pose, view.pose)
    # A damaged file is one sentence, and does not matter where it is not needed.
    Path("edits/001/edit.json").write_text('{"pose": [1, 2]}')
    told = refuse(capsys, *words, "c.png")
    assert 'edit.json: "pose" must be a list of 25 finite numbers' in told
    mesh = ["mesh", "--load-config", labelled, "--input-file", file, "--output", "c.ply"]
    assert '"pose" must be a list' in refuse(capsys, *mesh)
    succeed(capsys, *words, "c.png", "--input-elevation", 5)


def test_maps_of_the_data_set(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    images = data_set(labelled_run)
    words = ["sample", "--load-config", labelled, "--images", "7,2", "--seeds", 1]
    succeed(capsys, *words, "--output", "a.png")
    found = mediapy.read_image("a.png")
    assert found.shape == (2 * SIDE + GAP, 2 * SIDE + GAP, 3)
    assert images.labels is not None
    for row, index in enumerate((7, 2)):
        start = row * (SIDE + GAP)
        tiles = found[start : start + SIDE, :SIDE], found[start : start + SIDE, SIDE + GAP :]
        np.testing.assert_array_equal(tiles[0], PALETTE[images.label_map(index)])
        pose = torch.as_tensor(images.labels[[index]])
        view = LabelView(torch.from_numpy(images.label_map(index))[None, None], pose)
        expected = picture(labelled_run, SceneRequest(1, label=view), pose)
        np.testing.assert_array_equal(tiles[1], expected)
    record = json.loads(Path("a.json").read_text())
    assert record["inputs"][0]["source"] == images.file(7, "label")
    assert "has 10 images, 0 to 9" in refuse(
        capsys, *words[:3], "--output", "b.png", "--images", 10
    )


def test_a_data_set_that_is_gone_is_named(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "nerfstudio_models").symlink_to(labelled.parent / "nerfstudio_models")
    content = labelled.read_text()
    # Paths are written part by part.
    assert "- set\n" in content
    (moved / "config.yml").write_text(content.replace("- set\n", "- gone\n"))
    words = ["sample", "--load-config", moved, "--output", "a.png", "--seeds", 0]
    assert "gone: no such file or folder" in refuse(capsys, *words, "--images", 1)
    succeed(capsys, *words, "--inputs", 1)


def test_a_turntable_of_labels(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--output", "turn.mp4", "--turntable"]
    succeed(capsys, *words, "--inputs", "0,7", "--seeds", 2, "--views", 5, "--outputs", "labels")
    video = mediapy.read_video("turn.mp4")
    assert video.shape == (5, 2 * SIDE + GAP, 2 * SIDE + GAP, 3)
    view = labelled_run.label_view(7)
    expected = picture(
        labelled_run, SceneRequest(2, label=view), labelled_run.orbit([246.0]), "labels"
    )
    # Compression changes colours a little; label maps stand still.
    assert np.abs(video[3][-SIDE:, -SIDE:] - expected.astype(float)).mean() < 20
    still = np.abs(video[:, -SIDE:, :SIDE] - PALETTE[kept(labelled_run, 7)].astype(float))
    assert still.mean() < 40
    assert np.ptp(video[:, -SIDE:, :SIDE].astype(float), axis=0).mean() < 10


@pytest.mark.parametrize("kind", ["labels", "appearance"])
def test_a_video_from_one_to_the_other(
    labelled: Path, labelled_run: Run, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--output", "way.mp4", "--interpolate", kind]
    given = ["--inputs", "0,12", "--seeds", 1] if kind == "labels" else ["--seeds", "1,9"]
    told = succeed(capsys, *words, *given, "--views", 5)
    assert f"{kind} over 5 frames" in told
    video = mediapy.read_video("way.mp4")
    first = labelled_run.label_view(0)
    ends = [SceneRequest(1, label=first)]
    if kind == "labels":
        assert video.shape == (5, SIDE, SIDE, 3)
        ends.append(SceneRequest(1, label=labelled_run.label_view(12)))
    else:
        assert video.shape == (5, SIDE, 2 * SIDE + GAP, 3)
        ends.append(SceneRequest(9, label=first))
    # The camera stands where that of the first label map does.
    pictures = [picture(labelled_run, end, first.pose).astype(float) for end in ends]
    assert np.abs(video[0][:, -SIDE:] - pictures[0]).mean() < 12
    assert np.abs(video[-1][:, -SIDE:] - pictures[1]).mean() < 12
    stations = np.load("way.npz")["foreground"]
    assert len(stations) == 2
    mapping = labelled_run.generator.mapping
    assert isinstance(mapping, LabelMappingNetwork)
    apart = np.abs(stations[0] - stations[1]).max(-1) > 1e-6
    expected = np.arange(len(apart)) < mapping.geometry_layers
    np.testing.assert_array_equal(apart, expected if kind == "labels" else ~expected)


def test_the_camera_turns_while_things_change(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--output", "way.mp4", "--inputs", "0,12"]
    succeed(capsys, *words, "--interpolate", "labels", "--turntable", "--views", 4, "--seeds", 0)
    assert len(mediapy.read_video("way.mp4")) == 4
    views = json.loads(Path("way.json").read_text())["views"]
    assert [view["azimuth_deg"] for view in views] == pytest.approx([30, 120, 210, 300])


def test_mixed_levels_come_from_the_other_seed(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = labelled_run.generator.mapping
    assert isinstance(mapping, LabelMappingNetwork)
    first = mapping.geometry_layers
    words = ["sample", "--load-config", labelled, "--output", "a.png", "--seeds", 0]
    succeed(capsys, *words, "--mix-seed", 8, "--mix-levels", f"0-{first}")
    found = np.load("a.npz")["foreground"][0]
    generator, store = labelled_run.generator, labelled_run.model.label_store
    own, other = (
        request_latents(generator, SceneRequest(seed), store).foreground[0].detach().numpy()
        for seed in (0, 8)
    )
    # The levels before it come from the label map in any case.
    np.testing.assert_allclose(found[first], other[first], atol=1e-6)
    np.testing.assert_allclose(found[first + 1 :], own[first + 1 :], atol=1e-6)
    assert np.abs(own[first] - other[first]).max() > 1e-3
    request = SceneRequest(0, mix_seed=8, mix_levels=(first,))
    expected = picture(labelled_run, request, labelled_run.label_view(0).pose)
    np.testing.assert_array_equal(mediapy.read_image("a.png")[:, -SIDE:], expected)
    assert json.loads(Path("a.json").read_text())["mix"] == {"seed": 8, "levels": [first]}
    told = refuse(capsys, *words, "--mix-seed", 8, "--mix-levels", f"0-{first - 1}")
    assert f"choose from {first} on" in told
