"""3DGEN small enough to be rendered many times in a test, with shapes that differ."""

from __future__ import annotations

import torch

from nerfstudio_gan3d.fields.decoder import ShapeDecoder
from nerfstudio_gan3d.fields.triplane import TriPlane
from nerfstudio_gan3d.models.gan import GanModel


@torch.no_grad()
def with_shapes(model: GanModel) -> GanModel:
    """The untrained model (tri-planes), of which the shape code bends the initial sphere; its
    surface is as hard as at the end of training."""
    generator = model.generator_ema
    assert isinstance(generator.field, TriPlane)
    decoder = generator.field.decoder
    assert isinstance(decoder, ShapeDecoder)
    # Softplus lies before this layer, so that weights of mean 0 neither grow nor shrink the sphere.
    weight = decoder.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    decoder.out.weight.copy_(weight - weight.mean())
    generator.set_training_share(1.0)
    return model
