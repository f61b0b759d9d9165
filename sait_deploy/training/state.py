"""The files of a training: weights to deploy, log, curve, and the state that it resumes from.

The state is written first and holds everything else, so that the other files can be written again after a crash.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from sait_deploy.artifacts.files import write_whole
from sait_deploy.errors import TrainingError
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
    buffer = io.BytesIO()
    torch.save({**data, "log": [asdict(entry) for entry in state.log]}, buffer)
    write_whole(folder / STATE_FILE, buffer.getbuffer())


def read_state(folder: Path) -> TrainingState | None:
    """Reads a training's state; None where the folder has none.

    Raises:
        TrainingError: it is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about pickle protocols says nothing about the state
            data = torch.load(path, map_location="cpu", weights_only=True)
        log = tuple(LogEntry(**entry) for entry in data.pop("log"))
        return TrainingState(**data, log=log)
    except Exception:  # damaged bytes make the unpickler raise nearly anything, with advice to load without checks
        raise TrainingError(
            f"{path} is no whole training state", "delete it to begin anew, or choose another --output"
        ) from None


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
    write_whole(folder / LOG_CSV, to_csv(state.log).encode())
    write_whole(folder / LOG_JSON, to_json(state.log).encode())
    if has_matplotlib():
        write_whole(folder / CURVE_FILE, _curve(state.log, training).encode())


def _curve(log: Sequence[LogEntry], training: SparseTraining | None) -> str:
    accuracies: dict[str, list[float | None]] = {"dense": [entry.dense_top1 for entry in log]}
    if training is not None:
        accuracies[f"density {training.low:g}"] = [entry.sparse_top1 for entry in log]
    if training is not None and training.low_mass is not None:
        accuracies[f"mass {training.low_mass:g}"] = [entry.mass_top1 for entry in log]
    return training_curve([entry.epoch for entry in log], [entry.loss for entry in log], accuracies)
