"""Requests of labelled models: which map, which appearance, and paths between them."""

from dataclasses import replace

import pytest
import torch

from nerfstudio_gan3d.latents import (
    STORED_MAPS,
    Appearance,
    LabelStore,
    LabelView,
    SceneRequest,
    request_latents,
)
from nerfstudio_gan3d.models.gan import make_generator
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork, encode_labels
from tests.models.test_label_objective import config, maps
from tests.models.tiny import labels


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return make_generator(config())


@pytest.fixture(scope="module")
def store() -> LabelStore:
    store = LabelStore(config().labels, 16)
    store.fill(maps(3), labels(3))
    return store


def ws(generator: Generator, request: SceneRequest, store: LabelStore | None) -> torch.Tensor:
    with torch.no_grad():
        return request_latents(generator, request, store).foreground


def geometry_layers(generator: Generator) -> int:
    assert isinstance(generator.mapping, LabelMappingNetwork)
    return generator.mapping.geometry_layers


def test_few_maps_are_kept_repeatedly(store: LabelStore) -> None:
    assert len(store.maps) == STORED_MAPS
    for index in (0, 4, 15):
        view = store.view(index)
        assert torch.equal(view.map, maps(3)[index % 3][None])
        assert torch.equal(view.pose, labels(3)[index % 3][None])
    with pytest.raises(ValueError, match="label map 16: a checkpoint keeps 16"):
        store.view(16)


def test_an_empty_store_holds_background_seen_by_a_camera() -> None:
    empty = LabelStore(config("edge").labels, 16)
    assert bool((empty.maps == 255).all())
    assert torch.equal(empty.poses[0, :16].view(4, 4), torch.eye(4))


def test_the_map_decides_geometry_and_the_seed_appearance(
    generator: Generator, store: LabelStore
) -> None:
    first = geometry_layers(generator)
    one, other_seed = (ws(generator, SceneRequest(seed, label=1), store) for seed in (3, 4))
    other_map = ws(generator, SceneRequest(3, label=2), store)
    assert torch.equal(one[:, :first], other_seed[:, :first])
    assert not torch.equal(one[:, first:], other_seed[:, first:])
    assert torch.equal(one[:, first:], other_map[:, first:])
    assert not torch.equal(one[:, :first], other_map[:, :first])


def test_a_map_of_ones_own_stands_for_a_kept_one(generator: Generator, store: LabelStore) -> None:
    view = LabelView(store.maps[1:2], store.poses[1:2])
    expected = ws(generator, SceneRequest(3, label=1), store)
    assert torch.equal(ws(generator, SceneRequest(3, label=view), None), expected)
    with pytest.raises(ValueError, match="comes without label maps"):
        ws(generator, SceneRequest(3, label=1), None)


def test_the_encoder_is_told_where_the_map_is_seen_from(
    generator: Generator, store: LabelStore
) -> None:
    view = LabelView(store.maps[:1], store.poses[:1])
    elsewhere = replace(view, pose=store.poses[1:2])
    first = geometry_layers(generator)
    one, other = (ws(generator, SceneRequest(label=x), None)[:, :first] for x in (view, elsewhere))
    assert not torch.allclose(one, other)


def test_a_given_appearance_takes_the_place_of_the_seeds(
    generator: Generator, store: LabelStore
) -> None:
    first = geometry_layers(generator)
    appearance = Appearance(torch.arange(16.0)[None])
    found = ws(generator, SceneRequest(3, label=1, appearance=appearance), store)
    for level in range(first, found.shape[1]):
        assert torch.equal(found[:, level], appearance.w)
    assert torch.equal(found[:, :first], ws(generator, SceneRequest(3, label=1), store)[:, :first])


def test_paths_between_maps_and_between_appearances_are_straight(
    generator: Generator, store: LabelStore
) -> None:
    start, end = (ws(generator, SceneRequest(3, label=label), store) for label in (1, 2))
    request = SceneRequest(3, label=1, other_label=2, interpolation=0.25)
    torch.testing.assert_close(ws(generator, request, store), torch.lerp(start, end, 0.25))
    far = ws(generator, SceneRequest(8, label=1), store)
    request = SceneRequest(3, label=1, other_seed=8, interpolation=0.5)
    torch.testing.assert_close(ws(generator, request, store), torch.lerp(start, far, 0.5))


def test_the_condition_is_what_the_network_takes(generator: Generator, store: LabelStore) -> None:
    assert generator.labels is not None
    expected = encode_labels(store.maps[:1], "seg", 3)
    assert expected.shape == (1, 3, 16, 16)
    assert torch.equal(expected.argmax(1, keepdim=True).to(torch.uint8), store.maps[:1])
