"""What to train, on what, and how: options, checked once for the command line and for Python."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.demo.tasks import DIGITS, TASKS, Task
from sait_deploy.errors import InvalidArgument
from sait_deploy.system.option_values import check_options
from sait_deploy.tokens import Score

DEMO_DATA: Final = DIGITS.source
"""The ``source`` that names the demonstration's composed digits instead of a folder."""

_TASKS: Final = {task.source: task for task in TASKS.values()}

_RANGE: Final = re.compile(r"\s*([0-9.]+)\s*:\s*([0-9.]+)\s*")


class Alternation(StrEnum):
    """When tokens are dropped in training."""

    BATCH = "batch"
    """Every other step, each at a density or mass of its own."""

    EPOCH = "epoch"
    """Every other epoch, each of its steps at a density or mass of its own."""

    NEVER = "never"
    """Every step is dense: plain training, such as a teacher's."""


class Head(StrEnum):
    """Which head the model trains with."""

    KEEP = "keep"
    """The model's own; the data must have as many classes."""

    NEW = "new"
    """A new one with random weights and as many classes as the data."""


class Amp(StrEnum):
    """Element type that matrix products run in; weights and their averages stay float32."""

    NONE = "no"
    BF16 = "bf16"
    FP16 = "fp16"


class Augmentation(StrEnum):
    """How training images are varied."""

    STANDARD = "standard"
    """Random resized crop, flip, colour jitter, RandAugment, random erasing: timm's, as DeiT trains."""

    LIGHT = "light"
    """Random resized crop and flip."""

    NONE = "none"
    """As in evaluation."""


@dataclass(frozen=True, slots=True)
class DensityRange:
    """Densities that sparse steps draw from, uniformly: the kept share of the patch tokens.

    Raises:
        InvalidArgument: not 0 < low <= high <= 1.
    """

    low: float = 0.3
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise InvalidArgument(
                f"density range {self.low:g}:{self.high:g} does not rise within (0, 1]",
                "give LOW:HIGH, such as 0.3:1.0",
            )


@dataclass(frozen=True, slots=True)
class MassRange:
    """Probability masses that sparse steps draw from, uniformly: every image keeps as many tokens as reach it.

    Raises:
        InvalidArgument: not 0 < low <= high < 1; at mass 1 a step is dense.
    """

    low: float = 0.7
    high: float = 0.98

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise InvalidArgument(
                f"mass range {self.low:g}:{self.high:g} does not rise within (0, 1)",
                "give LOW:HIGH, such as 0.7:0.98",
            )


def parse_density_range(text: str) -> DensityRange:
    """Reads ``LOW:HIGH``.

    Raises:
        InvalidArgument: it is not of that form, or not within (0, 1].
    """
    return DensityRange(*_ends("density", text, "0.3:1.0"))


def parse_mass_range(text: str) -> MassRange:
    """Reads ``LOW:HIGH``.

    Raises:
        InvalidArgument: it is not of that form, or not within (0, 1).
    """
    return MassRange(*_ends("mass", text, "0.7:0.98"))


def _ends(name: str, text: str, example: str) -> tuple[float, float]:
    found = _RANGE.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        return float(found[1]), float(found[2])
    except ValueError:
        raise InvalidArgument(f"{name} range {text!r} is not LOW:HIGH", f"such as {example}") from None


