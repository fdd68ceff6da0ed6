"""Lists of seeds and outputs as a user writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerfstudio_gan3d.export.number_lists import MAXIMUM_SEEDS, parse_levels, parse_seeds
from nerfstudio_gan3d.export.options import KEPT_MAPS, parse_outputs
from nerfstudio_gan3d.latents import STORED_MAPS


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("5-5", [5]),
        ("0-2,9, 4", [0, 1, 2, 9, 4]),
        ("3,3", [3, 3]),
    ],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 20)), min_size=1, max_size=8))
def test_ranges_are_inclusive_and_keep_their_order(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{start}-{start + length}" for start, length in ranges)
    expected = [start + i for start, length in ranges for i in range(length + 1)]
    assert parse_seeds(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "-1", "1-", "-", "1-2-3", "a", "1.5", "3-1", "1e3", "²", "9" * 19]
)
def test_malformed_seeds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds(text)


def test_too_many_seeds_are_refused_before_they_are_listed() -> None:
    assert len(parse_seeds(f"1-{MAXIMUM_SEEDS}")) == MAXIMUM_SEEDS
    with pytest.raises(ValueError, match="at most"):
        parse_seeds(f"0-{MAXIMUM_SEEDS}")
    with pytest.raises(ValueError, match="at most"):
        parse_seeds("0-999999999999999999")


def test_outputs() -> None:
    assert parse_outputs("rgb") == ("rgb",)
    assert parse_outputs("rgb, foreground,depth") == ("rgb", "foreground", "depth")
    assert parse_outputs("labels,rgb") == ("labels", "rgb")
    for text in ("", "rgb,", "RGB", "rgb;depth"):
        with pytest.raises(ValueError, match="--outputs"):
            parse_outputs(text)


def test_levels_are_read_as_seeds_are_under_their_own_name() -> None:
    assert parse_levels("4-7,9") == [4, 5, 6, 7, 9]
    with pytest.raises(ValueError, match="--mix-levels is 'all'"):
        parse_levels("all")


def test_the_kept_maps_are_those_of_a_checkpoint() -> None:
    assert KEPT_MAPS == STORED_MAPS
