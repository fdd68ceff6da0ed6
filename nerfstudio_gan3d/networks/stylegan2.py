"""StyleGAN2 mapping and synthesis networks, under the tensor names of official EG3D weights.

Source: Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN"), skip
architecture, with the conditioning of EG3D (Chan et al. 2022).
"""

import math
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.convolution import fast_memory_format, fir_filter, upsample2d
from nerfstudio_gan3d.networks.ops import (
    ACTIVATION_GAIN,
    FullyConnected,
    ModulationForm,
    activate_,
    conv1x1_per_sample,
    modulated_conv2d,
    norm2,
)

NoiseMode = Literal["random", "const", "none"]
"""Per-pixel noise of synthesis layers: fresh draws, the stored pattern, or no noise."""


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution: min(channel_base / resolution, channel_max)."""
    return min(channel_base // resolution, channel_max)


def block_resolutions(name: str, resolution: int, smallest: int) -> list[int]:
    """[4, 8, ..., resolution]; raises ValueError unless `resolution` is a power of two."""
    if resolution < smallest or resolution & (resolution - 1):
        raise ValueError(
            f"{name} is {resolution}, but must be a power of two of at least {smallest}."
        )
    return [2**k for k in range(2, int(math.log2(resolution)) + 1)]


def truncate(
    ws: Float[Tensor, "b n w"],
    w_avg: Float[Tensor, "*n w"],
    psi: float = 1.0,
    cutoff: int | None = None,
) -> Float[Tensor, "b n w"]:
    """Pull the first `cutoff` latents (None: all) towards the mean: w_avg + psi (w - w_avg).

    The mean is one latent, or one for each of the n.
    """
    if psi == 1.0:
        return ws
    count = ws.shape[1] if cutoff is None else cutoff
    mean = w_avg if w_avg.ndim == 1 else w_avg[:count]
    return torch.cat([torch.lerp(mean, ws[:, :count], psi), ws[:, count:]], dim=1)


class MappingNetwork(nn.Module):
    """Latent z and camera label c to intermediate latents w.

    x = concat(norm2(z), norm2(embed(c))), then `num_layers` fully connected layers of width
    `w_dim` (lrelu, learning rate multiplier 0.01). z_dim or c_dim 0 leaves that input out.

    With `num_ws` the result is repeated to [B, num_ws, w_dim] and a running mean `w_avg` is kept
    (see `update_w_avg`); with `num_ws=None` it stays [B, w_dim], as discriminators need it.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        if z_dim + c_dim == 0:
            raise ValueError("z_dim and c_dim are both 0, but the mapping needs one input.")
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.num_layers = num_ws, num_layers
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim > 0 else 0)
        for index in range(num_layers):
            layer = FullyConnected(width, w_dim, "lrelu", lr_multiplier)
            setattr(self, f"fc{index}", layer)
            width = w_dim
        if num_ws is not None:
            self.w_avg: Tensor
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Float[Tensor, "b z"] | None, c: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b *n w"]:
        """Map latents. Raises ValueError if an input is missing or has another size."""
        parts = []
        if self.z_dim > 0:
            parts.append(norm2(self._checked("z", z, self.z_dim)))
        if self.c_dim > 0:
            parts.append(norm2(self.embed(self._checked("c", c, self.c_dim))))
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        return x if self.num_ws is None else x[:, None].expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def update_w_avg(self, ws: Float[Tensor, "b n w"], beta: float = 0.998) -> None:
        """Move the running mean towards the batch mean: w_avg <- w + beta (w_avg - w)."""
        mean = ws[:, 0].detach().float().mean(dim=0)
        self.w_avg.copy_(torch.lerp(mean, self.w_avg, beta))

    @staticmethod
    def _checked(name: str, value: Tensor | None, size: int) -> Tensor:
        if value is None or value.ndim != 2 or value.shape[1] != size:
            found = "nothing" if value is None else f"shape {list(value.shape)}"
            raise ValueError(f"The mapping network got {found} for {name}, but needs [B, {size}].")
        return value


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution (optionally doubling the size), noise, bias and lrelu."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        upsample: bool = False,
        clamp: float | None = None,
        modulation: ModulationForm = "activations",
    ) -> None:
        super().__init__()
        self.resolution, self.upsample, self.clamp = resolution, upsample, clamp
        self.modulation: ModulationForm = modulation
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.resample_filter: Tensor
        self.noise_const: Tensor
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)

    def forward(
        self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b w_dim"], noise_mode: NoiseMode
    ) -> Float[Tensor, "b o h2 w2"]:
        gain = ACTIVATION_GAIN["lrelu"]
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            self.bias,
            upsample_kernel=self.resample_filter if self.upsample else None,
            gain=gain,
            form=self.modulation,
        )
        if noise_mode != "none":
            x = x.add_((self._noise(x, noise_mode) * (self.noise_strength * gain)).to(x.dtype))
        return activate_(x, "lrelu", self.clamp)

    def _noise(self, x: Tensor, noise_mode: NoiseMode) -> Tensor:
        if noise_mode == "random":
            return torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        if x.shape[2:] != self.noise_const.shape:
            raise ValueError(
                f"noise_mode 'const' has a pattern of {self.resolution} px only, but the layer "
                f"works at {list(x.shape[2:])} px. Use 'random' or 'none' at other sizes."
            )
        return self.noise_const


