"""The hash table against tiny-cuda-nn's published facts and a plain twin of its C++ source."""

import importlib
import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nerfstudio_gan3d.fields import hash_encoding
from nerfstudio_gan3d.fields.hash_encoding import (
    HashTable,
    load_tcnn,
    lookup,
    lookup_tcnn,
    prefers_volume,
)
from nerfstudio_gan3d.fields.hash_layout import TableLayout

# Dense and hashed levels, a table that is no multiple of 8 vertices, and fractional scales:
# resolutions 3, 5, 7, 11, of which the last two do not fit into 2^8 entries.
SMALL = TableLayout(4, 2, 8, 3, 1.5)


def twin_grid(layout: TableLayout) -> list[tuple[np.float32, int, int]]:
    """(scale, resolution, entries) of each level, as grid.h's constructor computes them."""
    levels = []
    log2_scale = np.log2(np.float32(layout.per_level_scale))
    for level in range(layout.levels):
        power = np.exp2(np.float32(level) * log2_scale, dtype=np.float32)
        scale = power * np.float32(layout.base_resolution) - np.float32(1)
        resolution = int(np.ceil(scale)) + 1
        params = (resolution**3 + 7) // 8 * 8
        levels.append((scale, resolution, min(params, 1 << layout.log2_table_size)))
    return levels


def twin_index(entries: int, resolution: int, x: int, y: int, z: int) -> int:
    """grid_index of common_device.h, in unsigned 32-bit arithmetic."""
    index, stride = 0, 1
    if resolution <= 0x659:
        for coordinate in (x, y, z):
            index = (index + coordinate * stride) % 2**32
            stride = stride * resolution % 2**32
    else:
        stride = 0xFFFFFFFF
    if entries < stride:
        index = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
    return index % entries


def twin_lookup(layout: TableLayout, table: Tensor, positions: Tensor) -> Tensor:
    """kernel_grid for one table [T, C] and positions [N, 3] in [0, 1]: [N, L, C]."""
    rows = []
    for position in positions:
        offset, levels = 0, []
        for scale, resolution, entries in twin_grid(layout):
            cell = position * float(scale) + 0.5
            corner = [math.floor(float(value)) for value in cell]
            fraction = cell - torch.tensor(corner, dtype=cell.dtype)
            value = torch.zeros(table.shape[1], dtype=table.dtype)
            for k in range(8):
                weight, vertex = torch.ones((), dtype=table.dtype), []
                for axis in range(3):
                    upper = k >> axis & 1
                    weight = weight * (fraction[axis] if upper else 1 - fraction[axis])
                    vertex.append(corner[axis] + upper)
                value = value + weight * table[offset + twin_index(entries, resolution, *vertex)]
            levels.append(value)
            offset += entries
        rows.append(torch.stack(levels))
    return torch.stack(rows)


def inputs(layout: TableLayout, batch: int = 2, points: int = 12, columns: int = 3):
    """Tables and positions in float64; the first positions are the cube's corners and faces."""
    tables = torch.randn(batch, layout.entries, columns, dtype=torch.float64)
    positions = torch.rand(batch, points, 3, dtype=torch.float64)
    positions[:, :4] = torch.tensor(
        [[0.0, 0, 0], [1, 1, 1], [1, 0.3, 1], [0, 1, 0.9]], dtype=torch.float64
    )
    return tables.requires_grad_(), positions.requires_grad_()


@pytest.mark.parametrize(
    ("per_level_scale", "parameters"),
    # What instant-ngp prints as total_encoding_params for its lego and fox scenes (L 16, F 2).
    [(1.38191, 12196240), (1.51572, 13074912)],
)
def test_sizes_equal_instant_ngps(per_level_scale: float, parameters: int) -> None:
    layout = TableLayout(16, 2, 19, 16, per_level_scale)
    assert layout.entries * layout.features_per_level == parameters


