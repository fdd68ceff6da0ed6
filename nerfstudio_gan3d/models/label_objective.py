"""pix2pix3D's objective: what the image and the label map of each Scene add to the game."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.data.patches import PatchPlan
from nerfstudio_gan3d.losses.adversarial import generator_loss, hand_over
from nerfstudio_gan3d.losses.labels import (
    cross_view_loss,
    edge_reconstruction,
    image_reconstruction,
    label_channels,
    label_cross_entropy,
    named_class_weights,
)
from nerfstudio_gan3d.losses.perceptual import PerceptualDistance
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_images import as_label_map
from nerfstudio_gan3d.models.objective import Objective, image_and_raw
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.networks.convolution import input_gradients_only
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator, resize_antialias
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from nerfstudio_gan3d.rendering.renderer import render
from nerfstudio_gan3d.scene import Condition, Scene


@dataclass
class LabelLossConfig:
    """Weights of the losses that label maps bring; a weight of 0 leaves its term out,
    uncomputed."""

    adversarial: float = 0.1
    """Weight of the label discriminator's verdict, which sees image and labels together and trains
    labels and geometry alone (lambda_D_sem)."""
    adversarial_colours: bool = False
    """Let that verdict train colours, too, so that parts look like what their labels say. The
    published training does not."""
    image_l1: float = 0.0
    """Weight of the smooth L1 distance to the photograph, seen from its own pose."""
    lpips: float = 1.0
    """Weight of the perceptual distance (LPIPS, VGG-16) to it. Needs VGG-16's weights on this
    machine; 0 trains without."""
    lpips_weights: Path | None = None
    """File with VGG-16's weights as torchvision publishes them; None looks in the cache of
    torch.hub."""
    labels: float = 1.0
    """Weight of the distance to the label map, seen from its own pose: cross entropy (seg) or
    smooth L1 (edge)."""
    class_weights: Literal["none", "celeba", "celeba_squared"] = "none"
    """Weights of the classes in the cross entropy: equal, or those of CelebAMask-HQ's 19 classes,
    as they are or squared."""
    raw_only: bool = True
    """With super-resolution: take these distances at the rendered resolution only."""
    cross_view: float = 1e-4
    """Weight of cross-view consistency: labels seen from elsewhere, encoded anew, must give the
    same labels (lambda_cv)."""
    cross_view_interval: int = 1
    """Steps between its evaluations; the term is multiplied by it."""
    random_pose: float = 0.5
    """Share of images that are seen from the pose of another image, and judged only. With several
    cameras a Scene they are every other one."""


class LabelObjective(Objective):
    """The game of `Objective` with a second discriminator, for images together with their labels.

    Every Scene is made from the label map of a real image, so those that are seen from that image's
    own pose are also compared with it.

    Args:
        label_discriminator: sees image and label channels; None where its weight is 0.
        labels: what the label maps hold.
        label_losses: weights.
        others: see `Objective`.

    Attributes:
        perceptual: distance of images in [-1, 1], one value an image; `prepare` loads it where its
            weight is not 0.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        discriminator: DualDiscriminator,
        label_discriminator: DualDiscriminator | None,
        labels: LabelConfig,
        label_losses: LabelLossConfig,
        *others: Any,
    ) -> None:
        super().__init__(discriminator, *others)
        self.label_discriminator = label_discriminator
        self.labels = labels
        self.label_losses = label_losses
        self.perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
        weights = named_class_weights(label_losses.class_weights, labels.classes)
        self.register_buffer("class_weights", weights, persistent=False)

    def prepare(self) -> None:
        """Loads the network of LPIPS; raises ValueError where its weights are not on this
        machine."""
        if self.label_losses.lpips > 0:
            self.perceptual = PerceptualDistance(self.label_losses.lpips_weights)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        generator: Generator,
        images: Float[Tensor, "b 3 r r"],
        labels: Float[Tensor, "b 25"],
        fake_labels: Float[Tensor, "b 25"],
        step: int,
        world_size: int = 1,
        label_maps: UInt8[Tensor, "b 1 r r"] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses whose sum is the objective of all players, and figures to log.

        Args:
            label_maps: those of the real images.
            others: see `Objective.forward`.
        """
        assert label_maps is not None
        kimg = int(self.images_seen) / 1000
        generator_turn, discriminator_turn = self._at_turn(step)
        maps = encode_labels(label_maps, self.labels.kind, self.labels.classes)
        plan = self._patches(len(images), kimg, images.device)
        assert isinstance(plan, PatchPlan)
        views, own = self._views(labels, fake_labels)
        count = self.schedule.scenes_per_batch or len(images)
        condition = self._condition(generator, labels[:count], kimg)
        condition = replace(condition, camera_label=labels[:count], label_map=maps[:count])
        with torch.set_grad_enabled(generator_turn):
            latents = generator.map(condition)
            generator.update_averages(latents)
            scene = generator.scene(latents)
            cameras, resolution = plan.labels(views), self.neural_resolution(generator, kimg)
            fakes = generator.render(scene, cameras, resolution, jitter=True)
        out: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        inputs = [*self._inputs(fakes), *self._label_inputs(fakes)]
        leaves = [x.detach().requires_grad_() for x in inputs]
        colours, scores = leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]
        seen, seen_labels = self._prepare(colours, cameras, kimg)
        fake_logits, camera = self._judge_fakes(seen, seen_labels)
        told = colours
        if not self.label_losses.adversarial_colours:
            told = [colour.detach() for colour in colours]
        pairs = [
            torch.cat([colour, label_channels(score, self._kind)], dim=1)
            for colour, score in zip(told, scores, strict=True)
        ]
        fake_pairs = None
        if self.label_discriminator is not None:
            fake_pairs = self.label_discriminator.judge(
                *image_and_raw(pairs), cameras, dtype=self.dtype
            ).logits
        if generator_turn:
            loss = self._fool(fake_logits, camera, seen_labels, figures)
            if fake_pairs is not None:
                loss = loss + self.label_losses.adversarial * generator_loss(fake_pairs)
            with input_gradients_only():
                gradients = torch.autograd.grad(
                    loss, leaves, retain_graph=discriminator_turn, materialize_grads=True
                )
            out["generator"] = hand_over(loss, gradients, inputs)
            out |= self._volume_losses(scene, fakes, cameras, kimg, self._turns(step))
            rows = torch.arange(len(images), device=images.device) % count
            real = images[rows], label_maps[rows], maps[rows]
            out |= self._reconstruction(fakes, *real, plan, own)
            out |= self._consistency(generator, condition, scene, fake_labels[:count], kimg, step)
        if discriminator_turn:
            real_plan = self._patches(len(images), kimg, images.device)
            assert isinstance(real_plan, PatchPlan)
            real_cameras = real_plan.labels(labels)
            reals = self._reals(real_plan.images(images), fakes)
            seen, seen_labels = self._prepare(reals, real_cameras, kimg, real=True)
            judged = self.discriminator, fake_logits, seen, seen_labels
            real_logits = self._judge_reals("discriminator", *judged, step, out, figures)
            if self.label_discriminator is not None and fake_pairs is not None:
                pairs = self._real_pairs(reals, real_plan.images(maps))
                judged = self.label_discriminator, fake_pairs, pairs, real_cameras
                self._judge_reals("label_discriminator", *judged, step, out, figures)
            self._advance(real_logits.detach(), len(images) * world_size, figures)
        figures["logit_fake"] = fake_logits.mean()
        figures["transmittance"] = fakes.rendering.transmittance.mean()
        return out, {name: value.detach() for name, value in figures.items()}

    @property
    def _kind(self) -> Literal["seg", "edge"]:
        assert self.labels.kind != "none"
        return self.labels.kind

    def _views(
        self, labels: Float[Tensor, "b 25"], fake_labels: Float[Tensor, "b 25"]
    ) -> tuple[Float[Tensor, "b 25"], Bool[Tensor, " b"]]:
        """Cameras of a batch, and which of them are the label maps' own."""
        rows = torch.arange(len(labels), device=labels.device)
        count = self.schedule.scenes_per_batch or len(labels)
        if count == len(labels):
            own = torch.rand(len(labels), device=labels.device) >= self.label_losses.random_pose
        else:
            # Alternating, so that both kinds are found among crops and among whole images, and
            # every Scene is seen from its own pose and from another one.
            own = (rows + rows // count) % 2 == 0
        return torch.where(own[:, None], labels[rows % count], fake_labels), own

    def _label_inputs(self, fakes: Images) -> list[Tensor]:
        assert fakes.labels is not None
        assert fakes.raw_labels is not None
        return [fakes.labels, fakes.raw_labels] if self.discriminator.dual else [fakes.labels]

    def _real_pairs(self, reals: list[Tensor], maps: Tensor) -> list[Tensor]:
        return [
            torch.cat([real, resize_antialias(maps, (real.shape[2], real.shape[3]))], dim=1)
            for real in reals
        ]

    def _reconstruction(
        self,
        fakes: Images,
        images: Float[Tensor, "b 3 r r"],
        label_maps: UInt8[Tensor, "b 1 r r"],
        maps: Float[Tensor, "b c r r"],
        plan: PatchPlan,
        own: Bool[Tensor, " b"],
    ) -> dict[str, Tensor]:
        """Distances to the photograph and to its label map, of images seen from its own pose."""
        weights, out = self.label_losses, {}
        assert fakes.labels is not None
        assert fakes.raw_labels is not None
        images, ids, maps = plan.images(images), plan.maps(label_maps), plan.images(maps)
        pairs = [(fakes.raw, fakes.raw_labels)]
        if self.discriminator.dual and not weights.raw_only:
            pairs.append((fakes.image, fakes.labels))
        counted = own.to(images.dtype)
        # The losses are means over the images that count; the published ones, over all.
        strength = counted.mean()
        for image, labels in pairs:
            terms: dict[str, Tensor] = {}
            if weights.image_l1 > 0:
                terms["image_l1"] = weights.image_l1 * image_reconstruction(image, images, counted)
            if weights.lpips > 0:
                terms["lpips"] = weights.lpips * self._lpips(image, images, counted)
            if weights.labels > 0 and self._kind == "seg":
                found = label_cross_entropy(labels, ids, self.class_weights, counted)
                terms["label_map"] = weights.labels * found
            elif weights.labels > 0:
                terms["label_map"] = weights.labels * edge_reconstruction(labels, maps, counted)
            out = {name: out.get(name, 0) + value * strength for name, value in terms.items()}
        return out

    def _lpips(self, image: Tensor, images: Tensor, counted: Tensor) -> Tensor:
        if self.perceptual is None:
            raise ValueError("label_losses.lpips is above 0: call prepare() before training")
        # An accelerator waits here; VGG-16 for images that do not count would cost more.
        rows = counted.nonzero()[:, 0]
        if not len(rows):
            return 0 * image.sum()
        target = resize_antialias(images[rows], (image.shape[2], image.shape[3]))
        return self.perceptual(image[rows], target).mean()

    def _consistency(
        self,
        generator: Generator,
        condition: Condition,
        scene: Scene,
        others: Float[Tensor, "s 25"],
        kimg: float,
        step: int,
    ) -> dict[str, Tensor]:
        weight, interval = self.label_losses.cross_view, self.label_losses.cross_view_interval
        if weight <= 0 or self._turns(step) % interval:
            return {}
        resolution = self.neural_resolution(generator, kimg)
        found = cross_view(generator, condition, scene, others, resolution, jitter=True)
        return {"cross_view": weight * interval * found}


def cross_view(
    generator: Generator,
    condition: Condition,
    scene: Scene,
    others: Float[Tensor, "s 25"],
    resolution: int | None = None,
    jitter: bool = False,
) -> Float[Tensor, ""]:
    """Smooth L1 distance of two renderings of labels from the label maps' own pose.

    One is of the Scene. The other is of the Scene that is made from what the first one's labels
    look like from ``others``. Only the second one gets gradients (pix2pix3D, section 3.2). What is
    compared are raw labels; super-resolution is needed for the new label map alone.
    """
    pose = condition.camera_label
    assert pose is not None
    assert generator.labels is not None
    with torch.no_grad():
        seen = _labels(generator, scene, others, resolution, jitter, raw=False)
        wanted = _labels(generator, scene, pose, resolution, jitter, raw=True)
    side = generator.image_resolution
    if seen.shape[2] != side:
        seen = torch.nn.functional.interpolate(seen, (side, side), mode="bilinear")
    anew = replace(condition, label_map=as_label_map(seen, generator.labels))
    if generator.labels.encode_pose:
        anew = replace(anew, camera_label=others)
    made = generator.scene(generator.map(anew))
    return cross_view_loss(_labels(generator, made, pose, resolution, jitter, raw=True), wanted)


def _labels(
    generator: Generator,
    scene: Scene,
    poses: Float[Tensor, "s 25"],
    resolution: int | None,
    jitter: bool,
    raw: bool,
) -> Float[Tensor, "s c h w"]:
    """Label images as `Generator.render` makes them, one camera a Scene, and no colours."""
    side = resolution or generator.neural_resolution
    rays = pixel_rays(poses, side, side)
    found = render(scene, *rays, generator.settings, "draw" if jitter else None)
    features, rendered = generator.label_images(found, side, side)
    assert features is not None
    assert rendered is not None
    upsampler = generator.superresolution_labels
    if upsampler is None:
        return rendered
    # The official raw image is what the first block writes into it, if that keeps the size.
    mutated = generator.conventions == "reference" and side == upsampler.input_size
    if raw and not (mutated and not upsampler.block(0).upsample):
        return rendered
    assert scene.style is not None
    noise = generator.superresolution_noise
    out = upsampler(features, rendered, scene.style[:, None], noise)
    return out.mutated_raw if raw else out.image