def drop_noise(network: nn.Module) -> None:
    """Remove the noise of all synthesis layers, for networks that only run with noise_mode "none".

    What is not used would otherwise be stored, and count as a parameter that never learns.
    """
    for layer in network.modules():
        if isinstance(layer, SynthesisLayer):
            layer.register_parameter("noise_strength", None)
            layer.register_buffer("noise_const", None)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation, to image channels."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.style_gain = in_channels**-0.5
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)

    def forward(
        self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b w_dim"]
    ) -> Float[Tensor, "b o h w"]:
        style = self.affine(w) * self.style_gain
        weights = self.weight[None, :, :, 0, 0] * style[:, None]  # [B, O, I]
        return activate_(conv1x1_per_sample(x, weights, self.bias), "linear", self.clamp)


class SynthesisBlock(nn.Module):
    """Two convolutions and a to-RGB output that is added to the image so far.

    `in_channels=0` makes the first block, which starts from a learned constant and has no conv0.
    With `upsample`, conv0 and the image double their size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        upsample: bool = True,
        clamp: float | None = None,
        modulation: ModulationForm = "activations",
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.num_convs = 1 if in_channels == 0 else 2
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter())
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, upsample, clamp, modulation
            )
        self.conv1 = SynthesisLayer(
            out_channels, out_channels, w_dim, resolution, False, clamp, modulation
        )
        self.torgb = ToRGB(out_channels, image_channels, w_dim, clamp)

    def forward(
        self,
        x: Float[Tensor, "b i h w"] | None,
        image: Float[Tensor, "b c h w"] | None,
        ws: Float[Tensor, "b n w_dim"],
        noise_mode: NoiseMode = "const",
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Float[Tensor, "b o h2 w2"], Float[Tensor, "b c h2 w2"]]:
        """Features and image of the next size. `ws` holds one latent per conv, then torgb's.

        `dtype` is that of the first block's features, which all later ones keep; the image, a sum
        over blocks, has the constant's.
        """
        if self.num_convs == 1:
            features = self.const.expand(ws.shape[0], -1, -1, -1)
            if dtype != torch.float32:
                features = features.to(dtype)
            features = fast_memory_format(features)
        else:
            features = self.conv0(x, ws[:, 0], noise_mode)
        features = self.conv1(features, ws[:, self.num_convs - 1], noise_mode)
        rgb = self.torgb(features, ws[:, self.num_convs]).to(ws.dtype)
        if image is not None:
            rgb = rgb + (upsample2d(image, self.resample_filter) if self.upsample else image)
        return features, rgb


class SynthesisNetwork(nn.Module):
    """Latents to an image of `out_channels` channels, e.g. three feature planes of 32 channels.

    Blocks at 4, 8, ..., `resolution` px with min(channel_base / px, channel_max) channels. Each
    block takes its latents in order; the latent of torgb is shared with the next block's conv0.
    """

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        out_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = None,
        modulation: ModulationForm = "activations",
    ) -> None:
        super().__init__()
        self.resolution, self.out_channels = resolution, out_channels
        self.training_dtype = torch.float32
        self.resolutions = block_resolutions("resolution", resolution, smallest=4)
        previous = 0
        for res in self.resolutions:
            channels = channels_at(res, channel_base, channel_max)
            block = SynthesisBlock(
                previous, channels, w_dim, res, out_channels, True, clamp, modulation
            )
            setattr(self, f"b{res}", block)
            previous = channels
        self.num_ws = 2 * len(self.resolutions)

    def block(self, resolution: int) -> SynthesisBlock:
        """The block that works at a resolution in px."""
        return cast(SynthesisBlock, getattr(self, f"b{resolution}"))

    def forward(
        self, ws: Float[Tensor, "b n w_dim"], noise_mode: NoiseMode = "const"
    ) -> Float[Tensor, "b c r r"]:
        """Raises ValueError unless `ws` holds `num_ws` latents per sample."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws has shape {list(ws.shape)}, but must be [B, {self.num_ws}, W].")
        x = image = None
        start = 0
        dtype = self.training_dtype if self.training else torch.float32
        for res in self.resolutions:
            block = self.block(res)
            latents = ws[:, start : start + block.num_convs + 1]
            x, image = block(x, image, latents, noise_mode, dtype)
            start += block.num_convs
        assert image is not None
        return image


class Backbone(nn.Module):
    """The pair `synthesis`, `mapping` under the names that official generators use."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        resolution: int,
        out_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 2,
        clamp: float | None = None,
        modulation: ModulationForm = "activations",
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            w_dim, resolution, out_channels, channel_base, channel_max, clamp, modulation
        )
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.synthesis.num_ws, mapping_layers)
        self.num_ws = self.synthesis.num_ws
