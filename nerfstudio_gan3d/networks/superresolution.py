"""Super-resolution of rendered feature images, under the tensor names of official EG3D weights.

Source: Chan et al. 2022 (EG3D), 4.2. Two or more synthesis blocks, fully convolutional.
"""

from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.convolution import fast_memory_format, fir_filter
from nerfstudio_gan3d.networks.ops import ModulationForm
from nerfstudio_gan3d.networks.stylegan2 import NoiseMode, SynthesisBlock

ReferenceVariant = Literal["2X", "4X", "8X", "8XDC"]
"""Official modules: 2X for 128 px images, 4X for 256 px, 8XDC (and the older 8X) for 512 px."""

ResizeRule = Literal["different", "smaller"]
"""When the input is resized to `input_size`: if it has another size, or only if it is smaller."""


class SuperResolutionOutput(NamedTuple):
    """Result of a super-resolution pass."""

    image: Float[Tensor, "b c h2 w2"]
    """The final image."""

    mutated_raw: Float[Tensor, "b c h w"]
    """What official code returns as the raw image. Its first block writes into the raw image when
    it neither resizes nor upsamples, so this is the raw colour plus that block's to-RGB output; in
    all other cases it is the raw colour itself. Only `conventions="reference"` should use it."""


class SuperResolution(nn.Module):
    """Feature image [B, F, H, W] and its colour to an image `output_size / input_size` as large.

    The factor 2^k is made by k doubling blocks; if k < 2, blocks that keep the size come first, so
    there are always at least two. All blocks use the last latent only.

    Args:
        input_size, output_size: side of the feature image and of the result, in px.
        in_channels: channels of the feature image.
        block_channels: channels of each block.
        w_dim: size of a latent.
        clamp: limit of activations; official weights were trained with 256.
        resize: when the input is brought to `input_size` first.
        antialias: whether that resize filters.
        own_filter: register a `resample_filter` at the top level, as all official modules but
            8XDC do. It takes no part in the result.
        image_channels: channels of the raw and the final image.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        in_channels: int = 32,
        block_channels: tuple[int, ...] = (128, 64),
        w_dim: int = 512,
        clamp: float | None = None,
        resize: ResizeRule = "different",
        antialias: bool = True,
        own_filter: bool = True,
        image_channels: int = 3,
        modulation: ModulationForm = "activations",
    ) -> None:
        super().__init__()
        upsample = _upsampling_pattern(input_size, output_size)
        if len(block_channels) != len(upsample):
            raise ValueError(
                f"block_channels is {block_channels}, but {input_size} to {output_size} px takes "
                f"{len(upsample)} blocks: give one channel count for each."
            )
        self.input_size, self.output_size = input_size, output_size
        self.factor = output_size // input_size
        self.in_channels, self.antialias = in_channels, antialias
        self.resize: ResizeRule = resize
        self.num_blocks = len(upsample)
        self.training_dtype = torch.float32
        if own_filter:
            self.register_buffer("resample_filter", fir_filter())
        size, previous = input_size, in_channels
        for index, (up, channels) in enumerate(zip(upsample, block_channels, strict=True)):
            size *= 2 if up else 1
            block = SynthesisBlock(
                previous, channels, w_dim, size, image_channels, up, clamp, modulation
            )
            setattr(self, f"block{index}", block)
            previous = channels

    @classmethod
    def reference(
        cls,
        variant: ReferenceVariant,
        in_channels: int = 32,
        image_channels: int = 3,
        clamp: float | None = 256.0,
    ) -> "SuperResolution":
        """The official module of that name, ready for official weights."""
        input_size, output_size, channels, resize = _REFERENCE[variant]
        return cls(
            input_size,
            output_size,
            in_channels,
            channels,
            clamp=clamp,
            image_channels=image_channels,
            resize=resize,
            own_filter=variant != "8XDC",
        )

    def block(self, index: int) -> SynthesisBlock:
        """Block 0 takes the feature image, block `num_blocks - 1` gives the final one."""
        return cast(SynthesisBlock, getattr(self, f"block{index}"))

    def forward(
        self,
        features: Float[Tensor, "b f h w"],
        rgb: Float[Tensor, "b c h w"],
        ws: Float[Tensor, "b n w_dim"],
        noise_mode: NoiseMode = "none",
        resize: bool = True,
    ) -> SuperResolutionOutput:
        """Upsample. `features` and `rgb` may have any height and width.

        With `resize` the input is brought to `input_size` by the resize rule; images that are not
        square keep their aspect, their shorter side becomes `input_size`. Without it the result
        is `factor` times as large as the input.
        """
        size = self.target_size(features.shape[2], features.shape[3])
        x, image = features, rgb
        if resize and size != tuple(features.shape[2:]):
            x, image = self._resized(features, size), self._resized(rgb, size)
        if self.training and self.training_dtype != torch.float32:
            x = x.to(self.training_dtype)
        x = fast_memory_format(x)
        ws = ws[:, -1:].expand(-1, 3, -1)
        mutated = rgb
        for index in range(self.num_blocks):
            block = self.block(index)
            keeps_raw = index == 0 and not block.upsample and image is rgb
            x, image = block(x, image, ws, noise_mode)
            if keeps_raw:
                mutated = image
        return SuperResolutionOutput(image, mutated)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that features of this size are brought to first."""
        shorter = min(height, width)
        if shorter == self.input_size or (self.resize == "smaller" and shorter > self.input_size):
            return height, width
        scale = self.input_size / shorter
        return round(height * scale), round(width * scale)

    def _resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(
            x, size, mode="bilinear", align_corners=False, antialias=self.antialias
        )


_REFERENCE: dict[str, tuple[int, int, tuple[int, int], ResizeRule]] = {
    "2X": (64, 128, (128, 64), "different"),
    "4X": (128, 256, (128, 64), "smaller"),
    "8X": (128, 512, (128, 64), "different"),
    "8XDC": (128, 512, (256, 128), "different"),
}


def _upsampling_pattern(input_size: int, output_size: int) -> list[bool]:
    """One entry per block: whether it doubles the size."""
    factor = output_size // max(input_size, 1)
    if input_size < 1 or factor * input_size != output_size or factor & (factor - 1) or factor < 1:
        raise ValueError(
            f"Super-resolution from {input_size} to {output_size} px is not possible: the output "
            "must be the input times a power of two."
        )
    doublings = factor.bit_length() - 1
    return [False] * max(0, 2 - doublings) + [True] * doublings
