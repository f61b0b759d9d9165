"""Means over an epoch's steps, gathered without making the host wait for the device at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from sait_deploy.errors import TrainingError
from sait_deploy.training.losses import Losses

_CHECK_EVERY: Final = 16
"""Steps between looks at the losses: each look makes the host wait for the device."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Means over an epoch; see :class:`sait_deploy.training.log.LogEntry`."""

    steps: int
    sparse_steps: int
    density: float
    learning_rate: float
    loss: float
    label_loss: float
    logits_loss: float | None
    importance_loss: float | None
    images: int


class Meter:
    """Sums of an epoch's losses, kept on the device until they are looked at.

    Args:
        epoch: from 0.
        batch: images of all processes together that a step trains on.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        self._epoch, self._batch = epoch, batch
        self._waiting: list[Tensor] = []
        self._totals = np.zeros(4)
        self._has_teacher = False
        self._seen = self._sparse = 0
        self._density = 0.0

    def add(self, losses: Losses, density: float | None) -> None:
        """Takes a step's losses, and the kept share of its patch tokens, None in a dense step.

        It looks at losses every so many steps.
        """
        parts = (losses.total, losses.labels, losses.logits, losses.importance)
        self._has_teacher = losses.logits is not None
        zero = losses.total.new_zeros(())
        self._waiting.append(torch.stack([zero if part is None else part.detach().float() for part in parts]))
        self._sparse += density is not None
        self._density += 1.0 if density is None else density
        if len(self._waiting) == _CHECK_EVERY:
            self._look()

    def mean(self) -> float:
        """Returns the mean loss so far."""
        self._look()
        return float(self._totals[0] / max(1, self._seen))

    def sums(self, learning_rate: float, steps: int) -> Sums:
        """Returns the epoch's means."""
        self._look()
        loss, labels, logits, importance = (float(total) / self._seen for total in self._totals)
        return Sums(
            steps=steps,
            sparse_steps=self._sparse,
            density=self._density / self._seen,
            learning_rate=learning_rate,
            loss=loss,
            label_loss=labels,
            logits_loss=logits if self._has_teacher else None,
            importance_loss=importance if self._has_teacher else None,
            images=self._seen * self._batch,
        )

    def _look(self) -> None:
        if not self._waiting:
            return
        values = torch.stack(self._waiting).cpu().numpy().astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values[:, 0]))
        if len(wrong):
            raise TrainingError(
                f"the loss of batch {self._seen + int(wrong[0]) + 1} of epoch {self._epoch + 1} is no number",
                "the last whole epoch's weights are kept; lower the learning rate, or train with --amp no",
            )
        self._totals += values.sum(axis=0)
        self._seen += len(values)
        self._waiting.clear()
