"""Camera labels, poses and rays: one convention, converted at one place.

Three frames meet here:

* **object world**: y up; where a generator's Scene lives. Unit: the data set's own (cars64: longest
side 1).
* **camera label**: the 25 floats of EG3D's ``dataset.json``: a row-major 4x4 camera-to-world matrix
in the
  OpenCV convention (x right, y down, z forward) in the object world, then a row-major 3x3
  intrinsics matrix normalised by the image size.
* **nerfstudio world**: z up, OpenGL cameras (x right, y up, z backward).

All three are right-handed. Angles are radians unless a name ends in ``_deg``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

LABEL_SIZE = 25
_OBJECT_TO_NERFSTUDIO = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))


def object_to_nerfstudio(device: torch.device | None = None) -> Float[Tensor, "3 3"]:
    """Rotation that takes object-world vectors (y up) to nerfstudio's world (z up)."""
    return torch.tensor(_OBJECT_TO_NERFSTUDIO, device=device)


def make_labels(
    cam2world: Float[Tensor, "b 4 4"], intrinsics: Float[Tensor, "b 3 3"]
) -> Float[Tensor, "b 25"]:
    """Camera labels from OpenCV camera-to-world matrices and normalised intrinsics."""
    return torch.cat([cam2world.flatten(1), intrinsics.flatten(1)], dim=1)


def split_labels(
    labels: Float[Tensor, "b 25"],
) -> tuple[Float[Tensor, "b 4 4"], Float[Tensor, "b 3 3"]]:
    """Camera-to-world matrices and normalised intrinsics of camera labels."""
    return labels[:, :16].unflatten(1, (4, 4)), labels[:, 16:].unflatten(1, (3, 3))


def focal_from_fov(fov_deg: float) -> float:
    """Normalised focal length (in image widths) of a square image with this field of view."""
    if not 0.0 < fov_deg < 180.0:
        raise ValueError(f"field of view {fov_deg} degrees: give a value between 0 and 180")
    return 0.5 / math.tan(math.radians(fov_deg) / 2)


def make_intrinsics(focal: float, count: int) -> Float[Tensor, "b 3 3"]:
    """Normalised intrinsics with the principal point in the image centre."""
    matrix = torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])
    return matrix.expand(count, 3, 3)


