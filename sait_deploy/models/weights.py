"""A model's weights: read from a file and loaded, what the file records of training, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sait_deploy.artifacts.codec import adapter
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.labels import is_class_name
from sait_deploy.models.checkpoint_files import is_safetensors, read_checkpoint, weights_file
from sait_deploy.models.checkpoint_names import StateDict, Wanted, find_state_dict
from sait_deploy.tokens import Score, default_prune_at

_NAMED: Final = 3
"""How many tensors of each kind of mismatch an error names."""

TRAINING_KEY: Final = "sait_deploy.training"
"""Key of a safetensors file's metadata whose value, a JSON object, records how the weights were trained."""

CLASSES_KEY: Final = "classes"
"""Member of that object: the names of the classes. Its other members are all fields of ``SparseTraining``, or none."""


@dataclass(frozen=True, slots=True)
class SparseTraining:
    """How weights were trained to be pruned.

    Attributes:
        score: how importance is read off the attention.
        prune_at: block pruned in.
        low: lowest density that training drew.
        high: highest density that training drew.
        low_mass: lowest probability mass that training drew; None where no step drew a mass.
        high_mass: highest probability mass; None likewise.

    Raises:
        InvalidArgument: not 0 <= prune_at, 0 < low <= high <= 1, and 0 < low_mass <= high_mass < 1 or neither mass.
    """

    score: Score
    prune_at: int
    low: float
    high: float
    low_mass: float | None = None
    high_mass: float | None = None

    def __post_init__(self) -> None:
        if (self.low_mass is None) != (self.high_mass is None):
            raise InvalidArgument("one of low_mass and high_mass is missing", "give both or neither")
        masses = self.low_mass is None or self.high_mass is None or 0 < self.low_mass <= self.high_mass < 1
        if not (self.prune_at >= 0 and 0 < self.low <= self.high <= 1 and masses):
            raise InvalidArgument(f"no training can be {self}", "give 0 < low <= high <= 1, and masses below 1")


def chosen_pruning(
    training: SparseTraining | None, depth: int, score: Score | None, prune_at: int | None
) -> tuple[Score, int]:
    """Returns the score and the block to prune by: the user's choice, else as trained, else mean and depth // 4.

    Args:
        training: how the weights were trained sparse; None where they were not, or it is not recorded.
        depth: blocks of the model.
        score: the user's choice; None for none.
        prune_at: the user's choice; None for none.
    """
    known = (Score.MEAN, default_prune_at(depth)) if training is None else (training.score, training.prune_at)
    return known[0] if score is None else score, known[1] if prune_at is None else prune_at


def metadata_of(training: SparseTraining | None, class_names: Sequence[str]) -> dict[str, str]:
    """Returns the metadata of a safetensors file that ``read_training`` and ``read_class_names`` read.

    It is one key alone: safetensors writes several in an order that changes from run to run.

    Args:
        training: how the weights were trained sparse; None where every step was dense.
        class_names: a name for each class of the head.
    """
    record = {} if training is None else {name: value for name, value in asdict(training).items() if value is not None}
    return {TRAINING_KEY: json.dumps({**record, CLASSES_KEY: list(class_names)})}


def read_training(path: Path) -> SparseTraining | None:
    """Returns how a file's weights were trained sparse; None where its metadata does not record it.

    Raises:
        ModelError: the metadata cannot be understood.
    """
    metadata = _read_metadata(path)
    return None if metadata is None else metadata.training


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """Returns the names of a file's classes, in the order of its head's; None where its metadata has none.

    Raises:
        ModelError: the metadata cannot be understood.
    """
    metadata = _read_metadata(path)
    return None if metadata is None else metadata.class_names


@dataclass(frozen=True, slots=True)
class _TrainingMetadata:
    """What the metadata of a weights file records of its training."""

    training: SparseTraining | None
    class_names: tuple[str, ...] | None


def _read_metadata(path: Path) -> _TrainingMetadata | None:
    if not path.is_file() or not is_safetensors(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(TRAINING_KEY)
    except (SafetensorError, OSError):
        return None  # reading the weights raises the error that names what is wrong with the file
    if text is None:
        return None
    try:
        return _parsed(text)
    except (ValueError, RecursionError):
        raise ModelError(
            f"weights file {path} has training metadata that cannot be understood", "save it again without metadata"
        ) from None


def _parsed(text: str) -> _TrainingMetadata:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError
    named = CLASSES_KEY in record
    names = adapter(tuple[str, ...]).validate_json(json.dumps(record.pop(CLASSES_KEY, [])))
    if named and not (names and all(map(is_class_name, names))):
        raise ValueError
    training = None if named and not record else adapter(SparseTraining).validate_json(json.dumps(record))
    return _TrainingMetadata(training, names or None)


def read_state_dict(path: Path, wanted: Wanted | None = None) -> StateDict:
    """Reads a model's state dict from a file, without running code from it.

    Args:
        path: of a safetensors file, a torch checkpoint, an archive of NumPy's, or an index of shards.
        wanted: what the model wants, by which its tensors are found in the file; None for no model.

    Raises:
        ModelError: the file is missing, cannot be read, holds code to run, or holds no tensors.
    """
    file = weights_file(path)
    return find_state_dict(read_checkpoint(file), file, wanted)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], origin: str, hint: str | None = None) -> None:
    """Copies a state dict into a model that it must fit exactly.

    Args:
        model: the model.
        tensors: the state dict.
        origin: the file's name, for errors.
        hint: what to do where it does not fit; None for the general advice.

    Raises:
        ModelError: as :func:`check_fits` raises it.
    """
    check_fits(model, tensors, origin, hint)
    model.load_state_dict(dict(tensors))


def check_fits(model: nn.Module, tensors: Mapping[str, Tensor], origin: str, hint: str | None = None) -> None:
    """Checks that a state dict fits a model exactly.

    Args:
        model: the model, whose tensors may be on the meta device.
        tensors: the state dict.
        origin: the file's name, for errors.
        hint: what to do where it does not fit; None for the general advice.

    Raises:
        ModelError: names or shapes differ, of which a few of the file's are named beside the model's; or a tensor holds
            quantised numbers, whose scales are elsewhere.
    """
    own = model.state_dict()
    _check_numbers(own, tensors, origin)
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the model's {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    missing = [f"{name} is missing" for name in own if name not in tensors]
    foreign = [f"{name} is not the model's" for name in tensors if name not in own]
    kinds = (shapes, missing, foreign)
    if any(kinds):
        named = [text for kind in kinds for text in kind[:_NAMED]]
        others = sum(map(len, kinds)) - len(named)
        more = f" and {others} more" if others else ""
        raise ModelError(
            f"weights {origin} do not fit {type(model).__name__}: {'; '.join(named)}{more}",
            hint or "give the --model they were trained as, and --imgsz if their image size is not its default",
        )


def _check_numbers(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: str) -> None:
    for name, tensor in tensors.items():
        if name not in own or not own[name].is_floating_point():
            continue
        if not tensor.is_floating_point() or tensor.itemsize < 2:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"weights {origin} hold {name} as {kind}: quantised weights mean nothing without their scales",
                "give the weights as they were before they were quantised",
            )


def sha256_of_weights(model: nn.Module) -> str:
    """Returns SHA-256 over a model's tensors, sorted by name: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
