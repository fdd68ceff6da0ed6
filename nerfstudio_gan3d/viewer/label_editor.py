"""The label map that the viewer's Scene is made from, and what a user does to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays, project
from nerfstudio_gan3d.latents import Appearance, LabelStore, LabelView
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_images import label_ids
from nerfstudio_gan3d.rendering.renderer import render
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.viewer.label_edits import (
    History,
    angle_between,
    edit_pose,
    inside_rectangle,
    line_mask,
    paint,
    surface_distance,
    unblurred,
)

SAME_VIEW_DEG = 3.0
"""Cameras that differ by less paint on the same map."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What a Scene is made from at one moment of a user's work."""

    label: int | LabelView
    """The label map: number of a kept one, or one of the user's own."""
    source: int | LabelView
    """What it was before anything was painted on it."""
    name: str
    """How messages call the source."""
    appearance: Appearance | None = None
    """None: that of the seeds."""
    appearance_name: str = ""
    """Where it comes from."""


class LabelEditor:
    """Label maps that are chosen, painted on from any side, undone and redone.

    A stroke is a place that the user sees. It is met with the Scene's surface there, and the point
    found is where the brush goes on the label map. The map is the one that the Scene was made from,
    if the user stands where that one is seen from; otherwise it is what the Scene's labels look
    like from here. So strokes from one place are made on one map and errors of rendering do not
    pile up, and a stroke from another side starts from all that was done before.

    Reading is safe from any thread, and so is editing.

    Args:
        generator: makes and renders the Scenes.
        store: the kept label maps.
        radius: distance of the data set's cameras from the pivot.
        pivot: what they look at.
        focal: their focal length in image sides.
    """

    def __init__(
        self,
        generator: Generator,
        store: LabelStore,
        radius: float,
        pivot: tuple[float, float, float],
        focal: float,
    ) -> None:
        assert generator.labels is not None
        self.labels = generator.labels
        self.side = generator.image_resolution
        self._generator, self._store = generator, store
        self._radius, self._pivot, self._focal = radius, pivot, focal
        self._lock = threading.RLock()
        self._history = History(_kept(0))
        # The edit that the last dot made, and where in the world that dot is.
        self._last: tuple[Edit, Tensor] | None = None

    @property
    def now(self) -> Edit:
        """What is shown."""
        return self._history.now

    @property
    def painted(self) -> bool:
        """Whether anything was painted on the label map."""
        return self.now.label is not self.now.source

    @property
    def view(self) -> LabelView:
        """The label map that is shown, in the computer's own memory."""
        label = self.now.label
        shown = self._store.view(label) if isinstance(label, int) else label
        return LabelView(shown.map.cpu(), shown.pose.cpu())

    def choose(self, index: int) -> None:
        """Shows one of the kept label maps; raises ValueError for one that is not kept."""
        self._store.view(index)
        with self._lock:
            kept = _kept(index)
            self._history.push(replace(self.now, label=index, source=index, name=kept.name))

    def load(self, view: LabelView, name: str, appearance: Appearance | None = None) -> None:
        """Shows a label map of the user's own, and with it an appearance, if one is given;
        ``name`` is how messages call it."""
        with self._lock:
            self._history.push(
                Edit(view, view, name, appearance, name)
                if appearance is not None
                else replace(self.now, label=view, source=view, name=name)
            )

    def wear(self, appearance: Appearance | None, name: str = "") -> None:
        """Gives the Scene another appearance; None is that of the seeds."""
        with self._lock:
            changed = replace(self.now, appearance=appearance, appearance_name=name)
            self._history.push(changed)

    def reset(self) -> bool:
        """Back to the label map without strokes, as a step that can be undone; False if there were
        none."""
        with self._lock:
            if not self.painted:
                return False
            self._history.push(replace(self.now, label=self.now.source))
            return True

    def undo(self) -> bool:
        """Takes the last step back; False if there is none."""
        with self._lock:
            return self._history.undo()

    def redo(self) -> bool:
        """Takes a step again that was undone; False if there is none."""
        with self._lock:
            return self._history.redo()

    def pose_for(self, camera: Float[Tensor, "1 25"]) -> Float[Tensor, "1 25"]:
        """Where a label map is seen from that a user draws or loads while looking from
        ``camera``; raises ValueError for a camera at the pivot."""
        return edit_pose(camera, self._radius, self._pivot, self._focal)

    @torch.no_grad()
    def canvas(self, scene: Scene, camera: Float[Tensor, "1 25"]) -> LabelView:
        """The label map that strokes from ``camera`` are made on."""
        shown = self.view
        if angle_between(shown.pose, camera, self._pivot) <= SAME_VIEW_DEG:
            return shown
        pose = self.pose_for(camera)
        seen = self._generator.render(scene, pose.to(self._device)).labels
        assert seen is not None
        edges = self.labels.kind == "edge"
        return LabelView((unblurred(seen) if edges else label_ids(seen, self.labels)).cpu(), pose)

    def dot(
        self,
        scene: Scene,
        camera: Float[Tensor, "1 25"],
        place: tuple[float, float],
        value: int,
        width: int,
        connect: bool = False,
    ) -> bool:
        """Paints a dot where the user points.

        Args:
            scene: what the user sees.
            camera: from where.
            place: in the user's picture, 0..1 from left and from top.
            value: class id, or grey value of an edge map (0 a line, 255 paper).
            width: of the brush, pixels of the label map.
            connect: draw a line from the dot before, if that was the last step and on this map.

        Returns:
            Whether anything changed.

        Raises:
            ValueError: There is nothing to paint on at this place.
        """
        with self._lock:
            point = self._pick(scene, camera, place)
            canvas = self.canvas(scene, camera)
            end = self._on_map(point, canvas)
            start = end
            last = self._last
            same_map = angle_between(canvas.pose, self.view.pose, self._pivot) == 0
            if connect and last is not None and last[0] is self.now and same_map:
                start = self._on_map(last[1], canvas)
            mask = line_mask(self.side, start, end, width)
            if not mask.any():
                raise ValueError(
                    "this place is outside of the label map, which reaches as far as the data "
                    "set's images do; paint nearer to the middle"
                )
            changed = self._apply(canvas, mask, value)
            self._last = self.now, point
            return changed

    @torch.no_grad()
    def rectangle(
        self,
        scene: Scene,
        camera: Float[Tensor, "1 25"],
        low: tuple[float, float],
        high: tuple[float, float],
        value: int,
    ) -> bool:
        """Paints all that lies between two corners of the user's picture; see `dot`."""
        with self._lock:
            canvas = self.canvas(scene, camera)
            pose, small = canvas.pose.to(self._device), self._generator.neural_resolution
            rays = pixel_rays(pose, small, small)
            found = render(scene, *rays, self._generator.settings)
            reach = surface_distance(found, *rays, self._pivot).view(1, 1, small, small)
            # Where super-resolution makes the map larger than what is rendered, each ray takes the
            # distance of the nearest rendered one.
            reach = torch.nn.functional.interpolate(reach, (self.side, self.side)).flatten()
            origins, directions = pixel_rays(pose, self.side, self.side)
            points = origins[0] + directions[0] * reach[:, None]
            mask = inside_rectangle(points, camera.to(self._device), low, high)
            mask = mask.view(self.side, self.side).cpu()
            if not mask.any():
                raise ValueError(
                    "this rectangle holds no pixel of the label map; drag a larger one, nearer to "
                    "the middle"
                )
            return self._apply(canvas, mask, value)

    @property
    def _device(self) -> torch.device:
        return self._generator.device

    @torch.no_grad()
    def _pick(
        self, scene: Scene, camera: Float[Tensor, "1 25"], place: tuple[float, float]
    ) -> Float[Tensor, "3"]:
        """The point of the world that the user points at; may be NaN."""
        origins, directions = place_ray(camera.to(self._device), place)
        found = render(scene, origins, directions, self._generator.settings)
        reach = surface_distance(found, origins, directions, self._pivot)
        return (origins[0, 0] + directions[0, 0] * reach).cpu()

    def _on_map(self, point: Float[Tensor, "3"], canvas: LabelView) -> tuple[float, float]:
        """Where a point is on a label map, in pixels; raises ValueError if nowhere."""
        places, depth = project(canvas.pose.to(point), point[None, None])
        if not bool((depth > 0).all()):
            raise ValueError("there is nothing to paint on at this place")
        x, y = (places[0, 0] * self.side).tolist()
        return x, y

    def _apply(self, canvas: LabelView, mask: Bool[Tensor, "r r"], value: int) -> bool:
        changed = paint(canvas.map, mask, value)
        if torch.equal(changed, canvas.map):
            return False
        self._history.push(replace(self.now, label=LabelView(changed, canvas.pose)))
        return True


def place_ray(
    camera: Float[Tensor, "1 25"], place: tuple[float, float]
) -> tuple[Float[Tensor, "1 1 3"], Float[Tensor, "1 1 3"]]:
    """Origin and unit direction of the ray through a place of a camera's image, 0..1 from left and
    from top."""
    # A camera whose only pixel has its middle there.
    moved = camera.clone()
    moved[:, 18] += 0.5 - place[0]
    moved[:, 21] += 0.5 - place[1]
    return pixel_rays(moved, 1, 1)


def _kept(index: int) -> Edit:
    return Edit(index, index, f"kept map {index}")
