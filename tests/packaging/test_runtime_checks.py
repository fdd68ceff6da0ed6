"""The tests' own safety net: shapes in signatures are checked while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from nerfstudio_gan3d.cameras import mirror_labels


def test_a_wrong_shape_is_caught() -> None:
    labels = torch.eye(4).flatten().repeat(2, 1)  # [2, 16]
    with pytest.raises(TypeCheckError):
        mirror_labels(labels)


def test_a_wrong_type_is_caught() -> None:
    with pytest.raises(TypeCheckError):
        mirror_labels("labels")  # pyright: ignore[reportArgumentType]
