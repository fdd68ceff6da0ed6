"""CLIP's distance on a tiny model of random weights, against the network written out."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nerfstudio_gan3d.losses.clip import MEAN, STD, WITHOUT, ClipDistance

MODEL = "gan3d-test-tiny"
SIZE, PATCH, WIDTH, HEADS, LAYERS, EMBEDDED = 16, 8, 16, 2, 2, 6
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    library = importlib.import_module("open_clip")
    config = {
        "embed_dim": EMBEDDED,
        "vision_cfg": {
            "image_size": SIZE,
            "layers": LAYERS,
            "width": WIDTH,
            "patch_size": PATCH,
            "head_width": WIDTH // HEADS,
        },
        "text_cfg": {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1},
    }
    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{MODEL}.json").write_text(json.dumps(config))
    vision = config["vision_cfg"] | {"timm_model_name": "vit_tiny_patch16_224"}
    (folder / f"{MODEL}-timm.json").write_text(json.dumps(config | {"vision_cfg": vision}))
    library.add_model_config(folder)
    return library


@pytest.fixture(scope="module")
def state(open_clip: ModuleType) -> State:
    """The whole model's weights, text tower and all, as large as to make differences count."""
    torch.manual_seed(0)
    with torch.random.fork_rng():
        model = open_clip.create_model(MODEL)
        return {
            name: value + 0.2 * torch.randn_like(value)
            for name, value in model.state_dict().items()
        }


@pytest.fixture(scope="module")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def distance(weights: Path) -> ClipDistance:
    return ClipDistance(MODEL, "own", weights)


def resized(image: Tensor) -> Tensor:
    """Bilinear to SIZE x SIZE pixels, out of the four neighbours of each pixel centre."""
    for axis in (-1, -2):
        count = image.shape[axis]
        place = ((torch.arange(SIZE).double() + 0.5) * count / SIZE - 0.5).clamp(0)
        low = place.floor().long()
        high = (low + 1).clamp(max=count - 1)
        share = (place - low).view([-1 if a == axis else 1 for a in (-2, -1)])
        first, second = image.index_select(axis, low), image.index_select(axis, high)
        image = first * (1 - share) + second * share
    return image


