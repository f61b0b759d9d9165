"""The losses: by labels, by the teacher's logits, and by the teacher's importance."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sait_deploy.training.options import Distillation
from sait_deploy.training.student import Pass

_LEAST = 1e-8
"""Importance below this has no logarithm worth a gradient."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The parts of a step's loss, scalars, and their weighted sum."""

    labels: Tensor
    logits: Tensor | None
    importance: Tensor | None
    total: Tensor


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy against classes int64 [B], smoothed, or against probabilities [B, classes] as Mixup gives them."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing if labels.ndim == 1 else 0.0)


def logits_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback–Leibler divergence of the student from the teacher, mean over images, times the temperature squared.

    The factor keeps gradients of the size they have at temperature 1 (Hinton et al., arXiv 1503.02531, section 2).
    """
    wanted = F.log_softmax(teacher.float() / temperature, dim=-1)
    found = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2


def importance_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback–Leibler divergence of importance [B, N] from the teacher's [B, N], mean over images."""
    return F.kl_div(student.clamp(min=_LEAST).log(), teacher, reduction="batchmean")


def losses_of(
    found: Pass, labels: Tensor, taught: Pass | None, distillation: Distillation, label_smoothing: float
) -> Losses:
    """Returns a step's losses; without a teacher those of the labels alone."""
    by_labels = label_loss(found.logits, labels, label_smoothing)
    if taught is None:
        return Losses(by_labels, None, None, by_labels)
    by_logits = logits_divergence(found.logits, taught.logits, distillation.temperature)
    by_importance = importance_divergence(found.importance, taught.importance)
    total = by_labels + distillation.logits * by_logits + distillation.importance * by_importance
    return Losses(by_labels, by_logits, by_importance, total)
