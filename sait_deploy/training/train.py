"""The training stage: options and a model in, weights for every density out, resumable after any end."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from sait_deploy.artifacts.files import check_writable, write_whole
from sait_deploy.errors import InvalidArgument, TrainingError
from sait_deploy.images.config_files import CONFIG_FILE
from sait_deploy.images.preprocessing_choice import channels_words, is_assumed, preprocessing_words
from sait_deploy.images.preprocessing_files import timm_config
from sait_deploy.models.families import transformer_of
from sait_deploy.models.pruning import FixedPruning, check_pruning
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.weights import SparseTraining
from sait_deploy.reports.drawing import NO_PLOTS, has_matplotlib
from sait_deploy.system.locks import held
from sait_deploy.system.progress import Progress, logged, no_progress
from sait_deploy.tokens import OperatingPoint, default_prune_at, density_point, parse_density
from sait_deploy.training.data import TrainingData, data_classes, open_data
from sait_deploy.training.log import LogEntry
from sait_deploy.training.loop import TrainingLoop
from sait_deploy.training.options import Alternation, Head, TrainOptions
from sait_deploy.training.state import STATE_FILE, WEIGHTS_FILE, deliver, read_state, save_state
from sait_deploy.training.teacher import Renormalisation, Teacher, check_pair

_FREE: Final = ("output", "device", "data.workers", "data.fashion")
"""Options that may change from one start to the next."""

_PATENT: Final = (
    "notice: a patent covers training by a teacher's class token in alternating epochs: see the notice in the README"
)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left.

    Attributes:
        weights: file of the weights to deploy, a plain timm state dict.
        log: an entry per epoch.
        training: how the weights were trained sparse; None where every step was dense.
        is_main: whether this process is the one, of several, that wrote them.
    """

    weights: Path
    log: tuple[LogEntry, ...]
    training: SparseTraining | None
    is_main: bool


def train(
    model: LoadedModel, teacher: LoadedModel | None, options: TrainOptions, progress: Progress = logged
) -> TrainResult:
    """Trains a model, from where an earlier start of the same training in the same folder ended.

    Example::

        model = sait_deploy.load_model("deit_small_patch16_224", WeightsRequest("file", "checkpoint.pth"))
        options = TrainOptions("training", data=DataOptions("photographs"), recipe=Recipe(epochs=5))
        print(sait_deploy.train(model, None, options).weights)

    Each epoch ends with the state, the weights so far, the log and its curve in the output folder. Where preprocessing
    was given or read from a file, ``config.json`` beside the weights says it to whoever reads them.

    Args:
        model: with the weights to begin at; they are changed.
        teacher: a dense model to learn from; None to learn from the labels alone.
        options: what to train on, and how.
        progress: takes a line at a time about what is done.

    Raises:
        InvalidArgument: options that do not fit the model or each other, or a folder that holds another training.
        RuntimeUnavailable: torch cannot use the device.
        TrainingError: another process trains into the folder.
        ModelError: a model or teacher that cannot be used.
        ImageError: data that cannot be used.
        TrainingError: the loss is no number any more, or the state cannot be read.
        StorageError: something could not be written.
    """
    with contextlib.ExitStack() as locks:
        return _train(model, teacher, options, progress, locks)


def _train(
    model: LoadedModel,
    teacher: LoadedModel | None,
    options: TrainOptions,
    progress: Progress,
    locks: contextlib.ExitStack,
) -> TrainResult:
    vit, geometry = model.vit, model.info.geometry
    prune_at = default_prune_at(geometry.depth) if options.prune_at is None else options.prune_at
    patches = geometry.patch_tokens
    check_pruning(vit, FixedPruning(options.score, prune_at, patches))
    _set_head(model, options)
    teaching = None if teacher is None else _teaching(model, teacher, options)
    kept_names = model.info.labels if options.head is Head.KEEP else None
    classes = transformer_of(vit).shape().classes
    data = open_data(options.data, classes, model.preprocessing, options.seed, kept_names)
    check_writable(options.output / STATE_FILE)
    if os.environ.get("RANK", "0") == "0" and not locks.enter_context(held(options.output.resolve())):
        raise TrainingError(f"another process trains into {options.output}", "wait for it, or choose another --output")
    own_preprocessing = not is_assumed(model.preprocessing_sources)
    training = _training_of(options, prune_at)
    loop = TrainingLoop(vit, teaching, data, options, prune_at)
    progress = progress if loop.is_main else no_progress
    if loop.processes > 1:
        progress(f"{loop.processes} processes train together, each on {options.recipe.batch} images a step")
    if teacher is not None and options.alternation is Alternation.EPOCH:
        progress(_PATENT)
    if not has_matplotlib():
        progress(NO_PLOTS.text)
    identity = _identity(model, teacher, options, prune_at, data) | {"processes": str(loop.processes)}
    if own_preprocessing:
        identity["preprocessing"] = preprocessing_words(model.preprocessing, {})
    state = read_state(options.output)
    if state is not None:
        _check_same(identity, state.identity, options.output)
        loop.restore(state)
        progress(f"resumed after epoch {state.epochs} of {options.recipe.epochs}")
        if loop.is_main:
            deliver(options.output, state, training, data.class_names)  # a crash may have left older files
    else:
        begun = _validated(loop, options, patches)  # finds validation images that cannot be read, too
        progress(f"before training: {begun.words}")
    if own_preprocessing and loop.is_main:
        write_whole(options.output / CONFIG_FILE, timm_config(model.info.name, model.preprocessing))
    done, log = (state.epochs, state.log) if state is not None else (0, ())
    for epoch in range(done, options.recipe.epochs):
        log = (*log, _epoch(loop, patches, epoch, options, progress))
        if loop.is_main:
            state = loop.state(identity, epoch + 1, log)
            save_state(options.output, state)
            deliver(options.output, state, training, data.class_names)
        loop.wait()
    return TrainResult(options.output / WEIGHTS_FILE, log, training, loop.is_main)


