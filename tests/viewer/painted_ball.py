"""A thing whose surface shows a label map: what a perfect generator would make of one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_gan3d.latents import LabelView
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene

RADIUS = 0.3


@dataclass(frozen=True)
class PaintedBall:
    """A solid ball about the origin. Where the map's camera sees it, it has the map's classes;
    class 1 elsewhere. It is looked up point by point, without any code of the viewer's."""

    view: LabelView
    classes: int

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        pose = self.view.pose[0]
        matrix, focal = pose[:16].view(4, 4), float(pose[16])
        local = (positions - matrix[:3, 3]) @ matrix[:3, :3]
        side = self.view.map.shape[-1]
        column, row = ((local[..., i] / local[..., 2] * focal + 0.5) * side for i in (0, 1))
        column, row = (place.long().clamp(0, side - 1) for place in (column, row))
        ids = self.view.map[0, 0].long()[row, column]
        # A point of the ball is seen if its tangent plane has the camera on its outer side.
        faces = (positions * (matrix[:3, 3] - positions)).sum(-1) > 0
        # What is not the ball in the map is not the ball's surface either.
        ids = torch.where(faces & (ids > 0), ids, 1)
        shares = torch.nn.functional.one_hot(ids, self.classes).to(positions)
        raw = 300 * (RADIUS - positions.norm(dim=-1, keepdim=True))
        return FieldSamples(raw, torch.full_like(positions, 0.5), shares)


def ball_scene(view: LabelView, classes: int) -> Scene:
    """The Scene of a label map."""
    behind = (1.0,) + (0.0,) * (classes - 1)
    bounds = Bounds((1.0, 1.0, 1.0), 0.5, 6.0)
    return Scene(PaintedBall(view, classes), bounds, 1, density_scale=10.0, behind_labels=behind)
