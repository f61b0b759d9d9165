"""The training loop: model, optimiser, schedule, averaged weights and data, on one process or several."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import Subset

from sait_deploy.errors import ImageError, InvalidArgument, MissingDependency, TrainingError, first_line
from sait_deploy.models.devices import using_device
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import OperatingPoint
from sait_deploy.training.data import TrainingData, loader_of
from sait_deploy.training.log import LogEntry
from sait_deploy.training.losses import Losses, losses_of
from sait_deploy.training.meter import Meter, Sums
from sait_deploy.training.options import Amp, TrainOptions
from sait_deploy.training.recipe import make_mixup, make_optimizer, make_schedule, set_drop_path
from sait_deploy.training.state import ANEW, TrainingState, check_optimizer
from sait_deploy.training.steps import check_alternates, check_batches, point_in_step
from sait_deploy.training.student import Student
from sait_deploy.training.teacher import Teacher

try:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, patch_environment
except ImportError:
    raise MissingDependency("accelerate", "training", extra="train") from None

_REPORT_EVERY: Final = 20.0
"""Seconds between lines about a running epoch."""

_VALIDATION_BATCH: Final = 64


class TrainingLoop:
    """A training in progress.

    Args:
        vit: the model; its parameters are changed.
        teacher: the model to learn from; None to learn from the labels alone.
        data: the images to learn from and those to validate on.
        options: the recipe.
        prune_at: block to prune in.

    Raises:
        InvalidArgument: timm has no such optimiser or schedule, the device has no such precision, processes divide
            more than the images of a step between them, or the training has no step or no sparse one.
    """

    def __init__(
        self, vit: nn.Module, teacher: Teacher | None, data: TrainingData, options: TrainOptions, prune_at: int
    ) -> None:
        recipe = options.recipe
        self._options, self._data, self._teacher = options, data, teacher
        self._accelerator = _accelerator(recipe.amp, options.device)
        check_batches(data.images, recipe.batch, self.processes)
        device = self._accelerator.device
        set_drop_path(vit, recipe.drop_path)
        self._vit = vit.to(device).requires_grad_(True)
        self._student = Student(self._vit, options.score, prune_at)
        loader = loader_of(data.train, recipe.batch, options.data.workers, data.sampler)
        self._loader_seed = loader.generator
        optimizer = make_optimizer(self._vit, recipe)
        self._model, self._optimizer, self._loader = self._accelerator.prepare(self._student, optimizer, loader)
        check_alternates(recipe.epochs, len(self._loader), options.alternation, options.masses)
        self._schedule = make_schedule(optimizer, recipe, len(self._loader))
        self._average = None
        if recipe.ema_decay is not None:
            self._average = ModelEmaV3(self._vit, decay=recipe.ema_decay, use_warmup=True)
        self._mixup = make_mixup(recipe, data.classes, data.images)
        if teacher is not None:
            teacher.to(device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self._accelerator.is_main_process)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self._accelerator.num_processes)

    def wait(self) -> None:
        """Waits for all processes."""
        self._accelerator.wait_for_everyone()

    def state(self, identity: dict[str, str], epochs: int, log: tuple[LogEntry, ...]) -> TrainingState:
        """Returns the state to resume from."""
        average = None if self._average is None else dict(self._average.module.state_dict())
        scaler = self._accelerator.scaler
        return TrainingState(
            identity=identity,
            epochs=epochs,
            model=dict(self._vit.state_dict()),
            average=average,
            optimizer=self._optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            log=log,
        )

    def restore(self, state: TrainingState) -> None:
        """Takes up the training at a state.

        Raises:
            TrainingError: the state is not of this model and optimizer.
        """
        try:
            check_optimizer(state.optimizer, self._optimizer)
            self._vit.load_state_dict(state.model)
            self._optimizer.load_state_dict(state.optimizer)
            if self._average is not None and state.average is not None:
                self._average.module.load_state_dict(state.average)
            if self._accelerator.scaler is not None and state.scaler is not None:
                self._accelerator.scaler.load_state_dict(state.scaler)
        except Exception as error:  # torch raises nearly anything where parts do not fit
            raise TrainingError(f"the state is damaged: {first_line(error)[:200]}", ANEW) from None

    def train_epoch(self, epoch: int, progress: Progress) -> Sums:
        """Trains for an epoch.

        Args:
            epoch: from 0.
            progress: takes a line about the epoch every 20 seconds.

        Raises:
            TrainingError: the loss of a batch, or a weight at the end, is no number.
            ImageError: an image cannot be read.
        """
        self._begin(epoch)
        options, steps = self._options, len(self._loader)
        batch = min(options.recipe.batch, self._data.images)
        meter = Meter(epoch, batch * self._accelerator.num_processes)
        reported = time.monotonic()
        batches = iter(self._loader)
        for step in range(steps):
            images, labels = _next(batches)
            point = point_in_step(epoch, step, steps, self._student.patches, options)
            meter.add(*self._step(images, labels, point, epoch * steps + step))
            if time.monotonic() - reported > _REPORT_EVERY:
                reported = time.monotonic()
                progress(f"epoch {epoch + 1}: {step + 1} of {steps} steps, loss {meter.mean():.4f}")
        sums = meter.sums(max(group["lr"] for group in self._optimizer.param_groups), steps)
        self._check_weights(epoch)
        return sums

    def accuracies(self, points: Sequence[OperatingPoint | None]) -> list[float]:
        """Returns top-1 on the validation images in percent at each point, of the weights that are delivered.

        Every image is read once, by one of the processes; all of them return the same.

        Args:
            points: what every image keeps; None for all.

        Raises:
            ImageError: an image cannot be read.
        """
        accelerator, validation = self._accelerator, self._data.validation
        vit = self._vit if self._average is None else self._average.module
        deployed = [self._deployed(vit, point) for point in points]
        images = len(validation)  # type: ignore[arg-type]
        share = Subset(validation, range(accelerator.process_index, images, self.processes))
        loader = loader_of(share, _VALIDATION_BATCH, self._options.data.workers)
        right = torch.zeros(len(deployed), dtype=torch.int64, device=accelerator.device)
        batches = iter(loader)
        with torch.inference_mode():
            for _ in range(len(loader)):
                seen, labels = (tensor.to(accelerator.device) for tensor in _next(batches))
                for index, classify in enumerate(deployed):
                    right[index] += (classify(seen).argmax(dim=1) == labels).sum()
        return [100.0 * count / images for count in accelerator.reduce(right, "sum").tolist()]

    def _deployed(self, vit: nn.Module, point: OperatingPoint | None) -> Callable[[Tensor], Tensor]:
        """Returns what takes images [B, C, H, W] to logits [B, classes] as the model does once it is deployed."""
        score, prune_at = self._options.score, self._student.prune_at
        if point is None or point.min_keep == point.max_keep:
            pruning = None if point is None else FixedPruning(score, prune_at, point.max_keep)
            alike = PrunableViT(vit, pruning)
            return lambda images: alike(images)[0]
        adaptive, limits = PrunableViT(vit, AdaptivePruning(score, prune_at)), [point.min_keep, point.max_keep]

        def classify(images: Tensor) -> Tensor:
            mass = torch.full((len(images),), point.mass, dtype=torch.float32, device=images.device)
            keep_limits = torch.tensor([limits] * len(images), dtype=torch.int32, device=images.device)
            logits: Tensor = adaptive(images, mass, keep_limits)[0]
            return logits

        return classify

    def _begin(self, epoch: int) -> None:
        """Seeds an epoch's random draws by seed and epoch, so that no random state has to be saved."""
        self._data.start(epoch)
        drawn = np.random.SeedSequence((self._options.seed, epoch, self._accelerator.process_index)).generate_state(4)
        random.seed(int(drawn[0]))
        np.random.seed(int(drawn[1]))
        torch.manual_seed(int(drawn[2]))
        self._loader_seed.manual_seed(int(drawn[3]))
        self._student.train()
        self._model.train()

    def _check_weights(self, epoch: int) -> None:
        """Refuses weights that the last steps made infinite or not a number: no later loss would show it."""
        average = [] if self._average is None else list(self._average.module.parameters())
        if not all(bool(torch.isfinite(weights).all()) for weights in (*self._vit.parameters(), *average)):
            raise TrainingError(
                f"weights are no numbers any more at the end of epoch {epoch + 1}",
                "those of the epoch before are kept; lower the learning rate, or train with --amp no",
            )

    def _step(
        self, images: Tensor, labels: Tensor, point: OperatingPoint | None, update: int
    ) -> tuple[Losses, float | None]:
        """Trains on a batch, and returns its losses and what share of the patch tokens it kept."""
        recipe = self._options.recipe
        if self._mixup is not None:
            images, labels = self._mixup(images, labels)
        self._schedule.step_update(update)
        taught = None
        if self._teacher is not None:
            with self._accelerator.autocast():
                taught = self._teacher(images)
        found = self._model(images, point)
        losses = losses_of(found, labels, taught, self._options.distillation, recipe.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(losses.total)
        if recipe.clip is not None:
            self._accelerator.clip_grad_norm_(self._vit.parameters(), recipe.clip)
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self._vit, step=update + 1)
        return losses, found.density


