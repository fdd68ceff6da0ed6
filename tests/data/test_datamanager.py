"""The data manager, alone and as nerfstudio's commands use it."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
import yaml
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset

from nerfstudio_gan3d.cameras import PosePrior, cameras_to_labels, pixel_rays
from nerfstudio_gan3d.data import datamanager as module
from nerfstudio_gan3d.data.batches import ImageBatches
from nerfstudio_gan3d.data.datamanager import GanDataManager, GanDataManagerConfig
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.depth import read_distance
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from tests.data.sets import encode, files, image, labels, write_folder, write_zip


def make_config(path: Path, **options: object) -> GanDataManagerConfig:
    parser = Gan3dImagesDataParserConfig(prior=PosePrior(radius=2.5))
    return GanDataManagerConfig(data=path, dataparser=parser, **options)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", files(100))


def test_training_images_and_labels(path: Path):
    manager = make_config(path, batch_size=5, seed=2, mirror=True, resolution=4).setup()
    direct = ImageBatches(ImageSet(path), 5, 4, seed=2, mirror=True)
    for step in (0, 7):
        ours, wanted = manager.next_images(step), direct.batch(step)
        for key in ("image", "label", "index"):
            torch.testing.assert_close(ours[key], wanted[key], rtol=0, atol=0)
    torch.testing.assert_close(manager.sample_labels(9, 4), direct.sample_labels(9, 4))
    assert manager.get_train_rays_per_batch() == 5 * 4 * 4


def test_held_out_images_are_not_trained_on(path: Path):
    config = make_config(path, batch_size=10)
    config.dataparser.eval_objects = 1  # pyright: ignore[reportAttributeAccessIssue]
    manager = config.setup()
    # Image i shows object i % 3; object 2 is held out.
    assert manager.split_indices("test") == list(range(2, 100, 3))
    drawn = torch.cat([manager.next_images(step)["index"] for step in range(14)])
    assert set((drawn % 3).tolist()) == {0, 1}
    assert set(drawn.tolist()) == set(manager.split_indices("train"))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_datasets_serve_nerfstudio(path: Path, scale: float):
    manager = make_config(path, resolution=4, camera_res_scale_factor=scale).setup()
    assert isinstance(manager, VanillaDataManager)
    assert isinstance(manager.train_dataset, InputDataset)
    assert len(manager.train_dataset) == 100
    side = int(4 * scale)
    picture = manager.train_dataset[3]["image"]
    assert picture.shape == (side, side, 3)
    mean = image(3).reshape(side, 8 // side, side, 8 // side, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(picture * 255, mean, atol=0.51)
    camera = manager.train_dataset.cameras[3]
    assert (int(camera.width), float(camera.fx)) == (side, 1.5 * side)
    seen = [(camera.shape, batch["image"].shape) for camera, batch in
            manager.fixed_indices_eval_dataloader]  # fmt: skip
    assert seen == [((1,), (side, side, 3))] * 8
    camera, batch = manager.eval_dataloader.get_camera(image_idx=1)
    assert batch["image_idx"] == 1
    camera, batch = manager.next_eval_image(11)
    assert batch["image_idx"] == 3


def test_rays_go_through_pixels_of_training_cameras(path: Path):
    manager = make_config(path).setup(test_mode="test")
    manager.train_pixel_sampler.num_rays_per_batch = 500
    bundle, batch = manager.next_train(0)
    assert isinstance(bundle, RayBundle)
    assert bundle.shape == (500,)
    again, _ = manager.next_train(0)
    assert not torch.equal(bundle.directions, again.directions)
    camera, row, column = batch["indices"].T
    # Every part of the image and every exposed camera occurs.
    assert set(row.tolist()) == set(column.tolist()) == set(range(8))
    assert len(manager.train_dataset) == 64
    assert camera.max() > 60
    shown = cameras_to_labels(manager.train_dataset.cameras)
    origins, directions = pixel_rays(shown, 8, 8)  # [64, 64, 3], object world
    place = row * 8 + column
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    torch.testing.assert_close(bundle.origins, origins[camera, place] @ turn.T)
    torch.testing.assert_close(
        bundle.directions, directions[camera, place] @ turn.T, rtol=0, atol=1e-5
    )
    evaluated, _ = manager.next_eval(0)
    assert evaluated.shape == (1024,)


def test_opening_a_checkpoint_shows_few_cameras_and_reads_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_zip(tmp_path / "set.zip", files(100))
    read: list[str] = []
    original = zipfile.ZipFile.read

    def spy(self: zipfile.ZipFile, name: zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        read.append(name.filename)
        return original(self, name, pwd)

    monkeypatch.setattr(zipfile.ZipFile, "read", spy)
    manager = make_config(path, export_cameras=10).setup(test_mode="test")
    manager.next_train(0)
    # The first image's header tells the size; the labels are read once.
    assert sorted(read) == [
        "images/00000/img00000000.png", "images/dataset.json", "meta.json"
    ]  # fmt: skip
    assert manager.train_dataset.indices == list(range(0, 100, 10))
    np.testing.assert_allclose(manager.train_dataset[4]["image"] * 255, image(40), atol=1e-3)
    assert len(manager.split_indices("train")) == 100
    assert len(make_config(path, export_cameras=0).setup(test_mode="test").train_dataset) == 100


def stored_state(path: Path, **options: object) -> dict[str, torch.Tensor]:
    return make_config(path, **options).setup().state_dict()


def test_checkpoint_carries_cameras_in_a_fixed_shape(path: Path, tmp_path: Path):
    state = stored_state(path)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "export_labels": (64, 25),
        "export_size": (),
    }
    wanted = torch.tensor(labels(100))[[i * 100 // 64 for i in range(64)]]
    torch.testing.assert_close(state["export_labels"], wanted)
    small = write_folder(tmp_path / "small", files(3))
    assert stored_state(small)["export_labels"].shape == (64, 25)


@pytest.mark.parametrize("count", [3, 100])
def test_checkpoint_cameras_stand_in_for_missing_images(
    tmp_path: Path,
    count: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    path = write_folder(tmp_path / "set", files(count))
    state = stored_state(path)
    path.rename(tmp_path / "elsewhere")
    config = make_config(path)
    manager = config.setup(test_mode="test")
    assert manager.images_missing
    assert "is missing: cameras of the" in capsys.readouterr().out
    # Before a checkpoint is loaded, cameras come from the prior of the config.
    places = manager.train_dataset.cameras.camera_to_worlds[:, :, 3]
    torch.testing.assert_close(places.norm(dim=1), torch.full((64,), 2.5))
    manager.load_state_dict(state)
    kept = min(count, 64)
    wanted = torch.tensor(labels(count))[[i * count // kept for i in range(kept)]]
    torch.testing.assert_close(cameras_to_labels(manager.train_dataset.cameras), wanted)
    outputs = manager.train_dataset._dataparser_outputs
    torch.testing.assert_close(cameras_to_labels(outputs.cameras), wanted)
    assert int(manager.train_dataset.cameras.width[0]) == 8
    assert len(manager.eval_dataset) == min(kept, 8)
    bundle, _ = manager.next_train(0)
    torch.testing.assert_close(bundle.origins.norm(dim=1), torch.full((1024,), 2.0))
    _, batch = manager.eval_dataloader.get_camera(0)
    assert batch["image"].shape == (8, 8, 3)
    assert batch["image"].unique().tolist() == pytest.approx([128 / 255])
    known = {tuple(row) for row in cameras_to_labels(manager.train_dataset.cameras).tolist()}
    assert {tuple(row) for row in manager.sample_labels(1000, 0).tolist()} == known
    with pytest.raises(DataError, match="no such file or folder"):
        manager.next_images(0)
    # `ns-render dataset` makes a second manager from the same config, without the checkpoint.
    for name in ("setup_train", "setup_eval"):
        monkeypatch.setattr(GanDataManager, name, lambda self: None)
    second = config.setup(test_mode="test")
    torch.testing.assert_close(cameras_to_labels(second.train_dataset.cameras), wanted)


def test_training_without_its_images_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="gone: no such file or folder"):
        make_config(tmp_path / "gone").setup(test_mode="val")


def test_a_checkpoint_does_not_replace_the_cameras_of_a_set_that_is_there(
    path: Path, tmp_path: Path
):
    other = write_folder(tmp_path / "other", files(5, 16))
    manager = make_config(path).setup()
    before = manager.state_dict()["export_labels"].clone()
    manager.load_state_dict(stored_state(other))
    torch.testing.assert_close(manager.state_dict()["export_labels"], before)
    assert int(manager.export_size) == 8
    torch.testing.assert_close(
        cameras_to_labels(manager.train_dataset.cameras), torch.tensor(labels(100))
    )


def test_inference_mode_needs_no_images(tmp_path: Path):
    manager = make_config(tmp_path / "gone", resolution=16).setup(test_mode="inference")
    assert int(manager.train_dataset.cameras.width[0]) == 16
    manager.load_state_dict(stored_state(write_folder(tmp_path / "set", files(4)), resolution=16))
    assert len(manager.train_dataset) == 4


def test_ranks_come_from_torch_distributed(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.comms, "get_rank", lambda: 1)
    monkeypatch.setattr(module.comms, "get_world_size", lambda: 2)
    manager = make_config(path, batch_size=3).setup()
    wanted = ImageBatches(ImageSet(path), 3, 8, rank=1, world_size=2).batch(4)["index"]
    assert manager.next_images(4)["index"].equal(wanted)


def test_images_without_labels(tmp_path: Path):
    path = write_folder(tmp_path / "set", {f"{i}.png": encode(image(i)) for i in range(4)})
    manager = make_config(path, batch_size=2).setup()
    assert manager.next_images(0)["label"] is None
    radius = manager.sample_labels(8, 0)[:, [3, 7, 11]].norm(dim=1)
    torch.testing.assert_close(radius, torch.full((8,), 2.5))


def test_label_maps(path: Path):
    config = make_config(path, batch_size=5, resolution=4, mirror=True)
    config.label_kind, config.num_classes = "seg", 3
    manager = config.setup()
    direct = ImageBatches(ImageSet(path), 5, 4, mirror=True, label_kind="seg", num_classes=3)
    for step in (0, 3):
        ours, wanted = manager.next_images(step)["label_map"], direct.batch(step)["label_map"]
        assert ours is not None
        assert wanted is not None
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
    # Label map i is (ramp + i) % 3; of each cell of two pixels a side the last one counts.
    maps = manager.label_maps([7, 0, 7])
    ramp = np.arange(64).reshape(8, 8)[1::2, 1::2]
    expected = np.stack([(ramp + i) % 3 for i in (7, 0, 7)])[:, None]
    np.testing.assert_array_equal(maps, expected)
    assert manager.label_maps([]).shape == (0, 1, 4, 4)


def test_a_set_without_label_maps_is_refused_before_training(tmp_path: Path):
    content = {n: d for n, d in files(4).items() if not n.startswith("label/")}
    path = write_folder(tmp_path / "set", content)
    config = make_config(path)
    config.label_kind = "edge"
    sentence = f"^{path}: the set has no label/ beside its images, but the method learns from edge"
    with pytest.raises(DataError, match=sentence):
        config.setup()
    # A trained model can be looked at with such a set, as long as no label map is asked for.
    manager = config.setup(test_mode="test")
    assert len(manager.train_dataset) == 4
    with pytest.raises(DataError, match=sentence):
        manager.label_maps([0])


def test_label_maps_that_are_not_read_or_not_there(path: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="label_kind is none"):
        make_config(path).setup().label_maps([0])
    gone = make_config(tmp_path / "gone")
    gone.label_kind = "edge"
    with pytest.raises(DataError, match="gone: no such file or folder"):
        gone.setup(test_mode="test").label_maps([0])


def test_other_data_parsers_are_refused(tmp_path: Path):
    (tmp_path / "transforms_train.json").write_text(
        '{"camera_angle_x": 0.6, "frames": [{"file_path": "./a", "transform_matrix": '
        "[[1,0,0,0],[0,1,0,0],[0,0,1,4],[0,0,0,1]]}]}"
    )
    (tmp_path / "a.png").write_bytes(encode(image(0)))
    config = GanDataManagerConfig(data=tmp_path, dataparser=BlenderDataParserConfig())
    with pytest.raises(ValueError, match="Blender does not serve GAN methods; use gan3d-images"):
        config.setup()


def test_config_paths_yaml_and_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(Path("set"))
    assert config.data == tmp_path / "set"
    config.data = Path("other")  # as `ns-train METHOD --data other` does
    loaded = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert loaded == config
    assert loaded.data == tmp_path / "other"
    parsed = tyro.cli(
        GanDataManagerConfig, default=config, args=["--batch-size", "4", "--mirror", "True"],
        config=(tyro.conf.FlagConversionOff,),
    )  # fmt: skip
    assert (parsed.batch_size, parsed.mirror, parsed.data) == (4, True, tmp_path / "other")
    # Options of the parent class that would choose nothing are not offered.
    with pytest.raises(SystemExit):
        tyro.cli(GanDataManagerConfig, default=config, args=["--patch-size", "2"])
    # What the pipeline copies from the model is not offered either.
    for words in (["--label-kind", "seg"], ["--num-classes", "3"]):
        with pytest.raises(SystemExit):
            tyro.cli(GanDataManagerConfig, default=config, args=words)


def test_depth_in_training(path: Path, tmp_path: Path):
    config = make_config(path, batch_size=5, mirror=True, resolution=4, with_depth=True)
    manager = config.setup()
    direct = ImageBatches(ImageSet(path), 5, 4, mirror=True, with_depth=True)
    ours, wanted = manager.next_images(3)["depth"], direct.batch(3)["depth"]
    assert wanted is not None
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
    images, distances, cameras = manager.rgbd([7, 2])
    mean = image(7).reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images[0].permute(1, 2, 0), mean, atol=0.51)
    np.testing.assert_array_equal(distances[1, 0], read_distance(ImageSet(path), 2, 4))
    torch.testing.assert_close(cameras, torch.tensor(labels(100))[[7, 2]])

    bare = write_folder(tmp_path / "bare", {"a.png": encode(image(0))})
    with pytest.raises(DataError, match="bare: the set has no depth, but the method learns"):
        make_config(bare, with_depth=True).setup()
    # Who opens a checkpoint only looks.
    make_config(bare, with_depth=True).setup(test_mode="test")
    make_config(bare).setup()