def _teaching(model: LoadedModel, teacher: LoadedModel, options: TrainOptions) -> Teacher:
    if teacher.vit is model.vit:
        raise InvalidArgument("the teacher is the very model that is trained", "load it a second time")
    check_pair(model.vit, teacher.vit)
    own, other = model.preprocessing, teacher.preprocessing
    if own.channels != other.channels:
        raise InvalidArgument(
            f"the teacher's images have {channels_words(other.channels)}, the model's {channels_words(own.channels)}",
            "give a teacher of as many",
        )
    renormalisation = None
    if not np.allclose((own.mean, own.std), (other.mean, other.std), atol=1e-6):
        renormalisation = Renormalisation.between(own, other)
    asked = options.distillation
    return Teacher(teacher.vit, asked.teacher_blocks, asked.teacher_score, renormalisation)


def _set_head(model: LoadedModel, options: TrainOptions) -> None:
    if options.head is Head.NEW:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            transformer_of(model.vit).new_head(data_classes(options.data))


def _training_of(options: TrainOptions, prune_at: int) -> SparseTraining | None:
    if options.alternation is Alternation.NEVER:
        return None
    training = SparseTraining(options.score, prune_at, options.densities.low, options.densities.high)
    if options.masses is None:
        return training
    return replace(training, low_mass=options.masses.low, high_mass=options.masses.high)


def _epoch(loop: TrainingLoop, patches: int, epoch: int, options: TrainOptions, progress: Progress) -> LogEntry:
    began = time.perf_counter()
    sums = loop.train_epoch(epoch, progress)
    seconds = time.perf_counter() - began
    found = _validated(loop, options, patches)
    entry = LogEntry(
        epoch=epoch + 1,
        steps=sums.steps,
        sparse_steps=sums.sparse_steps,
        density=round(sums.density, 4),
        learning_rate=sums.learning_rate,
        loss=round(sums.loss, 5),
        label_loss=round(sums.label_loss, 5),
        logits_loss=None if sums.logits_loss is None else round(sums.logits_loss, 5),
        importance_loss=None if sums.importance_loss is None else round(sums.importance_loss, 5),
        dense_top1=round(found.dense, 3),
        sparse_top1=None if found.sparse is None else round(found.sparse, 3),
        sparse_density=None if found.sparse is None else options.densities.low,
        seconds=round(seconds, 2),
        images_per_second=round(sums.images / seconds, 2),
        mass_top1=None if found.mass is None else round(found.mass, 3),
        mass=None if found.mass is None or options.masses is None else options.masses.low,
    )
    progress(
        f"epoch {entry.epoch} of {options.recipe.epochs}: loss {entry.loss:.4f}, {found.words}, "
        f"{entry.images_per_second:.0f} images/s"
    )
    return entry


class _Validated(NamedTuple):
    """Top-1 in percent: dense, at the lowest density and at the lowest mass trained at, and all of them in words."""

    dense: float
    sparse: float | None
    mass: float | None
    words: str


def _validated(loop: TrainingLoop, options: TrainOptions, patches: int) -> _Validated:
    if options.alternation is Alternation.NEVER:
        (dense,) = loop.accuracies([None])
        return _Validated(dense, None, None, f"{dense:.1f} % right")
    low, masses = options.densities.low, options.masses
    points = [None, density_point(parse_density(str(low)), patches)]
    points += [] if masses is None else [OperatingPoint(masses.low, 1, patches)]
    dense, sparse, *by_mass = loop.accuracies(points)
    words = f"{dense:.1f} % right, {sparse:.1f} % at density {low:g}"
    if masses is None:
        return _Validated(dense, sparse, None, words)
    return _Validated(dense, sparse, by_mass[0], f"{words}, {by_mass[0]:.1f} % at mass {masses.low:g}")


def _identity(
    model: LoadedModel, teacher: LoadedModel | None, options: TrainOptions, prune_at: int, data: TrainingData
) -> dict[str, str]:
    """Returns what two starts of one training have in common, name to value."""
    found = {"model": model.info.name, "first weights": model.weights.sha256, "prune_at": str(prune_at)}
    found["teacher"] = "none" if teacher is None else teacher.weights.sha256

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        elif value is not None and name not in (*_FREE, "prune_at"):
            found[name] = str(value)

    add("", asdict(options))
    found |= {"number of training images": str(data.images), "number of classes": str(data.classes)}
    return found | {f"class {index}": name for index, name in enumerate(data.class_names)}


def _check_same(wanted: dict[str, str], found: dict[str, str], folder: Path) -> None:
    differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if differing:
        name = differing[0]
        raise InvalidArgument(
            f"{folder} holds another training: its {name} is {found.get(name, 'none')}, not {wanted.get(name, 'none')}",
            "choose another --output, or delete the folder",
        )
