"""Adaptive discriminator augmentation (ADA, Karras et al. 2020, arXiv 2006.06676).

Reals and fakes pass through the same random transformations before the discriminator sees them,
each drawn with probability p, and p rises while the discriminator is too sure of the reals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.cameras import mirror_labels
from nerfstudio_gan3d.data.augment_color import (
    ColorDraws,
    apply_color,
    color_map,
)
from nerfstudio_gan3d.data.augment_config import AugmentConfig
from nerfstudio_gan3d.data.augment_geometry import (
    SYM6_LOW_PASS,
    GeometryDraws,
    blit,
    orient,
    source_affine,
    warp,
    warp_separable,
)

__all__ = ["Augment", "AugmentConfig", "AugmentController"]

# The random numbers of an image, each with the setting that scales it. Uniform ones come first and
# those of the geometry lie together, so that slices pick them out.
_UNIFORM = {
    "luma_flip": "luma_flip",
    "hue": "hue",
    "x_flip": "x_flip",
    "rot90": "rot90",
    "shift_x": "integer_translation",
    "shift_y": "integer_translation",
    "pre_rotation": "rotation",
    "post_rotation": "rotation",
}
_NORMAL = {
    "offset_x": "fractional_translation",
    "offset_y": "fractional_translation",
    "isotropic_scale": "isotropic_scale",
    "anisotropic_scale": "anisotropic_scale",
    "brightness": "brightness",
    "contrast": "contrast",
    "saturation": "saturation",
}
_SETTINGS = {**_UNIFORM, **_NORMAL}
_NAMES = tuple(_SETTINGS)
_GEOMETRY = slice(_NAMES.index("x_flip"), _NAMES.index("brightness"))
# Whether a transformation is drawn is decided once for x and y, but apart for both rotations.
_GATE_OF = {name: name if key == "rotation" else key for name, key in _SETTINGS.items()}
_GATES = tuple(dict.fromkeys(_GATE_OF.values()))


class Augment(nn.Module):
    """Random transformations of images (and mirrored camera labels), each with probability `p`.

    The two rotations are drawn with 1 - sqrt(1 - p) each, so that one of them happens with p.
    `p` is a buffer in [0, 1], 0 at the start; assign with `augment.p.copy_(value)`. An image for
    which nothing was drawn comes out bit for bit. Differentiable any number of times with respect
    to the image.

    Source: Karras et al. 2020, appendix B. Departures: flips may mirror the label
    (`label_true_flips`), flips and quarter turns are exact, images are mirrored without end instead
    of zero-padded beyond one image size, and without scaling, rotation and fractional shifts no
    resampling filter is run.
    """

    p: Tensor
    _low_pass: Tensor
    _strength: Tensor
    _gate_of: Tensor
    _is_rotation: Tensor

    def __init__(self, config: AugmentConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else AugmentConfig()
        self.register_buffer("p", torch.zeros(()))
        strength = [float(getattr(self.config, key)) for key in _SETTINGS.values()]
        for name in ("hue", "pre_rotation", "post_rotation"):
            strength[_NAMES.index(name)] *= math.pi / 180
        constants = {
            "_low_pass": torch.tensor(SYM6_LOW_PASS, dtype=torch.float32),
            "_strength": torch.tensor(strength)[:, None],
            "_gate_of": torch.tensor([_GATES.index(gate) for gate in _GATE_OF.values()]),
            "_is_rotation": torch.tensor([gate.endswith("_rotation") for gate in _GATES]),
        }
        # Buffers, so that they move with the module: building them from lists in every call would
        # make the host wait until the device has caught up.
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        labels: Float[Tensor, "b 25"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 25"]]:
        """Transform a batch of RGB images in [-1, 1]; the values may leave that range.

        Six channels are an image and its upsampled raw image: both triples get the same geometry
        and the same colour change. Random numbers come from `generator`, on its own device, or
        from torch's global state; a batch uses the same amount whatever the configuration, and
        none when p is 0 on the CPU. On other devices nothing is read back to the host.
        Raises ValueError for other channel counts, labels of another batch size, sides below
        2 pixels, and quarter turns of images that are not square.
        """
        self._check(image, labels)
        if self.p.device.type == "cpu" and self.p.item() == 0:
            return image, labels
        value = self._draw(len(image), image.device, generator)
        drawn = value != 0
        amount = dict(zip(_NAMES, value, strict=True))
        dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
        out = image.to(dtype)
        place = (len(image), image.device, dtype)
        with torch.autocast(image.device.type, enabled=False):
            if self.config.moves:
                geometry = self._geometry(amount, image)
                arguments = (
                    *source_affine(geometry, *place),
                    geometry.flip,
                    geometry.quarter_turns,
                )
                out = _change(out, drawn[_GEOMETRY].any(0), self._move, *arguments)
            if self.config.colors:
                drawn[_GEOMETRY] = False
                mapping = color_map(self._color(amount), *place)
                out = _change(out, drawn.any(0), apply_color, *mapping)
        if self.config.x_flip and self.config.label_true_flips:
            flip = (amount["x_flip"] < 0).to(labels.device)
            labels = torch.where(flip[:, None], mirror_labels(labels), labels)
        return out.to(image.dtype), labels

    def _check(self, image: Tensor, labels: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] not in (3, 6) or min(image.shape[2:]) < 2:
            raise ValueError(
                f"Augment got images of shape {tuple(image.shape)}; it needs [B, 3 or 6, H, W] "
                "with H and W of at least 2."
            )
        if labels.shape != (len(image), 25):
            raise ValueError(
                f"Augment got camera labels of shape {tuple(labels.shape)} for {len(image)} "
                f"images; it needs [{len(image)}, 25]."
            )
        if self.config.rot90 and image.shape[2] != image.shape[3]:
            raise ValueError(
                f"augment.rot90 needs square images, not {tuple(image.shape[2:])}; switch it off."
            )

    def _move(
        self,
        image: Tensor,
        linear: Tensor,
        shift: Tensor,
        flip: Tensor | None,
        quarter_turns: Tensor | None,
    ) -> Tensor:
        image = orient(image, flip, quarter_turns)
        if self.config.rotation > 0:
            return warp(image, linear, shift, self._low_pass)
        if self.config.resamples:
            return warp_separable(image, linear, shift, self._low_pass)
        return blit(image, shift) if self.config.integer_translation > 0 else image

    def _draw(
        self, batch: int, device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "15 b"]:
        """Scaled random numbers in the order of _NAMES, 0 where the dice fell above p."""
        source = generator.device if generator is not None else device
        dice = torch.rand(len(_GATES) + len(_UNIFORM), batch, generator=generator, device=source)
        bell = torch.randn(len(_NORMAL), batch, generator=generator, device=source)
        noise = torch.cat([2 * dice[len(_GATES) :] - 1, bell]).to(device, non_blocking=True)
        dice = dice[: len(_GATES)].to(device, non_blocking=True)
        p = self.p.to(device)
        threshold = torch.where(self._is_rotation.to(device), 1 - (1 - p).sqrt(), p)
        gate = dice < threshold[:, None]
        return noise * self._strength.to(device) * gate[self._gate_of.to(device)]

    def _geometry(self, amount: dict[str, Tensor], image: Tensor) -> GeometryDraws:
        """Parameters of the enabled geometric steps; an amount of 0 is always neutral."""
        config, (height, width) = self.config, image.shape[2:]
        draws = GeometryDraws()
        if config.x_flip:
            draws.flip = amount["x_flip"] < 0
        if config.rot90:
            draws.quarter_turns = (4 * amount["rot90"].abs()).floor().long()
        if config.integer_translation:
            x, y = amount["shift_x"] * width, amount["shift_y"] * height
            draws.shift = torch.stack([x, y], -1).round()
        if config.rotation:
            draws.pre_rotation = amount["pre_rotation"]
            draws.post_rotation = amount["post_rotation"]
        if config.isotropic_scale or config.anisotropic_scale:
            zoom, aspect = amount["isotropic_scale"], amount["anisotropic_scale"]
            draws.stretch = torch.stack([zoom + aspect, zoom - aspect], -1).exp2()
        if config.fractional_translation:
            x, y = amount["offset_x"] * width, amount["offset_y"] * height
            draws.offset = torch.stack([x, y], -1)
        return draws

    def _color(self, amount: dict[str, Tensor]) -> ColorDraws:
        """Parameters of the enabled colour steps; an amount of 0 is always neutral."""
        config, draws = self.config, ColorDraws()
        if config.brightness:
            draws.brightness = amount["brightness"]
        if config.contrast:
            draws.contrast = amount["contrast"].exp2()
        if config.luma_flip:
            draws.luma_flip = amount["luma_flip"] < 0
        if config.hue:
            draws.hue = amount["hue"]
        if config.saturation:
            draws.saturation = amount["saturation"].exp2()
        return draws


class AugmentController(nn.Module):
    """Moves the augmentation probability so that the discriminator stays unsure of the reals.

    With r = mean sign(D(real)), every `interval` steps
    p += sign(r - target) * batch_size * interval / (ada_kimg * 1000), kept within [0, max_p].
    Everything that decides is in buffers, so a resumed run goes on where it stopped.

    Source: Karras et al. 2020, section 3 and equation 1. They find that what is drawn with p above
    about 0.8 starts to leak into the generated images; `max_p` can hold p below that.
    """

    p: Tensor
    steps: Tensor
    sign_sum: Tensor
    sign_count: Tensor

    def __init__(
        self,
        target: float = 0.6,
        interval: int = 4,
        ada_kimg: float = 500.0,
        max_p: float = 1.0,
        initial_p: float = 0.0,
    ) -> None:
        """`ada_kimg`: thousands of images in which p can rise from 0 to 1.

        Raises ValueError for a target outside -1..1, an interval below 1, an ada_kimg that is not
        positive, or probabilities that do not satisfy 0 <= initial_p <= max_p <= 1.
        """
        super().__init__()
        if not -1 <= target <= 1:
            raise ValueError(f"ADA target is {target}; a mean of signs lies within -1 to 1.")
        if interval < 1:
            raise ValueError(f"ADA interval is {interval}; it must be at least 1 step.")
        if not 0 < ada_kimg < math.inf:
            raise ValueError(f"ADA ada_kimg is {ada_kimg}; it must be positive and finite.")
        if not 0 <= initial_p <= max_p <= 1:
            raise ValueError(
                f"ADA initial_p is {initial_p} and max_p is {max_p}; "
                "they must satisfy 0 <= initial_p <= max_p <= 1."
            )
        self.target = target
        self.interval = interval
        self.ada_kimg = ada_kimg
        self.max_p = max_p
        self.register_buffer("p", torch.tensor(float(initial_p)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sign_sum", torch.zeros(()))
        self.register_buffer("sign_count", torch.zeros(()))

    @torch.no_grad()
    def accumulate(self, logits: Float[Tensor, "*n"]) -> None:
        """Take in the discriminator's logits of (augmented) reals, of this process only."""
        self.sign_sum += logits.sign().sum()
        self.sign_count += logits.numel()

    @torch.no_grad()
    def update(self, batch_size: int) -> Float[Tensor, ""]:
        """Count one training step of `batch_size` images (all processes together), and return p.

        Call it once a step on every process, then `augment.p.copy_(controller.update(n))`. The
        signs of all processes are summed when torch.distributed is initialised, so that p stays
        equal everywhere. Without any logits in an interval p stays as it is.
        """
        self.steps += 1
        total = torch.stack([self.sign_sum, self.sign_count])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        # Written without branches, because asking whether an interval is over would make the host
        # wait for the device in every step.
        due = self.steps % self.interval == 0
        mean_sign = total[0] / total[1].clamp(min=1)
        direction = torch.where(due & (total[1] > 0), (mean_sign - self.target).sign(), 0)
        change = direction * (batch_size * self.interval / (self.ada_kimg * 1000))
        self.p.copy_((self.p + change).clamp(0, self.max_p))
        self.sign_sum.mul_(~due)
        self.sign_count.mul_(~due)
        return self.p


def _change(
    image: Tensor, active: Tensor, transform: Callable[..., Tensor], *parameters: Tensor | None
) -> Tensor:
    """Apply `transform` to the active images only, and leave the others bit for bit."""
    if image.device.type != "cpu":
        # Picking rows needs their number on the host, which would wait for the device.
        return torch.where(active[:, None, None, None], transform(image, *parameters), image)
    rows = active.nonzero()[:, 0]
    if len(rows) == 0:
        return image
    if len(rows) == len(image):
        return transform(image, *parameters)
    picked = (None if parameter is None else parameter[rows] for parameter in parameters)
    changed = transform(image[rows], *picked)
    return image.index_copy(0, rows, changed)
