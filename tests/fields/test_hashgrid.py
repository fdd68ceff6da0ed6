"""The style-modulated field: mixing, modulation level by level, the box, and its gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.fields import styled_table
from nerfstudio_gan3d.fields.decoder import LabelActivation
from nerfstudio_gan3d.fields.hash_encoding import lookup
from nerfstudio_gan3d.fields.hashgrid import (
    FILM_GAIN,
    OUTSIDE_RAW_DENSITY,
    Modulation,
    StyleHashGrid,
)
from nerfstudio_gan3d.fields.styled_table import Mixing

SIZES: dict[str, Any] = {
    "levels": 3,
    "base_resolution": 3,
    "max_resolution": 9,
    "log2_table_size": 8,
    "features_per_level": 2,
    "hidden_dim": 6,
}


def make_field(
    modulation: Modulation = "both", bases: int = 5, mixing: Mixing = "before", **options: Any
) -> StyleHashGrid:
    """A small float64 field whose density output does not start at zero."""
    torch.manual_seed(3)
    field = StyleHashGrid(
        4,
        3,
        modulation=modulation,
        bases=1 if modulation == "film" else bases,
        mixing=mixing,
        init_std=1.0,
        implementation="torch",
        **{**SIZES, **options},
    ).double()
    torch.nn.init.normal_(field.out.weight)
    return field


def latents(field: StyleHashGrid, batch: int = 2) -> Tensor:
    return torch.randn(batch, field.num_ws, 4, dtype=torch.float64)


def inside(points: int = 7, batch: int = 2) -> Tensor:
    return torch.rand(batch, points, 3, dtype=torch.float64) - 0.5


def linear(layer, x: Tensor) -> Tensor:
    """Equalised linear layer, written out."""
    return x @ layer.weight.t() / layer.weight.shape[1] ** 0.5 + layer.bias


def twin_query(field: StyleHashGrid, ws: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Image by image: look every basis up, weigh them, then decode with FiLM after each layer."""
    layout, bases = field.basis_layout, field.bases
    groups, width = field.table.groups, field.table.layout.features_per_level
    memory = field.table.params.view(groups, layout.entries, width // 2, 2)
    raws, colours = [], []
    for image, w in enumerate(ws):
        point = positions[image : image + 1]
        unit = point + 0.5
        per_basis = [
            lookup(layout, memory[k // (width // 2), :, k % (width // 2)][None], unit, "gather")[0]
            for k in range(bases)
        ]  # K of [N, L, F]
        if len(field.styles):
            feature = torch.zeros_like(per_basis[0])
            for level, style in enumerate(field.styles):
                weights = linear(style, w[level]) / bases**0.5
                for k in range(bases):
                    feature[:, level] += weights[k] * per_basis[k][:, level]
        else:
            (feature,) = per_basis
        x = torch.cat([feature.flatten(1), 2 * unit[0] - 1], -1)
        for i, layer in enumerate(field.hidden):
            x = linear(layer, x)
            if len(field.films):
                film = linear(field.films[i], w[len(field.styles) + i]) * FILM_GAIN
                x = x * (1 + film[: x.shape[1]]) + film[x.shape[1] :]
            x = torch.where(x > 0, x, 0.2 * x)
        out = linear(field.out, x)
        raws.append(out[:, :1])
        colours.append(1.002 / (1 + torch.exp(-out[:, 1:])) - 0.001)
    return torch.stack(raws), torch.stack(colours)


@pytest.mark.parametrize("mixing", ["before", "after"])
@pytest.mark.parametrize(
    # 5 bases of 2 features keep one group a basis; 6 are stored two a group.
    ("modulation", "bases", "num_ws"),
    [("basis", 5, 3), ("film", 1, 2), ("both", 5, 5), ("both", 6, 5)],
)
def test_values_and_gradients_equal_twin(modulation, bases: int, num_ws: int, mixing) -> None:
    field = make_field(modulation, bases, mixing)
    assert field.num_ws == num_ws
    ws, positions = latents(field).requires_grad_(), inside().requires_grad_()
    prepared = field.prepare(ws)
    mixes = mixing == "before" and modulation != "film"
    assert prepared.mixed.shape == (2, field.basis_layout.entries if mixes else 0, 2)
    found = field.query(prepared, positions)
    raw, colours = twin_query(field, ws, positions)
    torch.testing.assert_close(found.raw_density, raw, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.features, colours, rtol=1e-9, atol=1e-10)
    cotangents = torch.randn_like(raw), torch.randn_like(colours)
    inputs = (ws, positions, *field.parameters())
    ours = torch.autograd.grad((found.raw_density, found.features), inputs, cotangents)
    twins = torch.autograd.grad((raw, colours), inputs, cotangents)
    for gradient, twin in zip(ours, twins, strict=True):
        torch.testing.assert_close(gradient, twin, rtol=1e-8, atol=1e-9)
        assert gradient.abs().max() > 0


def test_bases_are_stored_in_groups_that_gpus_read_well() -> None:
    for bases, features, groups, width in ((5, 2, 5, 2), (6, 2, 3, 4), (4, 1, 1, 4), (3, 8, 3, 8)):
        table = make_field(bases=bases, features_per_level=features).table
        assert (table.groups, table.layout.features_per_level) == (groups, width)


def test_every_w_changes_its_level_only() -> None:
    field = make_field("basis")
    ws, unit = latents(field), inside() + 0.5
    before = field.encode(field.mix(ws), unit)
    for level in range(3):
        changed = ws.clone()
        changed[:, level] += 1
        difference = field.encode(field.mix(changed), unit) - before
        moved = difference.abs().amax((0, 1, 3))
        assert moved[level] > 1e-3
        assert moved.sum() == moved[level]


def test_film_leaves_the_encoding_alone_and_basis_the_decoder() -> None:
    field = make_field("both")
    ws = latents(field)
    prepared = field.prepare(ws)
    film = ws.clone()
    film[:, 3:] += 1
    other = field.prepare(film)
    assert torch.equal(other.mixed, prepared.mixed)
    assert not torch.allclose(other.film, prepared.film)
    assert make_field("basis").prepare(ws[:, :3]).film.numel() == 0
    assert make_field("film").prepare(ws[:, :2]).styles.numel() == 0


def test_nothing_is_outside_the_box() -> None:
    field = make_field(box_size=2.0)
    prepared = field.prepare(latents(field, 1))
    axis = torch.tensor([-1.001, -1, -0.999, 0.999, 1, 1.001], dtype=torch.float64)
    for direction in torch.eye(3, dtype=torch.float64):
        raw = field.query(prepared, axis[None, :, None] * direction).raw_density.flatten()
        assert raw[[0, 5]].tolist() == [OUTSIDE_RAW_DENSITY] * 2
        # Inside, density is continuous up to the faces.
        assert raw[1:5].abs().max() < 100
        torch.testing.assert_close(raw[[1, 4]], raw[[2, 3]], rtol=0, atol=0.2)
    outside = torch.nn.functional.softplus(torch.tensor(OUTSIDE_RAW_DENSITY, dtype=torch.half) - 1)
    assert outside == 0


def test_untrained_density_is_the_initial_one() -> None:
    field = StyleHashGrid(
        4, 3, density_bias=0.5, initial_density=lambda p: p[..., :1] * 3, bases=4, **SIZES
    )
    positions = inside().float()
    found = field.query(field.prepare(latents(field).float()), positions)
    torch.testing.assert_close(found.raw_density, 0.5 + 3 * positions[..., :1])
    # The colours of two latents differ from the start, or nothing would tell them apart.
    assert (found.features[0] - found.features[1]).abs().max() > 1e-3


def test_prepared_scenes_can_be_taken_apart() -> None:
    field = make_field()
    prepared, positions = field.prepare(latents(field, 3)), inside(batch=3)
    one = type(prepared)(*(part[1:2] for part in prepared))
    found = field.query(one, positions[1:2])
    torch.testing.assert_close(found.features, field.query(prepared, positions).features[1:2])


def test_automatic_mixing_depends_on_the_table_and_its_evaluator(monkeypatch) -> None:
    field = make_field(mixing="auto")
    assert field.mixes_before()
    monkeypatch.setattr(styled_table, "_MAX_MIXED_ENTRIES", field.basis_layout.entries - 1)
    assert not field.mixes_before()
    monkeypatch.undo()
    field.table.implementation = "tcnn"
    assert not field.mixes_before()


def test_tcnn_reads_mixed_tables_image_by_image(monkeypatch) -> None:
    field = make_field(mixing="before")
    prepared, positions = field.prepare(latents(field)), inside()
    expected = field.query(prepared, positions).features

    def torch_lookup(layout, table: Tensor, unit: Tensor) -> Tensor:
        assert layout == field.basis_layout
        return lookup(layout, table[None], unit[None])[0]

    monkeypatch.setattr(styled_table, "lookup_tcnn", torch_lookup)
    field.table.implementation = "tcnn"
    torch.testing.assert_close(field.query(prepared, positions).features, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modulation": "film", "bases": 16}, "bases is 16: .* modulation 'film'"),
        ({"bases": 0}, "bases is 0"),
        ({"features_per_level": 3}, "features_per_level is 3"),
        ({"max_resolution": 4, "base_resolution": 8}, "max_resolution is 4"),
    ],
)
def test_impossible_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StyleHashGrid(4, 3, **options)


def test_wrong_number_of_latents_is_refused() -> None:
    field = make_field()
    with pytest.raises(ValueError, match="this field takes 5"):
        field.prepare(torch.zeros(1, 4, 4, dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["before", "after"])
def test_tcnn_equals_torch_on_a_gpu(mixing) -> None:
    slow = make_field(mixing=mixing).float().cuda()
    fast = make_field(mixing=mixing).float().cuda()
    fast.table.implementation = "tcnn"
    ws, positions = latents(slow).float().cuda(), inside(500).float().cuda()
    results = []
    for field in (slow, fast):
        found = field.query(field.prepare(ws), positions)
        total = found.raw_density.sum() + found.features.sum()
        (gradient,) = torch.autograd.grad(total, field.table.params)
        results.append((found.raw_density, found.features, gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("modulation", ["basis", "both"])
def test_the_latent_of_colours_cannot_move_the_surface(modulation: Modulation) -> None:
    torch.manual_seed(0)
    grid = StyleHashGrid(
        6,
        3,
        levels=2,
        bases=4,
        modulation=modulation,
        label_dim=2,
        label_activation=LabelActivation("scores", 2),
    )
    with torch.no_grad():
        grid.out.weight.normal_()
    ws = torch.randn(1, grid.num_ws, 6)
    other = ws.clone()
    other[:, -1] = torch.randn(6)
    points = torch.rand(1, 20, 3) - 0.5
    one, two = (grid.query(grid.prepare(w), points) for w in (ws, other))
    assert torch.equal(one.raw_density, two.raw_density)
    assert one.labels is not None
    assert two.labels is not None
    assert one.labels.shape == (1, 20, 2)
    assert torch.equal(one.labels, two.labels)
    assert not torch.allclose(one.features, two.features)
    changed = ws.clone()
    changed[:, 0] += 1
    moved = grid.query(grid.prepare(changed), points)
    assert not torch.allclose(moved.raw_density, one.raw_density)


def test_palette_is_repainted_by_the_last_latent_alone() -> None:
    field = make_field(palette=4)
    assert field.num_ws == make_field().num_ws + 1
    ws, positions = latents(field), inside()
    repainted = ws.clone()
    repainted[:, -1] = 3.0
    first, second = (field.query(field.prepare(w), positions) for w in (ws, repainted))
    assert torch.equal(first.raw_density, second.raw_density)
    assert (first.channels - second.channels).abs().max() > 0.01
    # The colours are the palette's, mixed by what the decoder says of the position.
    prepared = field.prepare(ws)
    hidden, out, _ = field._shape(prepared, positions)
    torch.testing.assert_close(out, linear(field.out, hidden))
    assert field.palette is not None
    palette = linear(field.palette, ws[:, -1]).view(2, 4, 3)
    mixed = out[..., 2:].softmax(-1) @ palette + out[..., 1:2]
    torch.testing.assert_close(first.channels, torch.sigmoid(mixed) * 1.002 - 0.001)
