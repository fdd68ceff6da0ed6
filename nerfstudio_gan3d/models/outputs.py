"""One Scene as nerfstudio's outputs: rgb, foreground, background, depth, accumulation, normals,
labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from nerfstudio_gan3d.cameras import object_to_nerfstudio
from nerfstudio_gan3d.models.label_images import label_picture
from nerfstudio_gan3d.models.scene_generator import SceneGenerator
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.occupancy import OccupancyGrid, render_occupied
from nerfstudio_gan3d.rendering.renderer import render
from nerfstudio_gan3d.scene import Scene


@dataclass(frozen=True)
class Backdrop:
    """What stands behind the foreground in the output ``rgb``."""

    mode: Literal["own", "colour", "removed"] = "own"
    """own: the Scene's background; colour: a plain colour; removed: nothing, that is black."""
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """The plain colour, RGB in 0..1; also stands behind the output ``foreground``."""


def surface_normals(scene: Scene, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Unit vectors out of the surface: the direction in which the density falls fastest.

    ``n = - grad sigma / |grad sigma|`` of the raw density, which has the same direction and does
    not vanish where its activation saturates. Zero where the density is constant. Object world.
    """
    with torch.enable_grad():
        positions = positions.detach().requires_grad_()
        raw = scene.field.query(positions).raw_density
        (gradient,) = torch.autograd.grad(raw.sum(), positions)
    return -torch.nn.functional.normalize(gradient, dim=-1)


class SceneOutputs:
    """Renders one Scene (B = 1) for nerfstudio.

    Args:
        generator: made the Scene; its super-resolution finishes whole images.
        backdrop: what stands behind the foreground.
        shown: the outputs that somebody looks at, or None for all. What costs much is left out of
            the others: normals (a gradient per ray) are zero, colours and labels are not
            super-resolved.
        occupancy: what is known of the Scene's density, to leave empty space out; None looks up
            every sample.
    """

    def __init__(
        self,
        generator: SceneGenerator,
        scene: Scene,
        backdrop: Backdrop,
        shown: str | Collection[str] | None = None,
        occupancy: OccupancyGrid | None = None,
    ) -> None:
        self.generator = generator
        self.scene = scene
        self.backdrop = backdrop
        self.shown = {shown} if isinstance(shown, str) else shown
        self.occupancy = occupancy
        self.with_normals = self._is_shown("normals")
        self.rotation = object_to_nerfstudio(generator.device)

    def _is_shown(self, name: str) -> bool:
        return self.shown is None or name in self.shown

    def _march(
        self,
        bundle: RayBundle,
        chunk: int,
    ) -> tuple[Rendering, Tensor, Tensor]:
        """Everything along flat rays of nerfstudio's world, chunk by chunk."""
        origins = (bundle.origins @ self.rotation)[None]  # [1, R, 3]
        directions = torch.nn.functional.normalize(bundle.directions @ self.rotation, dim=-1)[None]
        clip = None
        if bundle.nears is not None and bundle.fars is not None:
            clip = (bundle.nears[None], bundle.fars[None])
        parts: list[Rendering] = []
        for start in range(0, origins.shape[1], chunk):
            rows = slice(start, start + chunk)
            limits = (clip[0][:, rows], clip[1][:, rows]) if clip else None
            seen, settings = (origins[:, rows], directions[:, rows]), self.generator.settings
            if self.occupancy is None:
                parts.append(render(self.scene, *seen, settings, clip=limits))
            else:
                parts.append(render_occupied(self.scene, self.occupancy, *seen, settings, limits))
        return join(parts), origins, directions

    def rays(self, bundle: RayBundle, chunk: int = 16384) -> dict[str, Tensor]:
        """Outputs along rays, [R, C]; colours are those of the rendered (raw) image."""
        shape = bundle.origins.shape[:-1]
        found, origins, directions = self._march(bundle.flatten(), chunk)
        foreground = found.foreground[0, :, :3]
        behind = self._behind(found)[0, :, :3]
        out = self._geometry(found, origins, directions)
        out |= self._colours(foreground, behind, out["accumulation"])
        if found.labels is not None:
            # As an image of one row: labels of rays need no neighbours.
            labels = self.generator.label_images(found, 1, found.labels.shape[1])[1]
            assert labels is not None
            out["labels"] = self._label_picture(labels)[0, :, 0].T
        return {name: value.unflatten(0, shape) for name, value in out.items()}

    def camera(
        self, camera: Cameras, obb_box: OrientedBox | None = None, chunk: int = 16384
    ) -> dict[str, Tensor]:
        """Outputs of a whole image, [H, W, C]."""
        upsampler = self.generator.superresolution
        if upsampler is None:
            bundle = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
            return self.rays(bundle, chunk)
        height, width = int(camera.height[0, 0]), int(camera.width[0, 0])
        # Super-resolution wants the size it was trained with; its shorter side stands for the
        # image's.
        scale = self.generator.neural_resolution / min(height, width)
        small = Cameras(
            camera.camera_to_worlds,
            camera.fx * scale,
            camera.fy * scale,
            camera.cx * scale,
            camera.cy * scale,
            width=max(round(width * scale), 1),
            height=max(round(height * scale), 1),
            camera_type=camera.camera_type,
        )
        bundle = small.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        shape = (bundle.origins.shape[0], bundle.origins.shape[1])
        found, origins, directions = self._march(bundle.flatten(), chunk)
        behind = self._behind(found)
        layers = {
            "rgb": found.foreground + found.transmittance * behind,
            "foreground": found.foreground
            + found.transmittance * self._plain(found.foreground, self.backdrop.colour),
            "background": behind,
        }
        assert self.scene.style is not None
        out = {
            name: _grid(value, shape)
            for name, value in self._geometry(found, origins, directions).items()
        }
        for name, features in layers.items():
            features = features.mT.unflatten(2, shape) * 2 - 1
            final = features[:, :3]
            if self._is_shown(name):
                # The stored pattern fits one size, and fresh noise would flicker.
                constant = self.generator.superresolution_noise == "const"
                native = upsampler.target_size(*shape) == (upsampler.input_size,) * 2
                noise = "const" if constant and native else "none"
                style = self.scene.style[:, None]
                final = upsampler(features, final, style, noise).image
            out[name] = (final / 2 + 0.5).clamp(0, 1)
        if found.labels is not None:
            out["labels"] = self._labels(found, shape)
        return {
            name: _fit(value, height, width, "nearest" if name == "labels" else "bilinear")
            for name, value in out.items()
        }

    def _labels(self, found: Rendering, shape: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
        """The label image in colours, super-resolved where it is looked at."""
        features, labels = self.generator.label_images(found, *shape)
        upsampler = self.generator.superresolution_labels
        assert features is not None
        assert labels is not None
        if upsampler is not None and self._is_shown("labels"):
            assert self.scene.style is not None
            labels = upsampler(features, labels, self.scene.style[:, None], "none").image
        return self._label_picture(labels)

    def _label_picture(self, labels: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 h w"]:
        assert self.generator.labels is not None
        return label_picture(labels, self.generator.labels)

    def _plain(self, like: Tensor, colour: tuple[float, float, float]) -> Tensor:
        """Features that show a plain colour; those beyond RGB are grey."""
        plain = torch.full_like(like, 0.5)
        plain[..., :3] = like.new_tensor(colour)
        return plain

    def _behind(self, found: Rendering) -> Tensor:
        if self.backdrop.mode == "own":
            nothing = torch.full_like(found.foreground, self.scene.nothing)
            return nothing if found.background is None else found.background
        colour = self.backdrop.colour if self.backdrop.mode == "colour" else (0.0, 0.0, 0.0)
        return self._plain(found.foreground, colour)

    def _colours(self, foreground: Tensor, behind: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        white = foreground.new_tensor(self.backdrop.colour)
        return {
            "rgb": (foreground + (1 - alpha) * behind).clamp(0, 1),
            "foreground": (foreground + (1 - alpha) * white).clamp(0, 1),
            "background": behind.clamp(0, 1),
        }

    def _geometry(self, found: Rendering, origins: Tensor, directions: Tensor) -> dict[str, Tensor]:
        """Depth (distance along the ray), accumulation and normals of B = 1, [R, C].

        Depth is that of the foreground where it covers more than half of the ray, and that of what
        lies behind elsewhere: a mean of both would put points into the empty space between them.
        """
        alpha = found.accumulation[0]
        behind = torch.full_like(alpha, self.scene.bounds.far)
        if self.scene.background is not None:
            behind = self.scene.background.distance(origins, directions)[0]
        solid = alpha > 0.5
        depth = torch.where(solid, found.foreground_distance[0], behind)
        normals = torch.zeros_like(origins[0])
        if self.with_normals and bool(solid.any()):
            rows = solid[:, 0].nonzero()[:, 0]
            points = origins[:, rows] + directions[:, rows] * depth[None, rows]
            normals[rows] = (surface_normals(self.scene, points) @ self.rotation.T)[0]
        return {"accumulation": alpha, "depth": depth, "normals": (normals + 1) / 2}


def join(parts: list[Rendering]) -> Rendering:
    """Renderings of consecutive rays as one."""
    if len(parts) == 1:
        return parts[0]
    names = Rendering.__dataclass_fields__
    merged = {}
    for name in names:
        values = [getattr(part, name) for part in parts]
        merged[name] = None if values[0] is None else torch.cat(values, dim=1)
    return Rendering(**merged)


def _grid(values: Tensor, shape: tuple[int, int]) -> Float[Tensor, "1 c h w"]:
    return values.mT.unflatten(1, shape)[None]


def _fit(
    image: Float[Tensor, "1 c h w"],
    height: int,
    width: int,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Float[Tensor, "h2 w2 c"]:
    """An image at the size that was asked for; "nearest" invents no colours between classes."""
    if tuple(image.shape[2:]) != (height, width):
        shrinks = mode == "bilinear" and image.shape[2] > height
        image = torch.nn.functional.interpolate(
            image, (height, width), mode=mode, antialias=shrinks
        )
    return image[0].permute(1, 2, 0)
