"""The network of G3DR with the weights that its fixture describes."""

import numpy as np
import torch

from nerfstudio_gan3d.networks.unet import PlaneUNet
from tests.parity.fill import fill_value


def unet_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of an official tensor of the U-Net (`tests.parity.fill` has that of the decoder).

    With x as in `fill_value`: learned places, gains and one-dimensional weights are 1 + 0.1 x,
    biases 0.1 x, and other weights x over the root of the numbers that enter an output.
    """
    # 0.1 x for biases, and for all other names of the U-Net x itself.
    x = fill_value(name, shape)
    assert x is not None
    if name.endswith(".bias"):
        return x
    if name == "pos_embed" or name.endswith(".g") or len(shape) == 1:
        return 1 + np.float32(0.1) * x
    return x / np.sqrt(np.float32(np.prod(shape[1:])))


def filled_unet() -> PlaneUNet:
    """The full-size network, in evaluation mode, without gradients."""
    with torch.device("meta"):
        network = PlaneUNet()
    state = {
        name: torch.from_numpy(unet_value(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
