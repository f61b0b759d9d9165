"""The files of a training: weights to deploy, log, curve, and the state that it resumes from.

The state is written first and holds everything else, so that the other files can be written again after a crash.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from sait_deploy.artifacts.codec import adapter
from sait_deploy.artifacts.files import write_whole
from sait_deploy.errors import TrainingError
from sait_deploy.models.checkpoint_files import is_plain
from sait_deploy.models.weights import SparseTraining, metadata_of
from sait_deploy.reports.drawing import has_matplotlib
from sait_deploy.system.reading import check_regular
from sait_deploy.training.curve import training_curve
from sait_deploy.training.log import LogEntry, to_csv, to_json

WEIGHTS_FILE: Final = "model.safetensors"
STATE_FILE: Final = "state.pt"
LOG_CSV: Final = "log.csv"
LOG_JSON: Final = "log.json"
CURVE_FILE: Final = "curve.svg"
_DIGEST: Final = "sha256"
ANEW: Final = "delete it to begin anew, or choose another --output; the weights beside it are whole"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """A training at the end of an epoch.

    Attributes:
        identity: what must be the same to resume: options and first weights, name to value.
        epochs: epochs done.
        model: weights as trained.
        average: their average; None where none is kept.
        optimizer: its state.
        scaler: of fp16's loss scale; None without.
        log: an entry per epoch.
    """

    identity: dict[str, str]
    epochs: int
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    log: tuple[LogEntry, ...]

    @property
    def delivered(self) -> dict[str, Tensor]:
        """The weights to deploy: the average where there is one."""
        return self.model if self.average is None else self.average


def save_state(folder: Path, state: TrainingState) -> None:
    """Writes the state whole or not at all: an earlier epoch's stays in place until then.

    Raises:
        StorageError: it could not be written.
    """
    data = {field.name: getattr(state, field.name) for field in fields(TrainingState)}
    data["log"] = [asdict(entry) for entry in state.log]
    buffer = io.BytesIO()
    torch.save({**data, _DIGEST: _digest(data)}, buffer)
    write_whole(folder / STATE_FILE, buffer.getbuffer())


def read_state(folder: Path) -> TrainingState | None:
    """Reads a training's state; None where the folder has none.

    Raises:
        TrainingError: it is damaged, or holds what no training writes; the weights beside it stay as they are.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about pickle protocols says nothing about the state
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes make the unpickler raise nearly anything, with advice to load without checks
        raise TrainingError(f"{path} is no whole training state", ANEW) from None
    try:
        return _checked(data)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path}: the state is damaged: {error}", ANEW) from None


def _checked(data: Any) -> TrainingState:
    """Returns what a file of state holds, once all of it is known to be what a training writes.

    Raises:
        ValueError: something of it is not.
    """
    names = {field.name for field in fields(TrainingState)}
    if not isinstance(data, dict) or set(data) - {_DIGEST} != names:
        raise ValueError("it has other parts than a state")
    digest = data.pop(_DIGEST, None)  # states of earlier versions have none
    if digest is not None and digest != _digest(data):
        raise ValueError("its content has changed since it was written")
    if not _all_of(data["identity"], str) or type(data["epochs"]) is not int or data["epochs"] < 0:
        raise ValueError("its identity or its number of epochs is none")
    for part, needed in (("model", True), ("average", False)):
        if (needed or data[part] is not None) and not _all_of(data[part], Tensor):
            raise ValueError(f"its {part} holds what is no tensor")
    if data["average"] is not None and data["average"].keys() != data["model"].keys():
        raise ValueError("its average is of another model")
    optimizer, scaler = data["optimizer"], data["scaler"]
    if not isinstance(optimizer, dict) or not isinstance(scaler, dict | None):
        raise ValueError("its optimizer's state is none")
    try:
        log = adapter(tuple[LogEntry, ...]).validate_json(json.dumps(data.pop("log")))
    except ValueError:  # pydantic's errors too
        raise ValueError("its log is none") from None
    if len(log) != data["epochs"]:
        raise ValueError(f"its log has {len(log)} epochs of {data['epochs']}")
    return TrainingState(**data, log=log)