@dataclass(frozen=True, slots=True)
class Distillation:
    """What the student learns from a dense teacher, beside the labels.

    Attributes:
        logits: weight of the divergence from the teacher's logits.
        temperature: divides both logits there.
        importance: weight of the divergence of the student's importance from the teacher's attention.
        teacher_blocks: last blocks of the teacher whose attention is averaged.
        teacher_score: how importance is read off that attention: by the class token's row, or by the mean of all rows,
            which a teacher without a class token needs.

    Raises:
        InvalidArgument: a number is out of its range.
    """

    logits: float = 1.0
    temperature: float = 1.0
    importance: float = 1.0
    teacher_blocks: int = 2
    teacher_score: Score = Score.CLS

    def __post_init__(self) -> None:
        _check("distillation weight of logits", self.logits, 0, math.inf)
        _check("distillation weight of importance", self.importance, 0, math.inf)
        _check("temperature", self.temperature, 1e-3, 1e3)
        _check("number of the teacher's blocks", self.teacher_blocks, 1, math.inf)
        check_options(self)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Optimiser, schedule and regularisation, by timm's names.

    Attributes:
        epochs: passes over the data.
        batch: images per step and process.
        optimizer: timm's name of the optimiser.
        learning_rate: the peak of the learning rate.
        weight_decay: of matrices; biases, norms and what timm excepts have none.
        layer_decay: factor of the learning rate from each block to the one before; 1 for none.
        schedule: timm's name of the schedule, cosine or tanh, updated every step.
        schedule_epochs: epochs that the schedule spans, warm-up included; None for ``epochs``. A training ends before
            a longer schedule does.
        warmup_epochs: epochs in which the learning rate rises linearly.
        least_learning_rate: the learning rate at the schedule's end.
        clip: largest norm of all gradients together; None for no limit.
        label_smoothing: share of the label's probability that goes to all classes.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        drop_path: rate of stochastic depth in the last block, rising from 0.
        ema_decay: decay of the averaged weights, which are delivered in place of the last ones; None for no average.
        amp: element type of matrix products.

    Raises:
        InvalidArgument: a number is out of its range.
    """

    epochs: int = 30
    batch: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    schedule: str = "cosine"
    schedule_epochs: int | None = None
    warmup_epochs: float = 1.0
    least_learning_rate: float = 1e-6
    clip: float | None = 1.0
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    ema_decay: float | None = 0.999
    amp: Amp = Amp.NONE

    def __post_init__(self) -> None:
        _check("number of epochs", self.epochs, 1, math.inf)
        _check("batch", self.batch, 1, math.inf)
        _check("learning rate", self.learning_rate, 1e-12, math.inf)
        _check("weight decay", self.weight_decay, 0, math.inf)
        _check("layer decay", self.layer_decay, 1e-3, 1)
        if self.schedule_epochs is not None:
            _check("number of the schedule's epochs", self.schedule_epochs, self.epochs, math.inf)
        _check("number of warm-up epochs", self.warmup_epochs, 0, self.epochs)
        _check("least learning rate", self.least_learning_rate, 0, self.learning_rate)
        _check("label smoothing", self.label_smoothing, 0, 0.999)
        _check("mixup", self.mixup, 0, math.inf)
        _check("cutmix", self.cutmix, 0, math.inf)
        _check("drop path rate", self.drop_path, 0, 0.999)
        if self.clip is not None:
            _check("gradient norm", self.clip, 1e-12, math.inf)
        if self.ema_decay is not None:
            _check("decay of averaged weights", self.ema_decay, 0, 1)
        check_options(self)


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What to train on.

    Attributes:
        source: a folder with one subfolder per class, or with ``train`` and ``val`` folders of such; or the source
            of one of the demonstration's tasks, such as ``demo``.
        validation: a folder of validation images, where ``source`` has none.
        augmentation: how training images are varied; the demonstration's are new in every epoch as they are.
        workers: processes that load images; 0 for the training process itself.
        epoch_images: training images per epoch of ``demo``.
        validation_images: most validation images: the first ones of ``demo``, evenly spaced ones of a folder.
        class_map: file that says the class of each subfolder; None for the classes of those names.
        fashion: folder of Fashion-MNIST, for the task that is composed of it.

    Raises:
        InvalidArgument: a number is out of its range.
    """

    source: str = DEMO_DATA
    validation: Path | None = None
    augmentation: Augmentation = Augmentation.STANDARD
    workers: int = 0
    epoch_images: int = 6400
    validation_images: int = 1000
    class_map: Path | None = None
    fashion: Path | None = None

    def __post_init__(self) -> None:
        _check("number of workers", self.workers, 0, 1024)
        _check("number of images per epoch", self.epoch_images, 1, math.inf)
        _check("number of validation images", self.validation_images, 1, math.inf)
        check_options(self)

    @property
    def task(self) -> Task | None:
        """The demonstration's task whose images are composed; None for a folder."""
        return _TASKS.get(self.source)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """All options of a training.

    Attributes:
        output: folder for weights, log and the state to resume from.
        data: what to train on.
        recipe: optimiser, schedule and regularisation.
        head: which head the model trains with.
        alternation: when tokens are dropped.
        densities: range that a sparse step draws its density from.
        masses: range that every other sparse step draws a mass from instead; None where all draw densities.
        score: how importance is read off the attention.
        prune_at: block to prune in; None for depth // 4.
        distillation: what the student learns from a teacher; not used without one.
        seed: seed of a new head, of the data's order and variation, and of the densities and masses drawn.
        device: where to train, by torch's names; None for a GPU where there is one, as accelerate chooses.
    """

    output: Path
    data: DataOptions = field(default_factory=DataOptions)
    recipe: Recipe = field(default_factory=Recipe)
    head: Head = Head.KEEP
    alternation: Alternation = Alternation.BATCH
    densities: DensityRange = field(default_factory=DensityRange)
    masses: MassRange | None = None
    score: Score = Score.MEAN
    prune_at: int | None = None
    distillation: Distillation = field(default_factory=Distillation)
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        _check("seed", self.seed, 0, 2**31 - 1)
        check_options(self)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and least <= value <= most):
        limits = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
        raise InvalidArgument(f"{name} {value!r} cannot be", f"give a number {limits}")