def normalised(x: Tensor, state: State, name: str) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def embedded(image: Tensor, state: State, quick: bool) -> Tensor:
    """CLIP's vision transformer (Radford et al. 2021; Dosovitskiy et al. 2021), head by head."""
    # Both towers have a transformer, under names that differ by the prefix alone.
    pairs = (name.partition("visual.") for name in state)
    state = {
        own: state[prefix + own].double() for rest, prefix, own in pairs if prefix and not rest
    }
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (MEAN, STD))
    x = (resized((image.double() + 1) / 2) - mean) / std
    grid = SIZE // PATCH
    kernels = state["conv1.weight"].flatten(1)
    tokens = [state["class_embedding"].expand(len(x), WIDTH)]
    for row in range(grid):
        for column in range(grid):
            patch = x[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            tokens.append(patch.flatten(1) @ kernels.T)
    x = torch.stack(tokens, 1) + state["positional_embedding"]
    x = normalised(x, state, "ln_pre")
    for layer in range(LAYERS):
        name = f"transformer.resblocks.{layer}"
        before = normalised(x, state, f"{name}.ln_1")
        mixed = before @ state[f"{name}.attn.in_proj_weight"].T
        query, key, value = (mixed + state[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
        heads = []
        for q, k, v in zip(*(t.chunk(HEADS, -1) for t in (query, key, value)), strict=True):
            heads.append((q @ k.mT / (WIDTH / HEADS) ** 0.5).softmax(-1) @ v)
        x = x + linear(torch.cat(heads, -1), state, f"{name}.attn.out_proj")
        hidden = linear(normalised(x, state, f"{name}.ln_2"), state, f"{name}.mlp.c_fc")
        gate = (1.702 * hidden).sigmoid() if quick else (1 + (hidden / 2**0.5).erf()) / 2
        x = x + linear(hidden * gate, state, f"{name}.mlp.c_proj")
    return normalised(x[:, 0], state, "ln_post") @ state["proj"]


def images(*shape: int) -> tuple[Tensor, Tensor]:
    first, second = (2 * torch.rand(2, *shape, dtype=torch.float64) - 1).unbind()
    return first, second


@pytest.mark.parametrize("size", [(16, 16), (11, 23), (40, 24)])
def test_distance_equals_the_network_written_out(
    distance: ClipDistance, state: State, size: tuple[int, int]
) -> None:
    image, target = images(3, 3, *size)
    expected = embedded(image, state, False) - embedded(target, state, False)
    expected = expected.abs().mean(1)
    torch.testing.assert_close(distance(image, target), expected, rtol=1e-6, atol=1e-9)
    # The lengths of embeddings count, and images far apart are not alike.
    assert expected.min() > 0.05
    single = distance(image.float(), target.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=1e-5)


def test_an_image_has_no_distance_from_itself_or_from_itself_enlarged(
    distance: ClipDistance,
) -> None:
    image, other = images(2, 3, 16, 16)
    assert distance(image, image.clone()).tolist() == [0, 0]
    torch.testing.assert_close(distance(image, other), distance(other, image))
    # A flat image is the same at every size.
    flat = torch.full((1, 3, 1, 1), 0.3).double()
    assert distance(flat.expand(1, 3, 5, 9), flat.expand(1, 3, 40, 40)).item() < 1e-9


def test_gradient_is_that_of_finite_differences(distance: ClipDistance) -> None:
    image, target = images(2, 3, 12, 20)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(distance(image, target).sum(), image)
    with torch.no_grad():
        for pixel in ((0, 0, 3, 3), (0, 2, 11, 0), (1, 1, 8, 11), (1, 2, 0, 19)):
            step = torch.zeros_like(image)
            step[pixel] = 1e-6
            ahead, behind = distance(image + step, target), distance(image - step, target)
            slope = (ahead - behind).sum() / 2e-6
            assert slope.abs() > 1e-6
            torch.testing.assert_close(gradient[pixel], slope, rtol=1e-4, atol=1e-8)


def test_values_beyond_the_range_keep_their_gradient(distance: ClipDistance) -> None:
    image, target = images(1, 3, 16, 16)
    bright = (image + 5).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(bright, target).sum(), bright)
    assert (gradient != 0).float().mean() > 0.9


def test_nothing_of_it_is_trained_or_saved_with_its_holder(distance: ClipDistance) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = distance
            self.own = nn.Linear(1, 1)

    holder = Holder().train()
    assert list(holder.state_dict()) == ["own.weight", "own.bias"]
    assert len(list(holder.parameters())) == 2
    image, target = images(1, 3, 16, 16)
    assert not distance(image, target).requires_grad
    distance(image.requires_grad_(), target).sum().backward()
    assert image.grad is not None
    assert not any(parameter.requires_grad for parameter in distance._net.parameters())


def test_opening_it_leaves_the_random_numbers_alone(weights: Path, distance: ClipDistance) -> None:
    before = torch.get_rng_state()
    ClipDistance(MODEL, "own", weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_kind_of_file_gives_the_same_distance(
    state: State, open_clip: ModuleType, distance: ClipDistance, tmp_path: Path
) -> None:
    image, target = images(2, 3, 16, 16)
    expected = distance(image, target)
    save_file(state, tmp_path / "tiny.safetensors")
    # What open_clip's own training writes on several machines.
    spread = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": spread}, tmp_path / "epoch_3.pt")
    # OpenAI's files are TorchScript.
    model = open_clip.create_model(MODEL)
    model.load_state_dict(state)

    class Archive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.visual

        def forward(self, x: Tensor) -> Tensor:
            return x

    torch.jit.save(torch.jit.trace(Archive(), torch.zeros(1)), tmp_path / "archive.pt")
    for name in ("tiny.safetensors", "epoch_3.pt", "archive.pt"):
        found = ClipDistance(MODEL, "own", tmp_path / name)(image, target)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_tag_brings_its_activation_mean_place_and_download(
    open_clip: ModuleType,
    weights: Path,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = weights.as_uri()
    published = {"quick": {"url": url, "quick_gelu": True}, "grey": {"url": url, "mean": [0.5] * 3}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, published)
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".cache" / "clip" / "tiny.pt"
    with pytest.raises(ValueError, match=f"are not at {place}: put them there .from {url}.") as e:
        ClipDistance(MODEL, "quick")
    assert f"train without them: {WITHOUT}" in str(e.value)
    assert not place.parent.exists()
    image, target = images(2, 3, 16, 16)
    expected = embedded(image, state, True) - embedded(target, state, True)
    expected = expected.abs().mean(1)
    found = ClipDistance(MODEL, "quick", allow_download=True)(image, target)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert place.is_file()
    # From now on it is there. Its other mean is as if the images were darker by the difference.
    shift = 2 * torch.tensor(MEAN).double().view(3, 1, 1) - 1
    expected = embedded(image + shift, state, False) - embedded(target + shift, state, False)
    found = ClipDistance(MODEL, "grey")(image, target)
    torch.testing.assert_close(found, expected.abs().mean(1), rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"CLIP tag openai: .* name one of quick, grey"):
        ClipDistance(MODEL, "openai")


def test_a_download_that_fails_is_one_sentence(
    open_clip: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    url = (tmp_path / "nowhere.pt").as_uri()
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, {"own": {"url": url}})
    with pytest.raises(ValueError, match=f"could not be fetched from {url}") as caught:
        ClipDistance(MODEL, "own", allow_download=True, without="--lambda 0")
    assert str(caught.value).endswith("train without them: --lambda 0")
    assert "\n" not in str(caught.value)


def test_missing_weights_of_the_recipe_name_file_place_and_way_without(
    open_clip: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hub = importlib.import_module("huggingface_hub")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(ValueError, match=r"ViT-B-16 \(openai\) are not at") as caught:
        ClipDistance()
    sentence = str(caught.value)
    place = tmp_path / ".cache" / "clip" / "ViT-B-16.pt"
    for part in (str(place), "https://", "--pipeline.model.losses.clip 0"):
        assert part in sentence
    assert "\n" not in sentence
    named = tmp_path / "own.pt"
    with pytest.raises(ValueError, match=f"are not at {named}: put them there, or train without"):
        ClipDistance(weights=named, allow_download=True)
    with pytest.raises(ValueError, match="no public place that open_clip knows"):
        ClipDistance(MODEL, "own", allow_download=True)
    assert not list(tmp_path.iterdir())


def test_the_cache_of_hugging_face_is_looked_into(
    open_clip: ModuleType,
    distance: ClipDistance,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = importlib.import_module("huggingface_hub")
    published = {"own": {"url": "", "hf_hub": "someone/tiny/"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, published)
    held = {("someone/tiny", "open_clip_pytorch_model.bin"): str(weights)}
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *asked: held.get(asked))
    image, target = images(1, 3, 16, 16)
    assert torch.equal(ClipDistance(MODEL, "own")(image, target), distance(image, target))
    held.clear()
    with pytest.raises(ValueError, match=r"cache \(someone/tiny\).*huggingface\.co/someone/tiny"):
        ClipDistance(MODEL, "own")


def test_files_that_are_not_the_models_weights_are_refused(
    state: State, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    for content in (b"", b"text", weights.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pt: truncated or unreadable") as caught:
            ClipDistance(MODEL, "own", path)
        assert "\n" not in str(caught.value)
        assert WITHOUT in str(caught.value)
    missing = {name: value for name, value in state.items() if name != "visual.proj"}
    wider = state | {"visual.proj": torch.zeros(WIDTH, EMBEDDED + 1)}
    for content in (missing, wider, torch.zeros(3), [state]):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"not the weights of CLIP {MODEL}, whose visual"):
            ClipDistance(MODEL, "own", path)
    torch.save(missing, path)
    with pytest.raises(ValueError, match=r"visual\.proj has the shape \[16, 6\]"):
        ClipDistance(MODEL, "own", path)


def test_weights_are_not_unpickled_freely(open_clip: ModuleType, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = tmp_path / "harmful.pt"
    torch.save({"visual.proj": Harmful()}, path)
    with pytest.raises(ValueError, match=r"harmful\.pt: truncated or unreadable"):
        ClipDistance(MODEL, "own", path)
    assert not (tmp_path / "ran").exists()


def test_models_that_are_unknown_or_of_another_build_are_refused(
    open_clip: ModuleType, weights: Path
) -> None:
    with pytest.raises(ValueError, match=r"CLIP model ViT-Z-1: open_clip does not know it"):
        ClipDistance("ViT-Z-1")
    with pytest.raises(ValueError, match=r"-timm: its image tower is none of CLIP's own"):
        ClipDistance(f"{MODEL}-timm", "own", weights)
    with pytest.raises(ValueError, match=r"CLIP tag opnai: .* name one of openai, "):
        ClipDistance("ViT-B-16", "opnai", weights)


def test_the_package_that_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"needs the package open-clip-torch.*losses\.clip 0"):
        ClipDistance()