def check_optimizer(found: dict[str, Any], own: Any) -> None:
    """Checks an optimizer's state against the optimizer that it is for.

    Args:
        found: as ``state_dict`` returns it.
        own: the optimizer, or what wraps it.

    Raises:
        ValueError: it is not of this optimizer: a part is of another type, or a tensor of another shape.
    """
    groups = own.param_groups
    wanted = own.state_dict()["param_groups"]
    given = found.get("param_groups")
    if not isinstance(given, list) or len(given) != len(wanted):
        raise ValueError("its optimizer has other groups")
    for mine, theirs in zip(wanted, given, strict=True):
        if not isinstance(theirs, dict) or theirs.keys() != mine.keys() or theirs["params"] != mine["params"]:
            raise ValueError("its optimizer has a group of other parameters")
        for name, value in mine.items():
            numbers = isinstance(value, int | float) and isinstance(theirs[name], int | float)
            if not numbers and type(theirs[name]) is not type(value):
                raise ValueError(f"its optimizer's {name} is {theirs[name]!r}")
    shapes = [parameter.shape for group in groups for parameter in group["params"]]
    state = found.get("state")
    if not isinstance(state, dict):
        raise ValueError("its optimizer's state is none")
    for index, values in state.items():
        if type(index) is not int or not 0 <= index < len(shapes) or not isinstance(values, dict):
            raise ValueError("its optimizer's state is of no parameter")
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        if any(not isinstance(value, Tensor | int | float | None) for value in values.values()):
            raise ValueError("its optimizer's state holds what is no number")
        if any(not is_plain(value) or (value.numel() != 1 and value.shape != shapes[index]) for value in tensors):
            raise ValueError("its optimizer's state is of parameters of other shapes")


def _all_of(values: Any, kind: type) -> bool:
    """Returns whether a dictionary maps names to values of one kind; quantised, sparse and nested tensors are none."""
    return isinstance(values, dict) and all(
        isinstance(name, str) and isinstance(value, kind) and (not isinstance(value, Tensor) or is_plain(value))
        for name, value in values.items()
    )


def _digest(data: Any) -> str:
    """Returns SHA-256 over nested dictionaries, lists, tensors and plain values."""
    digest = hashlib.sha256()
    pending = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: repr(pair[0]))
            digest.update(f"dict {[name for name, _ in pairs]!r}\n".encode())
            pending += [held for _, held in pairs]
        elif isinstance(value, list | tuple):
            digest.update(f"list {len(value)}\n".encode())
            pending += value
        elif isinstance(value, Tensor) and is_plain(value):
            digest.update(f"{list(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(f"{type(value).__name__} {value!r}\n".encode())
    return digest.hexdigest()


def deliver(folder: Path, state: TrainingState, training: SparseTraining | None, class_names: Sequence[str]) -> None:
    """Writes weights, log, and the log's curve where matplotlib is installed.

    Args:
        folder: to write to.
        state: the training's state.
        training: how the weights were trained sparse; None where every step was dense.
        class_names: of the head's classes.

    Raises:
        StorageError: something could not be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.delivered.items()}
    write_whole(folder / WEIGHTS_FILE, save(weights, metadata_of(training, class_names)))
    write_whole(folder / LOG_CSV, to_csv(state.log))
    write_whole(folder / LOG_JSON, to_json(state.log))
    if has_matplotlib():
        write_whole(folder / CURVE_FILE, _curve(state.log, training))


def _curve(log: Sequence[LogEntry], training: SparseTraining | None) -> str:
    accuracies: dict[str, list[float | None]] = {"dense": [entry.dense_top1 for entry in log]}
    if training is not None:
        accuracies[f"density {training.low:g}"] = [entry.sparse_top1 for entry in log]
    if training is not None and training.low_mass is not None:
        accuracies[f"mass {training.low_mass:g}"] = [entry.mass_top1 for entry in log]
    return training_curve([entry.epoch for entry in log], [entry.loss for entry in log], accuracies)
