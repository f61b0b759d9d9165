"""The training log: one entry per epoch, as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One epoch; losses, and densities of steps by mass, are those of the first process's share of the images.

    Attributes:
        epoch: counted from 1.
        steps: of this epoch.
        sparse_steps: those of them in which tokens were dropped.
        density: mean kept share of the patch tokens over all steps, dense ones included.
        learning_rate: after the last step.
        loss: mean of the total loss.
        label_loss: mean of the part by labels.
        logits_loss: mean divergence from the teacher's logits, unweighted; None without a teacher.
        importance_loss: mean divergence of importance from the teacher's, unweighted; None without a teacher.
        dense_top1: validation accuracy of the delivered weights with nothing pruned, percent.
        sparse_top1: their accuracy at ``sparse_density``; None where every step is dense.
        sparse_density: the lowest density trained at.
        seconds: of this epoch, validation left out.
        images_per_second: trained on, over all processes.
        mass_top1: validation accuracy at ``mass``; None where no step draws one.
        mass: the lowest mass trained at.
    """

    epoch: int
    steps: int
    sparse_steps: int
    density: float
    learning_rate: float
    loss: float
    label_loss: float
    logits_loss: float | None
    importance_loss: float | None
    dense_top1: float
    sparse_top1: float | None
    sparse_density: float | None
    seconds: float
    images_per_second: float
    mass_top1: float | None = None
    mass: float | None = None


def to_csv(entries: Sequence[LogEntry]) -> str:
    """Returns the log as CSV with a heading; what is None is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in dataclasses.fields(LogEntry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(entry) for entry in entries)
    return out.getvalue()


def to_json(entries: Sequence[LogEntry]) -> str:
    """Returns the log as a JSON list."""
    return json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1, allow_nan=False) + "\n"
