"""Settings of adaptive discriminator augmentation, and presets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass
class AugmentConfig:
    """Which transformations are drawn, and how strong they are. 0 or False switches one off.

    The defaults are `corrected`. Raises ValueError for strengths that are negative or not finite,
    and for angles above 180 degrees.
    """

    x_flip: bool = True
    """Mirror left and right (half of the drawn images)."""
    label_true_flips: bool = True
    """Mirror the camera label together with the image. The published code leaves the label as it
    was, so its discriminator is told a wrong pose for every mirrored image."""
    rot90: bool = False
    """Rotate by 0, 90, 180 or 270 degrees. The camera label does not follow."""
    integer_translation: float = 0.125
    """Largest shift by whole pixels, as a fraction of the image side, uniform."""
    isotropic_scale: float = 0.2
    """Standard deviation of log2 of the magnification."""
    rotation: float = 0.0
    """Largest angle in degrees, uniform, of each of the two rotations before and after the
    anisotropic scaling. 180 is the full circle. The camera label does not follow."""
    anisotropic_scale: float = 0.2
    """Standard deviation of log2 of the stretch of x; y is shrunk by as much."""
    fractional_translation: float = 0.125
    """Standard deviation of the shift, as a fraction of the image side."""
    brightness: float = 0.2
    """Standard deviation of what is added; images span [-1, 1]."""
    contrast: float = 0.5
    """Standard deviation of log2 of the factor on RGB."""
    luma_flip: bool = True
    """Change the sign of the luma (half of the drawn images)."""
    hue: float = 180.0
    """Largest rotation of the hue in degrees, uniform. 180 is the full circle."""
    saturation: float = 1.0
    """Standard deviation of log2 of the factor on the chroma."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            limit = 180.0 if field.name in ("rotation", "hue") else math.inf
            if not (0 <= value <= limit and math.isfinite(value)):
                allowed = "0 to 180 degrees" if limit == 180 else "a finite number of at least 0"
                raise ValueError(f"augment.{field.name} is {value}; it must be {allowed}.")

    @classmethod
    def off(cls) -> AugmentConfig:
        """No transformation at all, to switch single ones on from."""
        return cls(
            x_flip=False,
            integer_translation=0.0,
            isotropic_scale=0.0,
            anisotropic_scale=0.0,
            fractional_translation=0.0,
            brightness=0.0,
            contrast=0.0,
            luma_flip=False,
            hue=0.0,
            saturation=0.0,
        )

    @classmethod
    def full(cls) -> AugmentConfig:
        """All transformations as published, with the labels untouched by flips and rotations."""
        return cls(label_true_flips=False, rot90=True, rotation=180.0)

    @classmethod
    def corrected(cls) -> AugmentConfig:
        """The published set without what tells a camera-conditioned discriminator a wrong pose:
        no quarter turns, no rotations, and flips that mirror the label as well."""
        return cls()

    @classmethod
    def geometry_color(cls) -> AugmentConfig:
        """Scaling, fractional translation and colour; for objects that must not be mirrored."""
        return cls(x_flip=False, integer_translation=0.0)

    @classmethod
    def light(cls) -> AugmentConfig:
        """Brightness, contrast, saturation, whole-pixel shifts and a little zoom: for short runs
        on small images on a CPU."""
        config = cls.off()
        config.integer_translation = 0.125
        config.isotropic_scale = 0.1
        config.brightness, config.contrast, config.saturation = 0.2, 0.5, 1.0
        return config

    @property
    def resamples(self) -> bool:
        """Whether pixels can land between pixels."""
        strengths = (self.isotropic_scale, self.anisotropic_scale, self.fractional_translation)
        return self.rotation > 0 or any(strengths)

    @property
    def moves(self) -> bool:
        """Whether there is any geometric transformation."""
        return self.x_flip or self.rot90 or self.integer_translation > 0 or self.resamples

    @property
    def colors(self) -> bool:
        """Whether there is any colour transformation."""
        return self.luma_flip or any((self.brightness, self.contrast, self.hue, self.saturation))
