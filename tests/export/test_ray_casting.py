"""What cameras see of meshes, against geometry."""

from __future__ import annotations

import math

import numpy as np
import torch
import trimesh

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.export.ray_casting import cast, seen_faces

DISTANCE, FOCAL = 2.0, 2.0
FRONT = orbit_labels(torch.zeros(1), torch.zeros(1), DISTANCE, focal=FOCAL)


def test_where_pixels_meet_a_triangle() -> None:
    """A right angle at the origin with legs of 0.4: of 4 x 4 pixels of 0.25 the quarter above and
    to the right can show it, and of that the corner pixel alone, whose middle is (0.125, 0.125)."""
    corners = [[0.0, 0, 0], [0.4, 0, 0], [0, 0.4, 0]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2]], process=False)
    found = cast(mesh, FRONT, 4)
    assert found.face.shape == (1, 4, 4)
    assert np.argwhere(found.face[0] == 0).tolist() == [[1, 2]]
    assert (found.face == -1).sum() == 15
    expected = [1 - 2 * 0.125 / 0.4, 0.125 / 0.4, 0.125 / 0.4]
    np.testing.assert_allclose(found.weights[0, 1, 2], expected, atol=1e-6)


def test_a_camera_sees_a_ball_up_to_its_horizon() -> None:
    """From distance d a ball of radius r is seen where z > r^2 / d."""
    radius = 0.3
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    seen = seen_faces(mesh, FRONT, 128)
    heights = mesh.triangles_center[:, 2]
    horizon = radius**2 / DISTANCE
    # Triangles, of which one side is 0.023, and their neighbours reach a little beyond.
    assert seen[heights > horizon + 0.03].all()
    assert not seen[heights < horizon - 0.05].any()
    # Another camera sees the other side, too.
    both = torch.cat([FRONT, orbit_labels(torch.tensor([math.pi]), torch.zeros(1), 2.0, focal=2.0)])
    seen = seen_faces(mesh, both, 128)
    assert seen[abs(heights) > horizon + 0.03].all()


def test_neighbours_of_what_is_seen_count() -> None:
    """One pixel looks at the middle of a cube's front: at one triangle or the other, whose
    neighbours are the other half of the front and one triangle of two sides."""
    mesh = trimesh.creation.box((0.5, 0.5, 0.5))
    camera = orbit_labels(torch.tensor([0.01]), torch.tensor([0.02]), DISTANCE, focal=FOCAL)
    seen = seen_faces(mesh, camera, 1)
    assert seen.sum() == 4
    front = mesh.face_normals[:, 2] > 0.9
    assert seen[front].all()
