"""BallGAN's and EG3D's objective: one generator pass a step serves both players."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.data.augment import Augment, AugmentController
from nerfstudio_gan3d.data.patches import PatchPlan, ScaledPatches, smallest_scale
from nerfstudio_gan3d.losses.adversarial import (
    camera_loss,
    discriminator_loss,
    generator_loss,
    hand_over,
    r1_penalty,
)
from nerfstudio_gan3d.losses.geometry import background_loss, density_variation, distortion_loss
from nerfstudio_gan3d.losses.surface import normal_smoothness
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.networks.blur import gaussian_blur
from nerfstudio_gan3d.networks.convolution import input_gradients_only
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator, resize_antialias
from nerfstudio_gan3d.networks.patch_discriminator import PatchDiscriminator
from nerfstudio_gan3d.rendering.shared import fold_rays
from nerfstudio_gan3d.scene import Condition, Scene


class Objective(nn.Module):
    """The discriminator, its augmentation, and the losses of a training step.

    Buffers hold all that decides how training goes on (images seen, augmentation), so that a
    checkpoint resumes exactly.
    """

    images_seen: Tensor

    def __init__(
        self,
        discriminator: DualDiscriminator | PatchDiscriminator,
        losses: LossConfig,
        schedule: ScheduleConfig,
        ada: AdaConfig,
        image_resolution: int,
        patch_resolution: int,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.losses = losses
        self.schedule = schedule
        self.image_resolution = image_resolution
        self.patch_resolution = patch_resolution
        self.dtype = torch.float32
        self.augment: Augment | None = None
        self.controller: AugmentController | None = None
        if ada.mode != "none":
            self.augment = Augment(ada.transforms)
            self.augment.p.fill_(ada.initial_p)
        if ada.mode == "adaptive":
            self.controller = AugmentController(
                ada.target, ada.interval, ada.kimg, ada.max_p, ada.initial_p
            )
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self) -> None:
        """Loads what training alone needs; raises ValueError where it is not on this machine."""

    def forward(
        self,
        generator: Generator,
        images: Float[Tensor, "b 3 r r"],
        labels: Float[Tensor, "b 25"],
        fake_labels: Float[Tensor, "b 25"],
        step: int,
        world_size: int = 1,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses whose sum is the objective of both players, and figures to log.

        Args:
            images, labels: real images in [-1, 1] at the final resolution, and their cameras.
            fake_labels: cameras that generated images are seen from.
            step: counts from 0; decides which lazy terms are due.
            world_size: processes that take part, each with a batch of this size.
        """
        kimg = int(self.images_seen) / 1000
        generator_turn, discriminator_turn = self._at_turn(step)
        plan = self._patches(len(images), kimg, images.device)
        fake_plan = self._patches(len(images), kimg, images.device)
        with torch.set_grad_enabled(generator_turn):
            _, scene, fakes = self._fakes(generator, fake_plan.labels(fake_labels), kimg)
        out: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        leaves = [x.detach().requires_grad_() for x in self._inputs(fakes)]
        seen, seen_labels = self._prepare(leaves, fake_plan.labels(fake_labels), kimg)
        fake_logits, camera = self._judge_fakes(seen, seen_labels)
        if generator_turn:
            loss = self._fool(fake_logits, camera, seen_labels, figures)
            with input_gradients_only():
                gradients = torch.autograd.grad(loss, leaves, retain_graph=discriminator_turn)
            out["generator"] = hand_over(loss, gradients, self._inputs(fakes))
            cameras = fake_plan.labels(fake_labels)
            out |= self._volume_losses(scene, fakes, cameras, kimg, self._turns(step))
        if discriminator_turn:
            reals = self._reals(plan.images(images), fakes)
            seen, seen_labels = self._prepare(reals, plan.labels(labels), kimg, real=True)
            judged = self.discriminator, fake_logits, seen, seen_labels
            real_logits = self._judge_reals("discriminator", *judged, step, out, figures)
            self._advance(real_logits.detach(), len(images) * world_size, figures)
        figures["logit_fake"] = fake_logits.mean()
        figures["transmittance"] = fakes.rendering.transmittance.mean()
        return out, {name: value.detach() for name, value in figures.items()}

    def _at_turn(self, step: int) -> tuple[bool, bool]:
        """Whether generator and discriminator learn from a step."""
        if self.schedule.update == "simultaneous":
            return True, True
        return step % 2 == 1, step % 2 == 0

    def _judge_fakes(self, seen: list[Tensor], cameras: Tensor) -> tuple[Tensor, Tensor | None]:
        judgement = self.discriminator.judge(*image_and_raw(seen), cameras, dtype=self.dtype)
        return judgement.logits, judgement.camera

    def _fool(
        self, logits: Tensor, camera: Tensor | None, cameras: Tensor, figures: dict[str, Tensor]
    ) -> Tensor:
        """The generator's loss: fakes pass for real, and are seen from where they were rendered."""
        loss = generator_loss(logits)
        if camera is not None:
            figures["camera_fake"] = camera_loss(camera, cameras)
            loss = loss + self.losses.camera * figures["camera_fake"]
        return loss

    def _judge_reals(
        self,
        name: str,
        judge: DualDiscriminator | PatchDiscriminator,
        fake_logits: Tensor,
        seen: list[Tensor],
        cameras: Tensor,
        step: int,
        out: dict[str, Tensor],
        figures: dict[str, Tensor],
    ) -> Tensor:
        """A discriminator's logits of real images; adds its losses, the first one as ``name``."""
        penalised = self._turns(step) % self.losses.r1_interval == 0
        penalised = penalised and self.losses.r1_gamma > 0
        if penalised:
            # R1 is taken at what D sees, so no augmentation has to be differentiated twice.
            seen = [x.detach().requires_grad_() for x in seen]
        elsewhere = cameras.roll(1, 0) if self.losses.wrong_camera > 0 else None
        dtype = torch.float32 if penalised else self.dtype
        logits, camera, wrong = judge.judge(*image_and_raw(seen), cameras, elsewhere, dtype)
        out[name] = discriminator_loss(fake_logits, logits)
        if wrong is not None:
            # Where the neighbour has the same camera, it is not a wrong one.
            differs = (cameras != elsewhere).any(1, keepdim=True)
            loss = self.losses.wrong_camera * (softplus(wrong) * differs).mean()
            out["wrong_camera"] = out.get("wrong_camera", 0) + loss
        if camera is not None:
            figures["camera_real"] = camera_loss(camera, cameras)
            out["camera"] = self.losses.camera * figures["camera_real"]
        if penalised:
            penalty = r1_penalty(logits, seen).mean()
            weight = self.losses.r1_gamma / 2 * self.losses.r1_interval
            out["r1"] = out.get("r1", 0) + weight * penalty
            figures["r1_penalty"] = figures.get("r1_penalty", 0) + penalty
        return logits

    def _turns(self, step: int) -> int:
        """How often the player at turn has played before ``step``."""
        return step // 2 if self.schedule.update == "alternating" else step

    def _patches(self, batch: int, kimg: float, device: torch.device) -> PatchPlan | ScaledPatches:
        schedule = self.schedule
        if schedule.patches == "scales":
            bounds = schedule.scale_start, schedule.scale_end, schedule.scale_kimg
            smallest = smallest_scale(kimg, *bounds)
            sides = self.image_resolution, self.patch_resolution
            return ScaledPatches.draw(batch, smallest, *sides, device)
        share = self.schedule.crop_share if kimg >= self.schedule.crop_start_kimg else 0.0
        return PatchPlan.draw(batch, share, self.image_resolution, self.patch_resolution, device)

    def _fakes(
        self, generator: Generator, labels: Float[Tensor, "b 25"], kimg: float
    ) -> tuple[Latents, Scene, Images]:
        first = labels[: self.schedule.scenes_per_batch or len(labels)]
        latents = generator.map(self._condition(generator, first, kimg))
        generator.update_averages(latents)
        latents = self._mix_styles(generator, latents, first, kimg)
        scene = generator.scene(latents)
        resolution = self.neural_resolution(generator, kimg)
        return latents, scene, generator.render(scene, labels, resolution, jitter=True)

    def neural_resolution(self, generator: Generator, kimg: float) -> int:
        """Side of the rendered image at this time of training."""
        if generator.superresolution is None:
            return self.patch_resolution
        start, end = generator.neural_resolution, self.schedule.neural_resolution_final
        if not end:
            return start
        share = min(kimg / max(self.schedule.neural_resolution_fade_kimg, 1e-9), 1.0)
        return round(start + (end - start) * share)

    def _condition(
        self, generator: Generator, labels: Float[Tensor, "s 25"], kimg: float
    ) -> Condition:
        count, device = len(labels), labels.device
        z = torch.randn(count, generator.latent.z_dim, device=device)
        behind = torch.randn_like(z) if generator.background is not None else None
        pose = None
        if generator.latent.pose_conditioning:
            # Told its own pose every time, a generator would paint views instead of building
            # things.
            fade = min(kimg / max(self.schedule.pose_swap_fade_kimg, 1e-9), 1.0)
            swap = 1 + (self.schedule.pose_swap_final - 1) * fade
            swapped = torch.rand(count, 1, device=device) < swap
            pose = torch.where(swapped, labels.roll(1, 0), labels)
        return Condition(z, behind, pose)

    def _mix_styles(
        self, generator: Generator, latents: Latents, labels: Float[Tensor, "s 25"], kimg: float
    ) -> Latents:
        if self.schedule.style_mixing <= 0:
            return latents
        ws = latents.foreground
        count, layers = ws.shape[:2]
        other = generator.map(self._condition(generator, labels, kimg)).foreground
        cutoff = torch.randint(1, layers, (count, 1), device=ws.device)
        mixed = torch.rand(count, 1, device=ws.device) < self.schedule.style_mixing
        take = mixed & (torch.arange(layers, device=ws.device) >= cutoff)
        return latents._replace(foreground=torch.where(take[..., None], other, ws))

    def _volume_losses(
        self, scene: Scene, fakes: Images, cameras: Float[Tensor, "b 25"], kimg: float, turn: int
    ) -> dict[str, Tensor]:
        losses, out = self.losses, {}
        rendering = fakes.rendering
        if losses.background > 0:
            weight = losses.background * _warm(kimg, losses.background_warmup_kimg)
            out["background"] = weight * background_loss(rendering.transmittance)
        if losses.foreground > 0:
            weight = losses.foreground * _warm(kimg, losses.foreground_warmup_kimg)
            # Distances are measured in diagonals of the box, so that the weight suits any scale.
            edges = rendering.edges / math.dist(scene.bounds.box, (0, 0, 0))
            out["foreground"] = weight * distortion_loss(rendering.weights, edges).mean()
        interval = losses.density_variation_interval
        if losses.density_variation > 0 and turn % interval == 0:
            variation = density_variation(
                scene.field,
                scene.batch_size,
                scene.bounds.box,
                losses.density_variation_points,
                losses.density_variation_distance,
                rendering.features.device,
            )
            out["density_variation"] = losses.density_variation * interval * variation
        if losses.normal_smoothness > 0:
            out["normal_smoothness"] = self._normal_smoothness(scene, fakes, cameras)
        return out

    def _normal_smoothness(
        self, scene: Scene, fakes: Images, cameras: Float[Tensor, "b 25"]
    ) -> Float[Tensor, ""]:
        """Weighted smoothness of the surface at some of the places that rays have hit."""
        surface = fakes.rendering.surface
        if surface is None:
            raise ValueError(
                f"model.losses.normal_smoothness = {self.losses.normal_smoothness}: a density has "
                "no surface; set it to 0, or model.field.volume to occupancy"
            )
        height, width = fakes.raw.shape[2:]
        origins, directions = (
            fold_rays(rays, scene.batch_size) for rays in pixel_rays(cameras, height, width)
        )
        surface = fold_rays(surface, scene.batch_size)
        count = min(self.losses.normal_points, surface.shape[1])
        # Those that hit come first, in random order.
        order = surface.isfinite().float() + torch.rand_like(surface)
        chosen = order.squeeze(-1).topk(count, dim=1).indices[..., None]
        distance = torch.gather(surface, 1, chosen)
        valid = distance.isfinite()
        chosen = chosen.expand(-1, -1, 3)
        points = torch.gather(origins, 1, chosen) + torch.gather(directions, 1, chosen) * (
            torch.where(valid, distance, 0)
        )
        exact = isinstance(scene.field, BoundField) and scene.field.twice_differentiable
        half = max(scene.bounds.box) / 2
        loss = normal_smoothness(
            scene,
            points,
            valid.squeeze(-1),
            self.losses.normal_distance * half,
            None if exact else self.losses.normal_step * half,
        )
        return self.losses.normal_smoothness * loss

    def _inputs(self, fakes: Images) -> list[Tensor]:
        return [fakes.image, fakes.raw] if self.discriminator.dual else [fakes.image]

    def _reals(self, images: Tensor, fakes: Images) -> list[Tensor]:
        if not self.discriminator.dual:
            return [images]
        height, width = fakes.raw.shape[2:]
        return [images, resize_antialias(images, (height, width))]

    def _prepare(
        self, inputs: list[Tensor], labels: Tensor, kimg: float, real: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Blur and augmentation: what the discriminator sees.

        Of reals the raw image is blurred, too, and of fakes it is not (EG3D): what is rendered
        learns coarse shapes first.
        """
        fade = self.schedule.blur_fade_kimg
        sigma = self.schedule.blur_sigma * max(1 - kimg / fade, 0) if fade > 0 else 0.0
        if sigma > 0.1:
            blurred = len(inputs) if real else 1
            inputs = [gaussian_blur(x, sigma) for x in inputs[:blurred]] + inputs[blurred:]
        if self.augment is None:
            return inputs, labels
        image = inputs[0]
        if len(inputs) == 1:
            image, labels = self.augment(image, labels)
            return [image], labels
        height, width = inputs[1].shape[2:]
        raw = resize_antialias(inputs[1], (image.shape[2], image.shape[3]))
        pair = torch.cat([image, raw], dim=1)
        pair, labels = self.augment(pair, labels)
        return [pair[:, :3], resize_antialias(pair[:, 3:], (height, width))], labels

    def _advance(self, real_logits: Tensor, images: int, figures: dict[str, Tensor]) -> None:
        self.images_seen += images
        figures["logit_real"] = real_logits.mean()
        figures["sign_real"] = real_logits.sign().mean()
        if self.augment is None:
            return
        if self.controller is not None:
            self.controller.accumulate(real_logits)
            self.augment.p.copy_(self.controller.update(images))
        figures["augment_p"] = self.augment.p.clone()


def image_and_raw(inputs: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Image and raw image as a discriminator takes them; None for one that sees no raw images."""
    return inputs[0], inputs[1] if len(inputs) > 1 else None


def _warm(kimg: float, warmup: float) -> float:
    return 1.0 if warmup <= 0 else min(kimg / warmup, 1.0)
