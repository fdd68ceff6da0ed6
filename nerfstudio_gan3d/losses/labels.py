"""Losses of images with labels: what was rendered against the label map and image it was made from.

Source: Deng et al. 2023 (pix2pix3D, arXiv 2302.08509), 3.2 and 3.3. A label image is C scores a
pixel (seg: logits of classes), or one grey value (edge: paper +1, line -1).

Only an image that is rendered from the pose of its label map can be compared with that map. The
losses that compare therefore take a weight for each image, 1 where it counts and 0 where not. They
are means over the images that count, and 0 with a gradient of 0 where none does; multiplied by the
weights' mean they have the published strength, which is that of a mean over all images.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.networks.discriminator import resize_antialias

ClassWeights = Literal["none", "celeba", "celeba_squared"]

CELEBA_CLASS_WEIGHTS = (
    0.42768099,
    0.45614868,
    1.59952169,
    4.38863045,
    4.85695198,
    4.86439145,
    3.53563349,
    3.57896961,
    3.37838867,
    3.66981824,
    4.17743386,
    3.5624441,
    2.78190484,
    0.40917425,
    2.38560636,
    4.65813434,
    17.17367367,
    1.13303585,
    1.25281865,
)
"""Published weights of the 19 classes of CelebAMask-HQ, in its order: background, skin, nose,
eyeglasses, left and right eye, left and right brow, left and right ear, mouth, upper and lower lip,
hair, hat, earring, necklace, neck, cloth. Rare classes weigh more."""


def named_class_weights(name: ClassWeights, classes: int) -> Float[Tensor, "c"] | None:
    """Weights of classes in the cross entropy by their name; None for ``none``.

    celeba is `CELEBA_CLASS_WEIGHTS` and celeba_squared the square of each, with which the published
    face model was trained.

    Raises:
        ValueError: The label maps have other classes than the weights.
    """
    if name == "none":
        return None
    if classes != len(CELEBA_CLASS_WEIGHTS):
        raise ValueError(
            f"class_weights is {name}, which has the {len(CELEBA_CLASS_WEIGHTS)} classes of "
            f"CelebAMask-HQ, and the label maps have {classes}; set class_weights to none"
        )
    weights = torch.tensor(CELEBA_CLASS_WEIGHTS, dtype=torch.float64)
    return (weights if name == "celeba" else weights.square()).float()


def label_cross_entropy(
    logits: Float[Tensor, "b c h w"],
    maps: UInt8[Tensor, "b 1 r r"],
    class_weights: Float[Tensor, "c"] | None = None,
    weight: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy of rendered classes against label maps: pix2pix3D's L_recon of labels.

    ``sum_p v_p -log softmax(logits_p)[y_p] / sum_p v_p`` over the pixels p of all images, where y_p
    is the id in the map, reduced to the logits' size by nearest neighbour, and v_p is the weight of
    that class times the weight of the image.

    Ids must be below C. They are not looked at here, which would make an accelerator wait.
    """
    ids = reduce_nearest(maps, (logits.shape[2], logits.shape[3]))[:, 0].long()  # [B, h, w]
    entropy = F.cross_entropy(logits, ids, weight=class_weights, reduction="none")
    counted = torch.ones_like(entropy) if class_weights is None else class_weights[ids]
    if weight is not None:
        entropy, counted = entropy * weight[:, None, None], counted * weight[:, None, None]
    return _ratio(entropy.sum(), counted.sum())


def edge_reconstruction(
    values: Float[Tensor, "b 1 h w"],
    target: Float[Tensor, "b 1 r r"],
    weight: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    """Smooth L1 (beta 1) of rendered edges against edge maps, both -1..1: pix2pix3D's L_recon.

    The map is reduced to the size of the values by nearest neighbour.
    """
    reduced = reduce_nearest(target, (values.shape[2], values.shape[3]))
    return _smooth_l1(values, reduced, weight)


def image_reconstruction(
    image: Float[Tensor, "b c h w"],
    target: Float[Tensor, "b c r r"],
    weight: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    """Smooth L1 (beta 1) of rendered images against real ones, both -1..1.

    The real image is reduced to the rendered one's size by antialiased bilinear interpolation.
    """
    reduced = resize_antialias(target, (image.shape[2], image.shape[3]))
    return _smooth_l1(image, reduced, weight)


def cross_view_loss(
    recovered: Float[Tensor, "b c h w"],
    reference: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    """Smooth L1 (beta 1) of two raw label images of one pose: pix2pix3D's L_CVC.

    ``recovered`` is of the Scene that was made from another view's rendered labels, ``reference``
    of the Scene that was made from the map itself, taken as a constant. Both are scores before the
    softmax.
    """
    return _smooth_l1(recovered, reference.detach(), weight)


def label_channels(
    labels: Float[Tensor, "b c h w"], kind: Literal["seg", "edge"]
) -> Float[Tensor, "b c h w"]:
    """Rendered labels as the label discriminator sees them beside the image.

    seg: probabilities of the classes, to go with the one-hot maps of real images. edge: the values.
    """
    return labels.softmax(dim=1) if kind == "seg" else labels


def reduce_nearest(
    maps: UInt8[Tensor, "b c r1 r2"] | Float[Tensor, "b c r1 r2"], size: tuple[int, int]
) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
    """Maps of another size (height, width): pixel i is pixel floor(i r / h) of the map.

    This is the published rule (torch's "nearest"), which takes the first pixel of each cell, not
    the middle one.
    """
    return F.interpolate(maps, size, mode="nearest")


def _smooth_l1(a: Tensor, b: Tensor, weight: Tensor | None) -> Tensor:
    distance = F.smooth_l1_loss(a, b, reduction="none").mean((1, 2, 3))  # [B]
    if weight is None:
        return distance.mean()
    return _ratio((distance * weight).sum(), weight.sum())


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``; 0 where nothing was counted, and then ``total`` is 0 too."""
    return total / (count + (count == 0))