def test_layout_worked_by_hand() -> None:
    # Scales 3 * 1.5^l - 1 = 2, 3.5, 5.75, 9.125; resolutions ceil + 1 = 3, 5, 7, 11.
    assert SMALL.scales == (2.0, 3.5, 5.75, 9.125)
    assert SMALL.resolutions == (3, 5, 7, 11)
    # 27 -> 32, 125 -> 128, 343 -> 344 but at most 256, 1331 -> at most 256.
    assert SMALL.offsets == (0, 32, 160, 416, 672)
    assert [SMALL.is_dense(level) for level in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("layout", [SMALL, TableLayout(16, 2, 14, 16, 1.38191)])
def test_layout_equals_twin(layout: TableLayout) -> None:
    grid = twin_grid(layout)
    # exp2f and log2f are good to two units in the last place, and libraries differ by that.
    scales = np.array([scale for scale, _, _ in grid])
    ours = np.array(layout.scales, dtype=np.float32)
    np.testing.assert_array_max_ulp(ours, scales, maxulp=4)
    assert list(layout.resolutions) == [resolution for _, resolution, _ in grid]
    assert np.diff(layout.offsets).tolist() == [entries for _, _, entries in grid]


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("layout", "level"),
    # Dense; dense with unused entries; hashed; smallest; finer than any dense stride.
    [
        (SMALL, 0),
        (SMALL, 1),
        (SMALL, 3),
        (TableLayout(1, 2, 3, 2, 1.0), 0),
        (TableLayout(1, 1, 19, 2000, 1.0), 0),
    ],
)
def test_vertices_equal_twin(layout: TableLayout, level: int, kind: torch.dtype) -> None:
    _, resolution, entries = twin_grid(layout)[level]
    vertices = torch.randint(0, resolution + 1, (200, 3))
    vertices[:2] = torch.tensor([[resolution] * 3, [resolution, 0, resolution - 1]])
    expected = [twin_index(entries, resolution, *vertex) for vertex in vertices.tolist()]
    found = layout.vertex_entries(level, *vertices.to(kind).unbind(1))
    assert found.tolist() == expected


def test_border_wraps_into_the_next_row() -> None:
    # R = 3, 32 entries: vertices (3, 0, 0) and (0, 1, 0) are both entry 3; (3, 3, 3), 39, is 7.
    x, y, z = torch.tensor([[3, 0, 3], [0, 1, 3], [0, 0, 3]])
    assert SMALL.vertex_entries(0, x, y, z).tolist() == [3, 3, 7]
    # At (1, 0.25, 0.25) the cell is (2.5, 1, 1): half of entry 14, (2, 1, 1), half of entry 15.
    layout = TableLayout(1, 1, 8, 3, 1.0)
    table = torch.arange(32.0, dtype=torch.float64)[None, :, None] ** 2
    position = torch.tensor([[[1.0, 0.25, 0.25]]], dtype=torch.float64)
    for strategy in ("gather", "volume"):
        found = lookup(layout, table, position, strategy)
        assert found.item() == pytest.approx((14**2 + 15**2) / 2)


def test_colliding_vertices_share_gradients() -> None:
    # With 8 entries, vertices (0, 0, 0) and (1, 1, 0) collide: 1 ^ 2654435761 ends in bits 000.
    layout = TableLayout(1, 1, 3, 4, 1.0)
    zero = torch.tensor([0])
    one = torch.tensor([1])
    assert layout.vertex_entries(0, zero, zero, zero).item() == 0
    assert layout.vertex_entries(0, one, one, zero).item() == 0
    # Scale 3: position (0, 0, 1/6) is the cell (0.5, 0.5, 1), a quarter of each of the vertices
    # (0..1, 0..1, 1), hashed to (x ^ y ^ 5) & 7 = 5, 4, 4, 5.
    position = torch.tensor([[[0.0, 0.0, 1 / 6]]], dtype=torch.float64)
    for strategy in ("gather", "volume"):
        table = torch.zeros(1, 8, 1, dtype=torch.float64, requires_grad=True)
        lookup(layout, table, position, strategy).sum().backward()
        assert table.grad is not None
        expected = torch.tensor([0, 0, 0, 0, 0.5, 0.5, 0, 0], dtype=torch.float64)
        torch.testing.assert_close(table.grad.flatten(), expected)


