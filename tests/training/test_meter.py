"""Means over an epoch, and a loss that is no number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.errors import TrainingError
from sait_deploy.training.losses import Losses
from sait_deploy.training.meter import Meter

BATCH = 8


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def losses(total: float, *, taught: bool = True) -> Losses:
    logits, importance = (scalar(2 * total), scalar(3 * total)) if taught else (None, None)
    return Losses(scalar(total / 4), logits, importance, scalar(total))


@given(st.lists(st.tuples(st.floats(0, 10), st.none() | st.floats(0.01, 1)), min_size=1, max_size=60))
def test_means_over_any_number_of_steps(steps: list[tuple[float, float | None]]) -> None:
    meter = Meter(0, BATCH)
    for total, density in steps:
        meter.add(losses(total), density)
    sums = meter.sums(0.5, len(steps))
    mean = float(np.mean([np.float32(total) for total, _ in steps]))
    assert sums.loss == pytest.approx(mean, rel=1e-5, abs=1e-7)
    assert sums.label_loss == pytest.approx(mean / 4, rel=1e-5, abs=1e-7)
    assert sums.logits_loss == pytest.approx(2 * mean, rel=1e-5, abs=1e-7)
    assert sums.importance_loss == pytest.approx(3 * mean, rel=1e-5, abs=1e-7)
    assert sums.sparse_steps == sum(density is not None for _, density in steps)
    assert sums.density == pytest.approx(np.mean([1.0 if density is None else density for _, density in steps]))
    assert (sums.steps, sums.learning_rate, sums.images) == (len(steps), 0.5, BATCH * len(steps))


def test_without_a_teacher_its_losses_are_absent() -> None:
    meter = Meter(0, BATCH)
    meter.add(losses(1.0, taught=False), None)
    sums = meter.sums(0.1, 1)
    assert (sums.loss, sums.logits_loss, sums.importance_loss) == (1.0, None, None)


def test_the_mean_so_far_changes_nothing_in_the_end() -> None:
    meter = Meter(0, BATCH)
    assert meter.mean() == 0.0
    seen = []
    for total in range(20):
        meter.add(losses(float(total)), None)
        seen.append(meter.mean())
    assert seen == pytest.approx([total / 2 for total in range(20)])
    assert meter.sums(0.1, 20).loss == pytest.approx(9.5)


def test_losses_do_not_keep_their_graphs() -> None:
    weight = torch.ones((), requires_grad=True)
    total = weight * 2
    meter = Meter(0, BATCH)
    meter.add(Losses(total, None, None, total), None)
    assert not any(tensor.requires_grad for tensor in meter._waiting)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch", [1, 2, 16, 17, 40])
def test_a_loss_that_is_no_number_names_epoch_and_batch(wrong: float, batch: int) -> None:
    meter = Meter(2, BATCH)
    with pytest.raises(TrainingError) as stopped:
        for step in range(45):
            meter.add(losses(wrong if step + 1 >= batch else 1.0), None)
        meter.sums(0.1, 45)
    assert stopped.value.message == f"the loss of batch {batch} of epoch 3 is no number"
    assert "learning rate" in stopped.value.hint
