"""Losses by their formulas, written here in NumPy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from sait_deploy.training.losses import importance_divergence, label_loss, logits_divergence, losses_of
from sait_deploy.training.options import Distillation
from sait_deploy.training.student import Pass

CLASSES, PATCHES = 5, 9


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distribution(seed: int, rows: int = 4, columns: int = PATCHES) -> Tensor:
    return torch.softmax(2 * drawn(seed, rows, columns), dim=1)


def softmax(x: Tensor) -> NDArray[np.float64]:
    e = np.exp(x.double().numpy() - x.double().numpy().max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def divergence(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return float((wanted * np.log(wanted / found)).sum(axis=1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_labels(smoothing: float) -> None:
    logits, labels = drawn(0, 4, CLASSES), torch.tensor([0, 4, 2, 2])
    wanted = np.full((4, CLASSES), smoothing / CLASSES)
    wanted[np.arange(4), labels] += 1 - smoothing
    expected = -(wanted * np.log(softmax(logits))).sum(axis=1).mean()
    assert float(label_loss(logits, labels, smoothing)) == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_not_smoothed_again() -> None:
    logits, targets = drawn(0, 4, CLASSES), distribution(1, columns=CLASSES)
    expected = -(targets.double().numpy() * np.log(softmax(logits))).sum(axis=1).mean()
    assert float(label_loss(logits, targets, 0.3)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_from_the_teachers_logits(temperature: float) -> None:
    student, teacher = drawn(0, 4, CLASSES), drawn(1, 4, CLASSES)
    expected = temperature**2 * divergence(softmax(teacher / temperature), softmax(student / temperature))
    assert float(logits_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)


def test_the_size_of_gradients_hardly_depends_on_the_temperature() -> None:
    teacher, sizes = drawn(1, 64, CLASSES), []
    for temperature in (10.0, 100.0):
        student = drawn(0, 64, CLASSES).requires_grad_()
        logits_divergence(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_divergence_of_importance() -> None:
    student, teacher = distribution(0), distribution(1)
    expected = divergence(teacher.double().numpy(), student.double().numpy())
    assert float(importance_divergence(student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(importance_divergence(teacher, student)) != pytest.approx(expected, rel=1e-2), "it has a direction"


@given(st.integers(0, 1000))
def test_divergences_are_least_where_both_agree(seed: int) -> None:
    logits, importance = drawn(seed, 4, CLASSES), distribution(seed)
    assert abs(float(logits_divergence(logits, logits, 2.0))) < 1e-6
    assert float(logits_divergence(logits, drawn(seed + 1, 4, CLASSES), 2.0)) > 0
    assert abs(float(importance_divergence(importance, importance))) < 1e-6
    assert float(importance_divergence(importance, distribution(seed + 1))) > 0


def test_gradients_point_to_the_teacher() -> None:
    scores, teacher = drawn(0, 4, PATCHES).requires_grad_(), distribution(1)
    importance_divergence(torch.softmax(scores, dim=1), teacher).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    expected = (torch.softmax(scores.detach(), dim=1) - teacher) / 4
    assert torch.allclose(scores.grad, expected, atol=1e-6)


@pytest.mark.parametrize("seen", ["student", "teacher"])
def test_a_patch_that_nobody_looks_at_is_no_nan(seen: str) -> None:
    one = torch.eye(PATCHES)[:4]
    student, teacher = (one, distribution(0)) if seen == "student" else (distribution(0), one)
    student = student.clone().requires_grad_()
    loss = importance_divergence(student, teacher)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_total_is_the_weighted_sum() -> None:
    found = Pass(drawn(0, 4, CLASSES), distribution(0))
    taught = Pass(drawn(1, 4, CLASSES), distribution(1))
    labels = torch.tensor([0, 1, 2, 3])
    losses = losses_of(found, labels, taught, Distillation(logits=0.3, importance=7.0, temperature=2.0), 0.1)
    assert losses.logits is not None and losses.importance is not None
    assert float(losses.labels) == pytest.approx(float(label_loss(found.logits, labels, 0.1)))
    assert float(losses.logits) == pytest.approx(float(logits_divergence(found.logits, taught.logits, 2.0)))
    assert float(losses.importance) == pytest.approx(float(importance_divergence(found.importance, taught.importance)))
    expected = float(losses.labels) + 0.3 * float(losses.logits) + 7.0 * float(losses.importance)
    assert float(losses.total) == pytest.approx(expected)


def test_without_a_teacher_labels_are_all() -> None:
    found = Pass(drawn(0, 4, CLASSES), distribution(0))
    losses = losses_of(found, torch.tensor([0, 1, 2, 3]), None, Distillation(), 0.0)
    assert losses.logits is None and losses.importance is None
    assert torch.equal(losses.total, losses.labels)