def look_at(position: Float[Tensor, "b 3"], target: Float[Tensor, "b 3"]) -> Float[Tensor, "b 4 4"]:
    """OpenCV camera-to-world matrices that look from ``position`` to ``target`` with y up in the
    world.

    A camera that looks straight up or down has no defined roll; there the image's right is world
    +x.
    """
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], device=position.device, dtype=position.dtype)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    straight = right.norm(dim=-1, keepdim=True) < 1e-6
    right = torch.where(straight, right.new_tensor([1.0, 0.0, 0.0]).expand_as(right), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    matrix = torch.eye(4, device=position.device, dtype=position.dtype).repeat(len(position), 1, 1)
    matrix[:, :3, :4] = torch.stack([right, down, forward, position], dim=-1)
    return matrix


def orbit_positions(
    azimuth: Float[Tensor, "b"], elevation: Float[Tensor, "b"], radius: Float[Tensor, "b"] | float
) -> Float[Tensor, "b 3"]:
    """Points on a sphere about the origin: azimuth 0 is +z (the front), +90 degrees is +x; y is
    up."""
    direction = torch.stack(
        [
            azimuth.sin() * elevation.cos(),
            elevation.sin(),
            azimuth.cos() * elevation.cos(),
        ],
        dim=-1,
    )
    scale = radius[:, None] if isinstance(radius, Tensor) else radius
    return direction * scale


def orbit_labels(
    azimuth: Float[Tensor, "b"],
    elevation: Float[Tensor, "b"],
    radius: Float[Tensor, "b"] | float,
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    focal: float = 1.5,
) -> Float[Tensor, "b 25"]:
    """Labels of cameras on a sphere about ``pivot`` that look at it.

    Args:
        azimuth: radians; 0 looks at the front (+z), +pi/2 stands at +x.
        elevation: radians above the horizon.
        radius: distance from the pivot, object-world units.
        pivot: point looked at.
        focal: normalised focal length.
    """
    target = torch.tensor(pivot, dtype=azimuth.dtype, device=azimuth.device).expand(len(azimuth), 3)
    position = orbit_positions(azimuth, elevation, radius) + target
    intrinsics = make_intrinsics(focal, len(azimuth)).to(position)
    return make_labels(look_at(position, target), intrinsics)


def camera_angles(
    labels: Float[Tensor, "b 25"], pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Azimuth, elevation (radians) and radius of the camera centres about ``pivot``."""
    centre = labels[:, [3, 7, 11]] - labels.new_tensor(pivot)
    radius = centre.norm(dim=-1)
    return (
        torch.atan2(centre[:, 0], centre[:, 2]),
        torch.asin((centre[:, 1] / radius).clamp(-1, 1)),
        radius,
    )


def mirror_labels(labels: Float[Tensor, "b 25"]) -> Float[Tensor, "b 25"]:
    """Cameras of the horizontally flipped images: the pose mirrored at the plane x = 0.

    ``pose' = F pose F`` with ``F = diag(-1, 1, 1, 1)`` (EG3D's own mirroring of FFHQ), and the
    principal point mirrored: ``cx' = 1 - cx``, skew negated.
    """
    sign = torch.ones(LABEL_SIZE, device=labels.device, dtype=labels.dtype)
    # Entries [0,1], [0,2], [1,0], [2,0], [0,3] of the pose and the skew change their sign.
    sign[[1, 2, 4, 8, 3, 17]] = -1
    mirrored = labels * sign
    mirrored[:, 18] = 1 - labels[:, 18]
    return mirrored


def pixel_rays(
    labels: Float[Tensor, "b 25"], height: int, width: int, to_border: bool = False
) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]]:
    """Origins and unit directions of the rays through all pixel centres, row by row (r = height *
    width).

    For a pixel (u, v) in image units, the camera-space point is
    ``((u - cx + cy s / fy - s v / fy) / fx, (v - cy) / fy, 1)`` (s is the skew). ``to_border``
    sends the outermost pixels' rays through the image's border and the others evenly between, as
    G3DR's published code does.
    """
    cam2world, intrinsics = split_labels(labels)
    sides = [torch.arange(n, device=labels.device, dtype=labels.dtype) for n in (height, width)]
    if to_border:
        sides = [side / max(len(side) - 1, 1) for side in sides]
    else:
        sides = [(side + 0.5) / len(side) for side in sides]
    v, u = torch.meshgrid(*sides, indexing="ij")
    u, v = u.reshape(1, -1), v.reshape(1, -1)
    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]
    cx, cy, skew = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None], intrinsics[:, 0, 1, None]
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    y = (v - cy) / fy
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [B, R, 3]
    directions = torch.nn.functional.normalize(local @ cam2world[:, :3, :3].mT, dim=-1)
    return cam2world[:, None, :3, 3].expand_as(directions), directions


def project(
    labels: Float[Tensor, "b 25"], points: Float[Tensor, "b n 3"]
) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n"]]:
    """Where cameras see points of the object world: image coordinates and z-depth.

    ``(u, v, 1) = K R^-1 (p - t) / z``, in image sides from the upper left corner: inside of the
    image u (to the right) and v (down) are 0 to 1, and pixel (column, row) of W x H pixels holds
    the points with ``floor(u W) = column`` and ``floor(v H) = row``. It undoes `pixel_rays`.

    z is in object-world units along the optical axis. Points behind a camera have a negative one,
    and coordinates that mean nothing; with z = 0 they are not finite.
    """
    cam2world, intrinsics = split_labels(labels)
    # A rotation's inverse is its transpose, and p R = R^T p.
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    depth = local[..., 2]
    return ((local / depth[..., None]) @ intrinsics.mT)[..., :2], depth


def axis_cosine(
    labels: Float[Tensor, "b 25"], directions: Float[Tensor, "b r 3"]
) -> Float[Tensor, "b r 1"]:
    """Cosine between rays and the optical axis: z-depth = distance along the ray * this."""
    forward = labels[:, [2, 6, 10]]
    return directions @ forward[:, :, None]


def labels_to_cameras(labels: Float[Tensor, "b 25"], width: int, height: int) -> Cameras:
    """nerfstudio ``Cameras`` (nerfstudio's world, pixels) of camera labels."""
    from nerfstudio.cameras.cameras import Cameras, CameraType

    cam2world, intrinsics = split_labels(labels)
    rotation = object_to_nerfstudio(labels.device).to(labels)
    opengl = cam2world[:, :3].clone()
    opengl[:, :, 1:3] *= -1
    return Cameras(
        camera_to_worlds=rotation @ opengl,
        fx=intrinsics[:, 0, 0, None] * width,
        fy=intrinsics[:, 1, 1, None] * height,
        cx=intrinsics[:, 0, 2, None] * width,
        cy=intrinsics[:, 1, 2, None] * height,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def cameras_to_labels(cameras: Cameras) -> Float[Tensor, "b 25"]:
    """Camera labels of (a flat batch of) nerfstudio perspective cameras; the inverse of
    `labels_to_cameras`."""
    poses = cameras.camera_to_worlds.reshape(-1, 3, 4)
    rotation = object_to_nerfstudio(poses.device).to(poses)
    cam2world = torch.eye(4, device=poses.device, dtype=poses.dtype).repeat(len(poses), 1, 1)
    cam2world[:, :3] = rotation.T @ poses
    cam2world[:, :3, 1:3] *= -1
    width = cameras.width.reshape(-1).to(poses)
    height = cameras.height.reshape(-1).to(poses)
    intrinsics = torch.zeros(len(poses), 3, 3, device=poses.device, dtype=poses.dtype)
    intrinsics[:, 0, 0] = cameras.fx.reshape(-1) / width
    intrinsics[:, 1, 1] = cameras.fy.reshape(-1) / height
    intrinsics[:, 0, 2] = cameras.cx.reshape(-1) / width
    intrinsics[:, 1, 2] = cameras.cy.reshape(-1) / height
    intrinsics[:, 2, 2] = 1
    return make_labels(cam2world, intrinsics)


@dataclass(frozen=True)
class PosePrior:
    """Distribution of cameras over a section of a sphere, for image sets without camera labels."""

    kind: Literal["uniform", "gaussian"] = "uniform"
    """uniform: even over the section's surface; gaussian: mean at the middle, the half width is two
    sigma."""
    azimuth_deg: tuple[float, float] = (-180.0, 180.0)
    """Smallest and largest azimuth in degrees; 0 stands in front (+z), 90 at +x."""
    elevation_deg: tuple[float, float] = (3.0, 40.0)
    """Smallest and largest elevation in degrees above the horizon."""
    radius: float = 1.9
    """Distance from the pivot, object-world units."""
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point that every camera looks at."""
    fov_deg: float = 36.87
    """Field of view of the (square) image in degrees."""

    def __post_init__(self) -> None:
        for name in ("azimuth_deg", "elevation_deg"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"pose prior {name} = ({low}, {high}): the first must not be larger"
                )
        if self.elevation_deg[0] <= -90 or self.elevation_deg[1] >= 90:
            raise ValueError(
                f"pose prior elevation_deg = {self.elevation_deg}: stay between -90 and 90 degrees"
            )
        if self.radius <= 0:
            raise ValueError(f"pose prior radius = {self.radius}: give a positive distance")
        if not 0 < self.fov_deg < 180:
            raise ValueError(f"pose prior fov_deg = {self.fov_deg}: stay between 0 and 180 degrees")

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "b 25"]:
        """Camera labels of ``count`` random cameras."""
        (az0, az1), (el0, el1) = (
            (math.radians(low), math.radians(high))
            for low, high in (self.azimuth_deg, self.elevation_deg)
        )
        if self.kind == "uniform":
            u = torch.rand(2, count, generator=generator)
            azimuth = az0 + (az1 - az0) * u[0]
            # Even over the sphere's surface means even in the sine of the elevation.
            sine = math.sin(el0) + (math.sin(el1) - math.sin(el0)) * u[1]
            elevation = torch.asin(sine)
        else:
            u = torch.randn(2, count, generator=generator) / 4
            azimuth = (az0 + az1) / 2 + (az1 - az0) * u[0]
            elevation = ((el0 + el1) / 2 + (el1 - el0) * u[1]).clamp(-1.55, 1.55)
        return orbit_labels(
            azimuth, elevation, self.radius, self.pivot, focal_from_fov(self.fov_deg)
        )