@pytest.mark.parametrize("strategy", ["gather", "volume", "auto"])
def test_values_and_gradients_equal_twin(strategy) -> None:
    tables, positions = inputs(SMALL)
    found = lookup(SMALL, tables, positions, strategy)
    expected = torch.stack(
        [twin_lookup(SMALL, *pair) for pair in zip(tables, positions, strict=True)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    cotangents = torch.randn_like(expected)
    gradients = torch.autograd.grad(found, (tables, positions), cotangents)
    for gradient, twin in zip(
        gradients, torch.autograd.grad(expected, (tables, positions), cotangents), strict=True
    ):
        torch.testing.assert_close(gradient, twin, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strategy", ["gather", "volume"])
def test_positions_outside_are_clamped(strategy) -> None:
    tables, _ = inputs(SMALL, batch=1)
    outside = torch.tensor([[[-0.5, 0.2, 1.7]]], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([[[0.0, 0.2, 1.0]]], dtype=torch.float64)
    found = lookup(SMALL, tables, outside, strategy)
    torch.testing.assert_close(found, lookup(SMALL, tables, inside, strategy))
    (gradient,) = torch.autograd.grad(found.sum(), outside)
    assert gradient[0, 0, 0] == 0
    assert gradient[0, 0, 2] == 0
    assert gradient[0, 0, 1] != 0


def test_strategies_agree_in_float32() -> None:
    layout = TableLayout.between(3, 2, 12, 8, 64)
    tables, positions = torch.randn(2, layout.entries, 2), torch.rand(2, 400, 3)
    gather, volume = (lookup(layout, tables, positions, s) for s in ("gather", "volume"))
    # A position's rounding is 2^-24 of 64 cells, between values that differ by a few units.
    torch.testing.assert_close(gather, volume, rtol=0, atol=1e-4)


def test_rule_takes_volumes_for_coarse_levels_of_many_positions_only() -> None:
    assert prefers_volume(8, 8 * 9**3, 2)
    assert not prefers_volume(8, 8 * 9**3 - 1, 2)
    assert not prefers_volume(8, 10**6, 4)


def test_between_reaches_both_resolutions() -> None:
    for levels, base, largest in ((8, 8, 128), (5, 16, 64), (3, 8, 32), (16, 16, 8192), (1, 9, 9)):
        layout = TableLayout.between(levels, 2, 15, base, largest)
        assert layout.resolutions[0] == base
        assert layout.resolutions[-1] == largest
    # Whole powers of two are exact, so levels nest without a correction.
    assert TableLayout.between(3, 2, 15, 8, 32).per_level_scale == 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, 3, 12, 8, 1.5), "features_per_level is 3"),
        ((17, 8, 12, 8, 1.5), "at most 128"),
        ((0, 2, 12, 8, 1.5), "levels is 0"),
        ((4, 2, 2, 8, 1.5), "log2_table_size is 2"),
        ((4, 2, 12, 1, 1.5), "base_resolution is 1"),
        ((4, 2, 12, 8, 0.9), "per_level_scale is 0.9"),
        # sqrt(2)^2 is 2 to rounding: level 2 has 16 or 17 vertices, depending on the device.
        ((3, 2, 12, 8, 2**0.5), "level 2"),
    ],
)
def test_impossible_layouts_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TableLayout(*arguments)
    with pytest.raises(ValueError, match="max_resolution is 4"):
        TableLayout.between(3, 2, 12, 8, 4)


def test_table_joins_its_groups() -> None:
    table = HashTable(
        SMALL, groups=3, implementation="torch", init_std=[1.0, 1.0, 0.0, 1.0]
    ).double()
    assert table.evaluator == "torch"
    assert table.params.shape == (3 * 672 * 2,)
    positions = torch.rand(2, 5, 3, dtype=torch.float64)
    found = table(positions)
    # Each group's slice of the flat parameters is a table of its own, two features an entry.
    for group, part in enumerate(table.params.detach().split(672 * 2)):
        expected = twin_lookup(SMALL, part.view(672, 2), positions.view(-1, 3)).view(2, 5, 4, 2)
        torch.testing.assert_close(found[..., 2 * group : 2 * group + 2], expected)
    assert found[:, :, 2].abs().max() == 0
    assert found[:, :, 3].std() > 0.1
    with pytest.raises(ValueError, match="init_std has 2 values"):
        HashTable(SMALL, init_std=[0.1, 0.2])