def _next(batches: Any) -> tuple[Tensor, Tensor]:
    try:
        images, labels = next(batches)
    except ImageError as error:
        # A worker process sends its whole traceback as the message; the last line is the error's own.
        last = [line for line in error.message.splitlines() if line.strip()][-1]
        raise ImageError(last.rpartition("ImageError: ")[2], error.hint or "remove it, or replace it") from None
    return images, labels


def check_parallelism(kind: DistributedType, accumulated: int) -> None:
    """Checks that processes divide the images of a step between them, and nothing else.

    Args:
        kind: how accelerate's configuration divides the work.
        accumulated: steps whose gradients it adds up.

    Raises:
        InvalidArgument: the model is divided too, or gradients of several steps are added up.
    """
    if kind is not DistributedType.NO and not kind.name.startswith("MULTI_"):
        raise InvalidArgument(
            f"training on several devices by {kind.value} is not supported",
            "choose plain data parallelism in accelerate config",
        )
    if accumulated != 1:
        raise InvalidArgument(
            f"gradients of {accumulated} steps are not added up", "set gradient_accumulation_steps to 1 for accelerate"
        )


def _accelerator(amp: Amp, device: str | None) -> Accelerator:
    # Else the first training's precision and device would hold for the whole process.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    chosen = {}
    if device is not None:
        with using_device(device) as usable:
            chosen["ACCELERATE_TORCH_DEVICE"] = str(usable)
    try:
        with patch_environment(**chosen):
            accelerator = Accelerator(mixed_precision=amp.value)
    except (ValueError, ImportError) as error:  # ImportError: a package of accelerate's configuration is missing
        first = first_line(error)
        if isinstance(error, ImportError) or amp is Amp.NONE:
            raise InvalidArgument(
                f"accelerate cannot run its configuration: {first}", "change it by accelerate config"
            ) from None
        raise InvalidArgument(f"mixed precision {amp.value} cannot be had here: {first}", "use --amp no") from None
    check_parallelism(accelerator.distributed_type, accelerator.gradient_accumulation_steps)
    if device is not None and accelerator.num_processes > 1:
        raise InvalidArgument(
            f"device {device} cannot be chosen for {accelerator.num_processes} processes",
            "leave it out: accelerate gives each its own",
        )
    if amp is Amp.FP16 and accelerator.device.type == "cpu":
        raise InvalidArgument("mixed precision fp16 cannot be had on a CPU", "use --amp bf16 or --amp no")
    return accelerator
