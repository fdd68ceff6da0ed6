"""What a generator and a discriminator are built from: plain dataclasses, changeable on the command
line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nerfstudio_gan3d.models.settings import FillsDefaults


@dataclass
class TriPlaneConfig:
    """Sizes of the tri-plane representation."""

    plane_size: int = 256
    """Width and height of a plane in texels, a power of two."""
    plane_channels: int = 32
    """Features of a plane."""
    channel_base: int = 32768
    """Channels of the synthesis network at size s are min(channel_base / s, channel_max)."""
    channel_max: int = 512
    """Largest number of channels of the synthesis network."""
    axes: Literal["auto", "xy_xz_zy", "xy_xz_zx", "xy_xz_yz"] = "auto"
    """Axes of the world along the width and height of each plane. auto: xy_xz_zy, or with reference
    conventions xy_xz_zx, whose third plane repeats the second one."""


@dataclass
class HashGridConfig:
    """Sizes of the style-modulated hash grid."""

    levels: int = 8
    """Resolutions of the grid."""
    base_resolution: int = 16
    """Cells along a side at the coarsest level."""
    max_resolution: int = 256
    """Cells along a side at the finest level."""
    log2_table_size: int = 15
    """Logarithm of the entries a level may have at most; finer levels are hashed."""
    features_per_level: int = 2
    """Features of a level that the decoder sees."""
    bases: int = 16
    """Basis features per level that a style mixes (K); 1 with modulation film."""
    modulation: Literal["basis", "film", "both"] = "both"
    """What the style does: mix the bases of each level, modulate the decoder, or both."""
    implementation: Literal["auto", "torch", "tcnn"] = "auto"
    """Evaluator: tiny-cuda-nn where there is one (auto), or one of the two by name."""


@dataclass
class MlpConfig:
    """Sizes of the networks of representations unisurf and graf."""

    hidden_dim: int = 256
    """Width."""
    layers: int = 8
    """Hidden layers before the density."""
    octaves: int = 6
    """Octaves of the positions' sines and cosines (UNISURF: 6, GRAF: 10)."""
    view_octaves: int | None = 4
    """Octaves of the view direction's; None: colours are the same from everywhere."""
    skip: int = 4
    """Layer that sees the inputs again (GRAF: the one behind it)."""
    colour_layers: int = 4
    """Hidden layers of the colours (unisurf)."""
    normals_in_colour: bool = True
    """Colours take the surface's normal (unisurf), which needs a gradient at every sample."""


@dataclass
class SurfaceConfig:
    """Scenes made of surfaces (field.volume = occupancy): UNISURF's rules."""

    slope: float = 10.0
    """Occupancy is sigmoid(-slope f), f in half sides of the box."""
    slope_final: float = 10.0
    """The slope at the end of training; it goes there evenly."""
    shell_start: float = 1.0
    """Half width of the shell in which rays are sampled (delta), at the start, in half sides of the
    box's longest side. 1 and more is the whole ray, as in volume rendering."""
    shell_end: float = 0.05
    """The same when the shell is narrowest."""
    shell_share: float = 0.75
    """Share of training at which it is; on the way there the width falls exponentially."""
    march_steps: int = 64
    """Places along a ray at which it is looked for the surface."""
    secant_steps: int = 8
    """Refinements of the place that was found."""
    grow_share: float = 0.0
    """Share of training at which all levels of the hash grid count; before, they come one by one,
    from coarse to fine. 0: all from the start."""


@dataclass
class FieldConfig(FillsDefaults):
    """The foreground field, whatever its representation."""

    triplane: TriPlaneConfig = field(default_factory=TriPlaneConfig)
    """Used with representation triplane."""
    hashgrid: HashGridConfig = field(default_factory=HashGridConfig)
    """Used with representation hashgrid."""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """Used with representations unisurf and graf."""
    volume: Literal["density", "occupancy"] = "density"
    """density: a volume, rendered as NeRF does. occupancy: a surface, as in UNISURF and 3DGEN."""
    surface: SurfaceConfig = field(default_factory=SurfaceConfig)
    """Used with volume occupancy."""
    hidden_dim: int = 64
    """Width of the decoder."""
    feature_dim: int = 32
    """Colour features a position has; 3 (RGB) without super-resolution."""
    palette: int = 0
    """Colours of a palette that a Scene's latent decides, and that its positions mix and shade; 0
    gives every position colours of its own. For things that are painted in few colours."""
    density_scale: float = 1.0
    """Factor of the density's activation, scale * softplus(raw - 1)."""
    initial_ball: bool = True
    """Start from a soft ball in the middle of the box, with volume occupancy from a sphere.
    Representation unisurf always does."""
    box: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Sides along x, y, z of the box about the origin that holds the foreground, object-world
    units. No ray is sampled outside of it, so a box that fits the objects saves time."""
    near: float = 0.0
    """Distance from the camera at which sampling starts at the earliest."""
    far: float = 0.0
    """Distance from the camera at which sampling ends at the latest. 0: near and far are chosen so
    that every camera of the data set sees the whole box."""
    white_back: bool = False
    """Rays that leave the box end in white; False is black. For models without a background."""


@dataclass
class BackgroundConfig:
    """BallGAN's opaque sphere."""

    radius: float = 3.0
    """Radius about the world origin (R), larger than any camera's distance."""
    hidden_dim: int = 64
    """Width of its network."""
    layers: int = 4
    """Modulated layers before the output."""
    octaves: int = 8
    """Octaves of the direction's Fourier features (reference conventions: always 10, of two
    angles)."""
    mapping_layers: int = 8
    """Layers of the background's mapping network."""
    version: Literal["ver1", "ver0"] = "ver1"
    """ver1: the latent is mapped and modulates every layer. ver0, BallGAN's earlier network: plain
    layers that take the latent beside the direction; reference conventions only."""