def test_tcnn_that_does_not_load_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes an import fail, whatever is installed.
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(ValueError, match="pip install git"):
        HashTable(SMALL, implementation="tcnn")
    assert HashTable(SMALL, implementation="auto").evaluator == "torch"


class TwinEncoding(nn.Module):
    """What `lookup_tcnn` uses of tinycudann.Encoding, by the twin: [N, 3] -> [N, L * F]."""

    def __init__(self, n_input_dims: int, encoding_config: dict, dtype: torch.dtype) -> None:
        super().__init__()
        assert (n_input_dims, dtype) == (3, torch.float32)
        assert encoding_config["otype"] == "HashGrid"
        assert encoding_config["interpolation"] == "Linear"
        self.layout = TableLayout(
            encoding_config["n_levels"],
            encoding_config["n_features_per_level"],
            encoding_config["log2_hashmap_size"],
            encoding_config["base_resolution"],
            encoding_config["per_level_scale"],
        )
        entries = sum(entries for _, _, entries in twin_grid(self.layout))
        self.params = nn.Parameter(torch.zeros(entries * self.layout.features_per_level))

    def forward(self, positions: Tensor) -> Tensor:
        table = self.params.view(-1, self.layout.features_per_level)
        return twin_lookup(self.layout, table, positions).flatten(1)


@pytest.fixture
def twin_tcnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the twin in tiny-cuda-nn's place, on the CPU."""
    module = ModuleType("tinycudann")
    module.Encoding = TwinEncoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(hash_encoding, "_check_tcnn_tensors", lambda table, positions: None)
    monkeypatch.setattr(
        hash_encoding,
        "_tcnn_encoding",
        lambda layout, device: load_tcnn().Encoding(3, layout.tcnn_config(), dtype=torch.float32),
    )


@pytest.mark.usefixtures("twin_tcnn")
def test_tcnn_path_hands_over_slices_and_config() -> None:
    slow = HashTable(SMALL, groups=2, implementation="torch")
    fast = HashTable(SMALL, groups=2, implementation="tcnn")
    fast.load_state_dict(slow.state_dict())
    assert fast.evaluator == "tcnn"
    positions = torch.rand(2, 3, 3) * 1.4 - 0.2
    found, expected = fast(positions), slow(positions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    cotangents = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, fast.params, cotangents)
    (twin,) = torch.autograd.grad(expected, slow.params, cotangents)
    torch.testing.assert_close(gradient, twin, rtol=1e-4, atol=1e-4)


def test_tcnn_refuses_cpu_tensors() -> None:
    with pytest.raises(ValueError, match="float32 on a CUDA device"):
        lookup_tcnn(SMALL, torch.zeros(SMALL.entries, 2), torch.zeros(1, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_tcnn_equals_torch_on_a_gpu(features: int) -> None:
    importlib.import_module("tinycudann")
    layout = TableLayout.between(6, features, 14, 8, 128)
    fast = HashTable(layout, groups=2, implementation="tcnn").cuda()
    slow = HashTable(layout, groups=2, implementation="torch").cuda()
    slow.load_state_dict(fast.state_dict())
    positions = torch.rand(2, 1000, 3, device="cuda")
    positions[:, :2] = torch.tensor([[0.0, 0, 0], [1, 1, 1]], device="cuda")
    results = []
    for table in (fast, slow):
        points = positions.clone().requires_grad_()
        found = table(points)
        generator = torch.Generator("cuda").manual_seed(1)
        cotangents = torch.randn(found.shape, device="cuda", generator=generator)
        results.append((found, *torch.autograd.grad(found, (table.params, points), cotangents)))
    for one, other, tolerance in zip(*results, (1e-4, 1e-3, 5e-2), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=tolerance)
