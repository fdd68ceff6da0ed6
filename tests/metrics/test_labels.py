"""Label maps, segmentations and views whose agreement is worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import (
    axis_cosine,
    look_at,
    make_intrinsics,
    make_labels,
    orbit_labels,
    pixel_rays,
)
from nerfstudio_gan3d.metrics.labels import (
    ConfusionMatrix,
    LabelAgreement,
    ViewConsistency,
    diversity,
    resize_ids,
    warp_labels,
)


def ids(*rows: list[int]) -> Tensor:
    """A label map [1, 1, H, W]."""
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def scores(maps: Tensor, classes: int) -> Tensor:
    """Logits of a segmenter that sees exactly these ids."""
    return torch.nn.functional.one_hot(maps[:, 0].long(), classes).movedim(-1, 1).float()


def test_confusion_of_six_pixels_by_hand():
    # Reference 0 0 0 1 1 2, predicted 0 0 1 1 2 2; nobody has class 3.
    # IoU: 2 / 3, 1 / 3, 1 / 2. Right: 4 of 6, in the foreground 2 of 3.
    matrix = ConfusionMatrix(4, ("background", "wing", "nose", "tail"))
    matrix.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]))
    matrix.update(torch.tensor([1, 2, 2]), torch.tensor([1, 1, 2]))
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.figures("a_", "_b") == pytest.approx(
        {
            "a_miou_b": (2 / 3 + 1 / 3 + 1 / 2) / 3,
            "a_pixel_accuracy_b": 4 / 6,
            "a_pixel_accuracy_majority_b": 3 / 6,
            "a_foreground_pixel_accuracy_b": 2 / 3,
            "a_iou_background_b": 2 / 3,
            "a_iou_wing_b": 1 / 3,
            "a_iou_nose_b": 1 / 2,
        }
    )


def test_a_class_that_is_only_predicted_counts_as_missed():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 0, 0, 0]))
    figures = matrix.figures()
    assert figures["miou"] == pytest.approx((3 / 4 + 0) / 2)
    assert figures["iou_2"] == 0
    assert "iou_1" not in figures
    # Nothing is foreground, so there is no share of it.
    assert "foreground_pixel_accuracy" not in figures


def test_the_commonest_class_everywhere_scores_its_share_and_little_iou():
    # 90 % background: 0.9 of the pixels are right, but the mean IoU is 0.9 / 3.
    reference = torch.tensor([0] * 18 + [1, 2])
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(20, dtype=torch.int64), reference)
    figures = matrix.figures()
    assert figures["pixel_accuracy"] == figures["pixel_accuracy_majority"] == 0.9
    assert figures["miou"] == pytest.approx(0.3)
    assert figures["foreground_pixel_accuracy"] == 0


def test_confusion_refuses_what_it_cannot_count():
    matrix = ConfusionMatrix(3)
    assert matrix.figures() == {}
    with pytest.raises(ValueError, match=r"ids lie in 0\.\.3; there are classes 0 to 2"):
        matrix.update(torch.tensor([0, 3]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"ids lie in -1\.\.1"):
        matrix.update(torch.tensor([0, 1]), torch.tensor([0, -1]))
    assert matrix.figures() == {}
    with pytest.raises(ValueError, match="3 different ones are needed"):
        ConfusionMatrix(3, ("a", "b", "a"))
    with pytest.raises(ValueError, match="classes is 1"):
        ConfusionMatrix(1)


def test_ids_are_taken_from_the_middles_of_cells():
    grid = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    # Middles of halves of four pixels lie at 1 and 3, those of thirds at 0.67, 2 and 3.33.
    assert resize_ids(grid, (2, 2)).flatten().tolist() == [5, 7, 13, 15]
    assert resize_ids(grid, (1, 3)).flatten().tolist() == [8, 10, 11]
    assert resize_ids(ids([1, 2]), (1, 4)).flatten().tolist() == [1, 1, 2, 2]


def test_agreement_compares_what_is_seen_generated_and_asked_for():
    asked = ids([0, 1], [1, 2])
    generated = ids([0, 1], [2, 2])
    seen = ids([0, 1], [0, 2])
    agreement = LabelAgreement(3, ("background", "one", "two"))
    agreement.update(scores(seen, 3), asked, generated)
    figures = agreement.figures()
    # seen against asked: 3 of 4, foreground 2 of 3; IoU 1/2, 1/2, 1.
    assert figures["label_pixel_accuracy"] == 0.75
    assert figures["label_foreground_pixel_accuracy"] == pytest.approx(2 / 3)
    assert figures["label_miou"] == pytest.approx(2 / 3)
    assert figures["label_iou_one"] == 0.5
    # seen against generated: 3 of 4; IoU 1/2, 1, 1/2. generated against asked: 1, 1/2, 1/2.
    assert figures["label_self_miou"] == pytest.approx(2 / 3)
    assert figures["label_self_iou_two"] == 0.5
    assert figures["label_rendered_miou"] == pytest.approx(2 / 3)
    assert figures["label_rendered_iou_background"] == 1
    assert not [name for name in figures if "control" in name]  # one image has no other


def test_agreement_makes_only_the_comparisons_that_it_can():
    maps = ids([0, 1], [1, 1])
    agreement = LabelAgreement(2)
    agreement.update(None, maps, maps)
    figures = agreement.figures("real_")
    assert {name.rsplit("_", 1)[0] for name in figures} <= {
        "real_label_rendered",
        "real_label_rendered_pixel",
        "real_label_rendered_pixel_accuracy",
        "real_label_rendered_foreground_pixel",
        "real_label_rendered_iou",
    }
    assert figures["real_label_rendered_miou"] == 1
    agreement = LabelAgreement(2)
    agreement.update(scores(maps, 2), None, maps)
    assert "label_self_miou" in agreement.figures()
    assert "label_miou" not in agreement.figures()


def test_maps_are_brought_to_the_size_of_the_segmentation():
    large = ids([0, 1], [1, 0]).repeat_interleave(8, 2).repeat_interleave(8, 3)
    agreement = LabelAgreement(2)
    agreement.update(scores(ids([0, 1], [1, 0]), 2), large, large)
    assert agreement.figures()["label_miou"] == 1
    assert agreement.figures()["label_self_miou"] == 1


def test_control_compares_with_the_map_of_the_image_before_also_across_batches():
    left, right = ids([1, 0], [1, 0]), ids([0, 1], [0, 1])
    maps = torch.cat([left, right, left])
    agreement = LabelAgreement(2)
    agreement.update(scores(maps[:2], 2), maps[:2])
    agreement.update(scores(maps[2:], 2), maps[2:])
    figures = agreement.figures()
    assert figures["label_miou"] == 1
    assert figures["label_miou_control"] == 0
    assert figures["label_pixel_accuracy_control"] == 0
    # The same map everywhere: ignoring the input costs nothing.
    agreement = LabelAgreement(2)
    for _ in range(3):
        agreement.update(scores(left, 2), left)
    assert agreement.figures()["label_miou_control"] == 1


def test_a_segmenter_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"13 channels and the label maps 3 classes"):
        LabelAgreement(3).update(torch.zeros(1, 13, 4, 4), None)


SIZE = 16


def camera_at(x: float, z: float = 2.0, look: float = -1.0) -> Tensor:
    """A camera that looks along the z axis; at distance 2 a pixel is 1/8 wide."""
    position = torch.tensor([[x, 0.0, z]])
    target = position + torch.tensor([[0.0, 0.0, look]])
    return make_labels(look_at(position, target), make_intrinsics(1.0, 1))


def stripes(start: int) -> Tensor:
    """Ids 1 and 2 in stripes of four pixels of the plane, from its column `start`."""
    columns = (torch.arange(start, start + SIZE) // 4 % 2 + 1).to(torch.uint8)
    return columns.expand(1, 1, SIZE, SIZE)


# Two cameras side by side before the plane z = 0: B is moved by three pixels.
PLANE = torch.full((1, 1, SIZE, SIZE), 2.0)
CAMERA_A, CAMERA_B = camera_at(0.0), camera_at(3 / 8)


def test_views_of_a_striped_plane_agree_wherever_both_see_it():
    consistency = ViewConsistency(3)
    consistency.update(stripes(0), PLANE, CAMERA_A, stripes(3), PLANE, CAMERA_B)
    # Columns 3..15 are seen by both: five of id 1 (3 and 8..11) and eight of id 2.
    assert consistency.figures() == pytest.approx(
        {
            "label_view_covisible": 13 / 16,
            "label_view_agreement": 1,
            "label_view_agreement_chance": (5 / 13) ** 2 + (8 / 13) ** 2,
            "label_view_miou": 1,
        }
    )


def test_labels_that_slip_by_a_pixel_disagree_at_the_ends_of_stripes():
    consistency = ViewConsistency(3)
    consistency.update(stripes(0), PLANE, CAMERA_A, stripes(4), PLANE, CAMERA_B)
    # Of columns 3..15 those at 3, 7, 11 and 15 differ. Class 1: 3 of 7 pixels, class 2: 6 of 10.
    figures = consistency.figures("x_")
    assert figures["x_label_view_agreement"] == pytest.approx(9 / 13)
    assert figures["x_label_view_miou"] == pytest.approx((3 / 7 + 6 / 10) / 2)
    # Labels that stick to the image instead of the object slip by three.
    consistency = ViewConsistency(3)
    consistency.update(stripes(0), PLANE, CAMERA_A, stripes(0), PLANE, CAMERA_B)
    figures = consistency.figures()
    assert figures["label_view_agreement"] == pytest.approx(4 / 13)
    assert figures["label_view_covisible"] == pytest.approx(13 / 16)


def test_only_points_that_are_not_hidden_in_b_are_compared():
    # Something nearer covers the columns from 8 on in B; A's columns 3..10 remain.
    depth_b = PLANE.clone()
    depth_b[..., 8:] = 1.5
    warped = warp_labels(PLANE, stripes(3), CAMERA_A, CAMERA_B, depth_b)
    assert warped.visible[0, 0, 0].nonzero().flatten().tolist() == list(range(3, 11))
    assert warped.ids[0, 0, 0].tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0]
    # 1.5 against 2 is a quarter off.
    loose = warp_labels(PLANE, stripes(3), CAMERA_A, CAMERA_B, depth_b, tolerance=0.26)
    assert loose.visible[0, 0, 0].nonzero().flatten().tolist() == list(range(3, 16))
    # Background of either view is compared with nothing.
    depth_a = PLANE.clone()
    depth_a[..., 5] = 0
    depth_b[..., 0] = 0
    warped = warp_labels(depth_a, stripes(3), CAMERA_A, CAMERA_B, depth_b)
    assert warped.visible[0, 0, 0].nonzero().flatten().tolist() == [4, 6, 7, 8, 9, 10]


def test_points_behind_the_other_camera_are_not_seen():
    consistency = ViewConsistency(3)
    away = camera_at(0.0, z=-2.0)
    consistency.update(stripes(0), PLANE, CAMERA_A, stripes(0), PLANE, away)
    assert consistency.figures() == {"label_view_covisible": 0}
    # A camera on the plane divides by a depth of zero.
    consistency.update(stripes(0), PLANE, CAMERA_A, stripes(0), PLANE, camera_at(0.0, z=0.0))
    assert consistency.figures() == {"label_view_covisible": 0}
    assert ViewConsistency(3).figures() == {}


def test_a_view_warped_into_itself_is_unchanged_with_any_intrinsics():
    camera = orbit_labels(torch.tensor([0.7]), torch.tensor([0.3]), 2.0)
    # fx, skew, cx, fy, cy
    camera[:, [16, 17, 18, 20, 21]] = torch.tensor([1.3, 0.08, 0.42, 1.6, 0.55])
    labels = torch.randint(1, 6, (1, 1, 12, 20))
    depth = 1 + torch.rand(1, 1, 12, 20)
    warped = warp_labels(depth, labels, camera, camera, depth, tolerance=1e-4)
    assert warped.visible.all()
    assert torch.equal(warped.ids, labels)


def sphere(camera: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """z-depth, ids and points of a sphere of radius 0.5: 1 on its right half, 2 on its left.

    A gap of background separates the halves, wider than a pixel, so that no pixel is of both.
    """
    origins, directions = pixel_rays(camera, size, size)
    along = (origins * directions).sum(-1)
    under = along**2 - (origins.square().sum(-1) - 0.25)
    distance = -along - under.clamp(min=0).sqrt()
    points = origins + distance[..., None] * directions
    hit = (under > 0) & (points[..., 0].abs() > 0.03)
    depth = torch.where(hit, distance * axis_cosine(camera, directions)[..., 0], 0)
    halves = torch.where(hit, torch.where(points[..., 0] > 0, 1, 2), 0)
    return depth.view(1, 1, size, size), halves.view(1, 1, size, size), points[0]


def test_views_of_a_sphere_agree_and_see_what_faces_both():
    camera_a, camera_b = (
        orbit_labels(torch.tensor([azimuth]), torch.tensor([elevation]), 2.0).double()
        for azimuth, elevation in ((-0.3, 0.1), (0.6, 0.4))
    )
    depth_a, labels_a, points = sphere(camera_a, 64)
    depth_b, labels_b, _ = sphere(camera_b, 64)
    consistency = ViewConsistency(3)
    consistency.update(labels_a, depth_a, camera_a, labels_b, depth_b, camera_b)
    figures = consistency.figures()
    assert figures["label_view_agreement"] == 1
    assert figures["label_view_miou"] == 1
    assert 0.4 < figures["label_view_agreement_chance"] < 0.7

    visible = warp_labels(depth_a, labels_b, camera_a, camera_b, depth_b).visible.flatten()
    to_camera = torch.nn.functional.normalize(camera_b[:, [3, 7, 11]] - points, dim=-1)
    facing = (points / 0.5 * to_camera).sum(-1)
    on_sphere = depth_a.flatten() > 0
    # Points near the gap may fall into one of its pixels.
    clear = on_sphere & (points[:, 0].abs() > 0.08)
    assert visible[clear & (facing > 0.5)].all()
    assert not visible[on_sphere & (facing < -0.05)].any()
    assert not visible[~on_sphere].any()
    assert (clear & (facing > 0.5)).sum() > 300
    assert (on_sphere & (facing < -0.05)).sum() > 50


def test_diversity_of_two_maps_by_hand():
    # Distances of the first map's samples: 5, 10 and 5; the second map's are equal.
    features = torch.tensor([[[0.0, 0], [3, 4], [6, 8]], [[1, 0], [1, 0], [1, 0]]])
    found = diversity(features, "colours")
    assert found.within == pytest.approx((20 / 3 + 0) / 2)
    # Each sample against the next seed of the other map: 1, sqrt(20), sqrt(89), both ways.
    assert found.between == pytest.approx((1 + math.sqrt(20) + math.sqrt(89)) / 3)
    assert found.feature_space == "colours"
    assert diversity(features[:1], "colours").between is None


def test_diversity_sees_small_differences_of_large_features():
    features = torch.full((1, 2, 3), 1e6, dtype=torch.float64)
    features[0, 1, 0] += 1e-3
    assert diversity(features, "x").within == pytest.approx(1e-3, rel=1e-4)


def test_diversity_needs_two_seeds_and_finite_features():
    with pytest.raises(ValueError, match=r"4 label map\(s\) with 1 seed\(s\)"):
        diversity(torch.zeros(4, 1, 8), "x")
    with pytest.raises(ValueError, match="NaN or infinite"):
        diversity(torch.full((1, 2, 1), math.nan), "x")
