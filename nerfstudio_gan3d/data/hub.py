"""Models of the Hugging Face hub: whether one is within reach, and what is said where it is not."""

from __future__ import annotations

from nerfstudio_gan3d.data.errors import DataError

SECONDS_TO_ANSWER = 10.0
"""How long the hub has to answer before weights are taken for out of reach."""


def check_reach(kind: str, name: str, instead: str) -> None:
    """Raises DataError when the hub does not answer or has no such model.

    Args:
        kind: how messages call models of this kind.
        name: of the model on the hub.
        instead: what a user can do where there is no network.
    """
    from huggingface_hub import HfApi, constants

    try:
        # The download itself would try each of its files for half a minute before it gave up.
        HfApi().model_info(name, timeout=SECONDS_TO_ANSWER)
    except Exception as error:
        raise DataError(
            f"{kind} {name!r}: no such folder, not in {constants.HF_HUB_CACHE}, and the hub "
            f"cannot be asked for it ({first_line(error)}); run `hf download {name}` where there "
            f"is a network and copy that folder here, or {instead}"
        ) from error


def first_line(error: Exception) -> str:
    """What an error of another package says, shortened to a part of a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
