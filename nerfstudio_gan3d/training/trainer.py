"""nerfstudio's trainer for two players, with checkpoints that resume exactly."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import comms, profiler, writer
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.utils.writer import EventName, TimeWriter
from torch import Tensor

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, remove_others, save_atomic
from nerfstudio_gan3d.training.exits import Interrupts, user_errors
from nerfstudio_gan3d.training.memory import keep_freed_memory
from nerfstudio_gan3d.training.optimizers import LrSchedule
from nerfstudio_gan3d.training.progress import Progress, ProgressLine, flush_writers, put_scalars
from nerfstudio_gan3d.training.resume import (
    adopt_networks,
    find_checkpoint,
    own_random_state,
    random_state,
    restore,
    restore_random_state,
    training_state,
)
from nerfstudio_gan3d.training.sync import (
    Agreement,
    Decision,
    average,
    average_gradients,
    broadcast_module,
    repair_gradients,
    running_means,
)
from nerfstudio_gan3d.viewer.settings import KeepsViewerSettings

if TYPE_CHECKING:
    from nerfstudio_gan3d.training.pipeline import GanPipeline


@dataclass
class GanTrainerConfig(KeepsViewerSettings, TrainerConfig):
    """Training of a GAN. `max_num_iterations` is the total, whether a run is resumed or not."""

    _target: type = field(default_factory=lambda: GanTrainer)
    max_minutes: float = 0.0
    """Time budget of training in minutes, set-up and pauses not counted; training ends at whichever
    comes first, this or max_num_iterations. 0 sets no limit."""
    lr_decay_start: float = 1.0
    """Share of training (of iterations or of the time budget, the larger) at which the learning
    rates begin to fall. 1 keeps them constant."""
    lr_final_factor: float = 0.1
    """Factor on the learning rates that is reached at the end, along half a cosine."""
    lr_warmup: float = 0.0
    """Share of training at which the learning rates have risen, along half a cosine, from
    lr_warmup_factor. 0 starts with them."""
    lr_warmup_factor: float = 0.04
    """Factor on the learning rates at the very start, where they have to rise."""
    beta1_cycle: tuple[float, float] | None = None
    """Adam's decay of the first moment where the learning rate is lowest, and where it is highest:
    it goes the opposite way (torch's OneCycleLR). None leaves it alone."""
    progress: Literal["line", "table", "none"] = "line"
    """How progress is shown: one line with ETA, nerfstudio's table, or not at all."""


class GanTrainer(Trainer):
    """Trains a `GanPipeline`.

    Departs from nerfstudio's trainer where that would lose or change something: checkpoints are
    written atomically and hold all that decides how training goes on; a resumed run continues to
    the same total; SIGINT and SIGTERM finish the step, save, and end with 130 or 143; gradients
    that are not finite are repaired; under torch.distributed gradients are averaged in one
    all-reduce for each optimizer.
    """

    config: GanTrainerConfig
    pipeline: GanPipeline  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: GanTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank, world_size)
        self.stop_training = False
        self._elapsed = 0.0
        self._saved_step = -1
        self._random_state: Mapping[str, Any] | None = None
        self._interrupts = Interrupts()
        self._agreement: Agreement | None = None
        self._line: ProgressLine | None = None
        self._base_lr: dict[str, list[float]] = {}
        self._repaired: Tensor | None = None
        self._networks: str | None = None
        self._found: tuple[Path, dict[str, Any]] | None = None
        if world_size > 1:
            # The first process would stay with its viewer while the others wait for it.
            config.viewer.quit_on_train_completion = True
            if not comms.is_main_process():
                # Event writers exist on the first process alone, so this means: no viewer here.
                config.vis = "tensorboard"

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Builds everything; what the user got wrong ends the process in a sentence and code 2."""
        config = self.config
        with user_errors(self.shutdown):
            validate(config)
            self._found = find_checkpoint(config)
            self._networks = adopt_networks(config, self._found)
            self._progress = Progress(config.max_num_iterations, config.max_minutes * 60)
            logging = config.logging
            if config.progress != "table":
                local = replace(logging.local_writer, enable=False)
                config.logging = replace(logging, local_writer=local)
            # ns-train has made it by now; the viewer's log would fail without it elsewhere.
            self.base_dir.mkdir(parents=True, exist_ok=True)
            super().setup(test_mode)
            config.logging = logging
        if comms.is_main_process():
            # nerfstudio saved config.yml before the data set was opened. Only now does it hold what
            # was fitted to the cameras, and a path that commands can follow from whatever folder.
            config.output_dir = config.output_dir.absolute()
            config.save_config()
        if config.progress == "line" and comms.is_main_process():
            self._line = ProgressLine(self._progress, CONSOLE)
        if self.world_size > 1:
            broadcast_module(self.pipeline)
            self._agreement = Agreement()

    def setup_optimizers(self) -> Optimizers:
        """The optimizers; their learning rates are those that the decay starts from."""
        optimizers = super().setup_optimizers()
        self._base_lr = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in optimizers.optimizers.items()
        }
        return optimizers

    def train(self) -> None:
        """Trains until iterations or time are used up, or a signal asks to stop."""
        data = self.pipeline.datamanager
        if comms.is_main_process() and hasattr(data, "train_dataparser_outputs"):
            data.train_dataparser_outputs.save_dataparser_transform(
                self.base_dir / "dataparser_transforms.json"
            )
        self._init_viewer_state()
        if self._random_state is not None:
            # Only now: building networks and viewer has drawn random numbers, too.
            restore_random_state(self._random_state, self.device)
        self.stop_training = False
        with Interrupts() as self._interrupts:
            with user_errors(self._save_and_shut_down, DataError):
                # Gradients through an opaque foreground become denormal, which CPUs are slow at.
                torch.set_flush_denormal(True)
                if self.device == "cpu":
                    keep_freed_memory()
                try:
                    self._run()
                finally:
                    torch.set_flush_denormal(False)
                    if self._line is not None:
                        self._line.close()
            if self._interrupts.received:
                CONSOLE.log(f"A signal asked to stop; saving after iteration {self.step}")
                self._save_and_shut_down()
                if self.world_size > 1:
                    # torchrun ends the others as soon as one has left, saved or not.
                    comms.synchronize()
                raise SystemExit(self._interrupts.exit_code)
            self._after_train()
        flush_writers()

    def _run(self) -> None:
        step, last = self._start_step, time.monotonic()
        # The last step that is complete, as a checkpoint is named after it.
        self.step = step - 1
        self._progress.mark(step, self._elapsed, self._images_seen())
        with TimeWriter(writer, EventName.TOTAL_TRAIN_TIME):
            while True:
                now = time.monotonic()
                paused = self.training_state == "paused"
                elapsed = self._elapsed + (0 if paused else now - last)
                last = now
                own = Decision(self._interrupts.received, self.stop_training, paused, elapsed)
                common = own if self._agreement is None else self._agreement.agree(own)
                self._elapsed = common.elapsed
                # Kept as agreed, so that all processes leave in the same way.
                self._interrupts.received = common.signal
                if common.signal or common.stop or self._progress.over(step, self._elapsed):
                    return
                if common.paused:
                    time.sleep(0.02)
                    continue
                self._step(step)
                step += 1

    def _step(self, step: int) -> None:
        """One iteration with all that belongs to it: callbacks, log, evaluation, checkpoint."""
        self._set_learning_rates(step)
        share = self._progress.share(step, self._elapsed)
        self.pipeline.model.set_training_share(share)
        timer = TimeWriter(writer, EventName.ITER_TRAIN_TIME, step=step)
        with self.train_lock, timer:
            self.pipeline.train()
            self._run_callbacks(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
            loss, losses, figures = self.train_iteration(step)
            self._run_callbacks(step, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
        self.step = step
        if comms.is_main_process():
            self._show(step, timer.duration, losses)
            if step_check(step, self.config.logging.steps_per_log, run_at_zero=True):
                put_scalars(step, loss, losses, figures, self.optimizers, self._progress)
        self._update_viewer_state(step)
        if self.pipeline.datamanager.eval_dataset:
            with self.train_lock:
                self.eval_iteration(step)
        if step_check(step, self.config.steps_per_save):
            self.save_checkpoint(step)
        writer.write_out_storage()

    def _run_callbacks(self, step: int, location: TrainingCallbackLocation) -> None:
        for callback in self.callbacks:
            callback.run_callback_at_location(step, location=location)

    def _set_learning_rates(self, step: int) -> None:
        config = self.config
        if config.lr_decay_start >= 1 and config.lr_warmup <= 0:
            return
        share = self._progress.share(step, self._elapsed)
        way = LrSchedule(
            config.lr_decay_start,
            config.lr_final_factor,
            config.lr_warmup,
            config.lr_warmup_factor,
        )
        factor = way.factor(share)
        for name, optimizer in self.optimizers.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base_lr[name], strict=True):
                group["lr"] = base * factor
                if config.beta1_cycle is not None and "betas" in group:
                    low, high = config.beta1_cycle
                    group["betas"] = (low + (high - low) * way.height(share), group["betas"][1])

    @profiler.time_function
    def train_iteration(self, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """One pass for both players, and a step of each optimizer that has gradients.

        Returns the sum of the losses, the losses, and figures to log.
        """
        every = self.gradient_accumulation_steps
        groups = self.optimizers.parameters
        self.optimizers.zero_grad_some([name for name in groups if step % every[name] == 0])
        _, losses, figures = self.pipeline.get_train_loss_dict(step=step)
        loss = functools.reduce(torch.add, losses.values())
        loss.backward()
        for name, parameters in groups.items():
            has_gradients = any(parameter.grad is not None for parameter in parameters)
            if step % every[name] != every[name] - 1 or not has_gradients:
                continue
            norm, broken = repair_gradients(parameters)
            figures[f"gradient_norm/{name}"] = norm
            self._repaired = broken.long() + (0 if self._repaired is None else self._repaired)
            figures["repaired_gradients"] = self._repaired
            if self.world_size > 1:
                average_gradients(parameters)
            limit = self.config.optimizers[name]["optimizer"].max_norm
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(parameters, limit)
            self.optimizers.optimizers[name].step()
        if self.world_size > 1:
            average(running_means(self.pipeline.model.generator))
        if self.config.log_gradients:
            for name, parameter in self.pipeline.model.named_parameters():
                if parameter.grad is not None:
                    figures[f"Gradients/{name}"] = parameter.grad.norm()
        self.optimizers.scheduler_step_all(step)
        return loss.detach(), {k: v.detach() for k, v in losses.items()}, figures

    def _show(self, step: int, seconds: float, losses: dict[str, Tensor]) -> None:
        """The line for the user, and the speed that the viewer chooses its pace by."""
        if step > self._start_step + 1:
            # The first two steps are slower than all others.
            rays = self.world_size * self.pipeline.datamanager.get_train_rays_per_batch()
            writer.put_time(EventName.TRAIN_RAYS_PER_SEC.value, rays / max(0.001, seconds), step)
        last = step + 1 == self._progress.iterations
        shown = self._line is not None and (self._line.due or last)
        if shown or step_check(step, self.config.logging.steps_per_log):
            self._progress.mark(step + 1, self._elapsed + seconds, self._images_seen())
        if self._line is not None and shown:
            if self._repaired is not None and self._repaired:
                losses = losses | {"repaired gradients": self._repaired}
            self._line.write(step + 1, self._images_seen(), losses)

    def _images_seen(self) -> int:
        return int(self.pipeline.model.images_seen)

    def eval_iteration(self, step: int) -> None:
        """Evaluates on the first process; the others would only repeat it."""
        if comms.is_main_process():
            super().eval_iteration(step)

    def save_checkpoint(self, step: int) -> None:
        """Saves after ``step``, then deletes older checkpoints if only the latest is wanted.

        All processes call it: each contributes the state of its random numbers.
        """
        if step < 0 or step == self._saved_step:
            return
        self._saved_step = step
        own = random_state(self.device)
        states = [own] if self._agreement is None else self._agreement.gather(own)
        if not comms.is_main_process():
            return
        path = checkpoint_path(self.checkpoint_dir, step)
        state = training_state(
            step, self.pipeline, self.optimizers, states, self._elapsed, self._networks
        )
        save_atomic(state, path)
        if self.config.save_only_latest_checkpoint:
            remove_others(path)

    def _load_checkpoint(self) -> None:
        """Continues from the configured checkpoint, if any."""
        if self._found is None:
            return
        path, state = self._found
        self._found = None
        restore(path, state, self.pipeline, self.optimizers, self.config.load_scheduler)
        self._start_step = state["step"] + 1
        self._elapsed = float(state.get("elapsed", 0.0))
        seed, rank = self.config.machine.seed, comms.get_rank()
        self._random_state = own_random_state(state, rank, seed, self.device)
        CONSOLE.log(f"Continuing after iteration {state['step']} of {path}")

    def _save_and_shut_down(self) -> None:
        if self.world_size == 1 or self._interrupts.received:
            # Saving is a common act, which processes that do not share an error cannot join.
            self.save_checkpoint(self.step)
        self.shutdown()
        flush_writers()

    def _train_complete_viewer(self) -> None:
        """Keeps the viewer open after training, until a signal ends it."""
        if self.viewer_state is None:
            return
        self.training_state = "completed"
        self.viewer_state.training_complete()
        CONSOLE.print("Training is complete; the viewer stays open. Press ctrl+c to quit.")
        while not self._interrupts.received:
            time.sleep(0.05)
        self.shutdown()


def validate(config: GanTrainerConfig) -> None:
    """Raises ValueError, naming the option, for settings that training cannot work with."""
    if config.max_num_iterations < 1:
        raise ValueError(f"max_num_iterations = {config.max_num_iterations}: give at least 1")
    if config.max_minutes < 0:
        raise ValueError(f"max_minutes = {config.max_minutes}: give 0 (no limit) or more")
    for name in ("lr_decay_start", "lr_final_factor", "lr_warmup", "lr_warmup_factor"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} = {getattr(config, name)}: it must lie in 0..1")
    changes = config.lr_decay_start < 1 or config.lr_warmup > 0
    if config.lr_warmup > config.lr_decay_start:
        raise ValueError(
            f"lr_warmup = {config.lr_warmup} and lr_decay_start = {config.lr_decay_start}: the "
            "learning rate must have risen before it falls"
        )
    if config.beta1_cycle is not None:
        if not all(0 <= beta < 1 for beta in config.beta1_cycle):
            raise ValueError(f"beta1_cycle = {config.beta1_cycle}: both must lie in 0 <= beta < 1")
        if not changes:
            raise ValueError(
                f"beta1_cycle = {config.beta1_cycle}: it follows the learning rate, which is "
                "constant; set lr_warmup or lr_decay_start, or leave it out"
            )
    if config.mixed_precision or config.use_grad_scaler:
        raise ValueError(
            "mixed_precision and use_grad_scaler must be False: R1 needs full precision"
        )
    if config.machine.device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "machine.device_type = cuda, but torch finds no CUDA device; give "
            "--machine.device-type cpu"
        )
    if config.load_dir is not None and config.load_checkpoint is not None:
        raise ValueError("load_dir and load_checkpoint: give one of them")
    scheduled = [name for name, group in config.optimizers.items() if group.get("scheduler")]
    if scheduled and changes:
        raise ValueError(
            f"optimizers.{scheduled[0]}.scheduler and lr_decay_start = {config.lr_decay_start} "
            f"with lr_warmup = {config.lr_warmup} both set the learning rate; use one of them"
        )