@dataclass
class LatentConfig:
    """Latents and their mapping network."""

    z_dim: int = 512
    """Size of z, for foreground and background."""
    w_dim: int = 512
    """Size of the intermediate latent w."""
    mapping_layers: int = 2
    """Layers of the foreground's mapping network."""
    lr_multiplier: float = 0.01
    """Learning-rate multiplier of both mapping networks."""
    separate: bool = False
    """Divide z into a shape code, which alone decides the geometry, and an appearance code, which
    changes the colours alone. Needed by representations unisurf and graf, possible with the
    others. With mapping_layers 0 the codes are not mapped."""
    pose_conditioning: bool = False
    """Feed a camera label to the mapping network (generator pose conditioning)."""
    pose_scale: float = 1.0
    """Factor on that label. Some official models were trained with 0: they have the layers, and
    every pose is the neutral one."""
    neutral_pose: tuple[float, ...] = ()
    """Camera label (25 numbers) that such a model is told where nobody names one, such as a frontal
    view; empty: zeros."""


@dataclass
class SuperResolutionConfig:
    """From the rendered features to the final image."""

    channels: tuple[int, int] = (256, 128)
    """Channels of its two blocks."""
    clamp: float | None = 256.0
    """Limit of its activations; needed in half precision."""
    input_resolution: int = 0
    """Side that the rendered image is brought to first. 0: the neural resolution, the one at the
    end of its schedule where it has one."""
    resize: Literal["different", "smaller"] = "different"
    """Whether a rendered image of another side is resized always, or only if it is smaller."""
    antialias: bool = True
    """Whether that resizing filters."""
    noise: Literal["none", "const", "random"] = "none"
    """Noise of its layers; const and random need reference conventions."""


@dataclass
class LabelConfig:
    """Label maps that Scenes are made from, and the labels that Scenes have (pix2pix3D)."""

    kind: Literal["none", "seg", "edge"] = "none"
    """seg: class ids; edge: drawings, dark lines on white; none: a model without labels."""
    classes: int = 0
    """Number of classes of seg; 0 takes that of the data set."""
    geometry_layers: int = 0
    """Latents w, from the coarsest, that come from the label map; the others come from z. 0: half
    of them with triplane, all but the colours' own one with hashgrid."""
    encode_pose: bool = True
    """Show the encoder, beside the map, the ray of each of its pixels. A thing that is photographed
    from all around cannot be built from a map alone. The published networks are not shown it, so
    reference conventions need False."""
    feature_dim: int = 32
    """Label features that are rendered for the super-resolution of labels; without
    super-resolution there is one a class."""
    encoder_base: int = 32768
    """Channels of the label encoder at size s are min(encoder_base / s, encoder_max)."""
    encoder_max: int = 512
    """Largest number of channels of the label encoder."""
    class_names: tuple[str, ...] = ()
    """Names of the classes; empty takes those of the data set."""
    palette: tuple[tuple[int, int, int], ...] = ()
    """Colour of each class, RGB 0..255; empty takes that of the data set, or a default one."""

    @property
    def channels(self) -> int:
        """Channels of a label map as networks take it, and of a label image."""
        return {"none": 0, "seg": self.classes, "edge": 1}[self.kind]


@dataclass
class DiscriminatorConfig:
    """The discriminator; it sees image and raw image together where there is super-resolution."""

    channel_base: int = 32768
    """Channels at size s are min(channel_base / s, channel_max)."""
    channel_max: int = 512
    """Largest number of channels."""
    blocks: Literal["residual", "strided"] = "residual"
    """residual: StyleGAN2's blocks. strided: one convolution for each size, which is
    faster on a CPU."""
    camera_conditioning: bool = True
    """Judge images together with the camera they claim to be taken from."""
    mapping_layers: int = 8
    """Layers of the camera label's mapping network."""
    lr_multiplier: float = 0.01
    """Learning-rate multiplier of that mapping network."""
    minibatch_group: int = 4
    """Images that share the minibatch standard deviation; 1 disables it."""
    camera_noise: float = 0.0
    """Noise on camera labels in training, in standard deviations over the batch."""
    clamp: float | None = 256.0
    """Limit of its activations; needed in half precision."""
    kind: Literal["image", "patch"] = "image"
    """image: StyleGAN2's, of whole images and of patches whose camera it is told. patch: GRAF's, of
    patches of 32, 64 or 128 px of which it is told nothing; of the other options it takes
    channel_max alone."""
