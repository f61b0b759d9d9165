"""Stages: which runs count, what is taken of them, and whose they are."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.rows import measure_stages
from sait_deploy.runtime import Runner, load
from sait_deploy.runtime.answers import StageTimes
from tests.tiny import random_batch


class Staged:
    """Slow at first, then each batch takes its own time; it remembers what it ran."""

    def __init__(self, slow: int) -> None:
        self.slow = slow
        self.ran: list[tuple[int, PointChoice]] = []

    def stages(self, images: NDArray[np.float32], choice: PointChoice) -> StageTimes:
        self.ran.append((len(images), choice))
        if len(self.ran) <= self.slow:
            return StageTimes(9.0, 9.0, 9.0, 9.0)
        unit = len(images) / 1e3
        return StageTimes(0.5 * unit, 0.25 * unit, 4.0 * unit, 0.125 * unit)


def measured(runner: Staged, sizes: list[int]) -> tuple[float, ...]:
    batches = [(np.zeros((size, 3, 2, 2), np.float32), PointChoice(mass=1 / size)) for size in sizes]
    found = measure_stages(runner, batches)  # type: ignore[arg-type]
    assert found is not None
    return found.enqueue_ms, found.upload_ms, found.compute_ms, found.download_ms


def test_first_runs_do_not_count_and_the_rest_are_medians_in_milliseconds() -> None:
    assert measured(Staged(slow=4), [1]) == pytest.approx((0.5, 0.25, 4.0, 0.125))
    assert measured(Staged(slow=19), [1]) == pytest.approx(
        (0.5, 0.25, 4.0, 0.125)
    )  # 15 of 32 are still fewer than half


def test_batches_are_run_in_turn_each_at_its_points() -> None:
    runner = Staged(slow=0)
    assert measured(runner, [1, 2, 3, 8]) == pytest.approx((1.25, 0.625, 10.0, 0.3125))
    turns = cycle([1, 2, 3, 8])
    assert runner.ran == [(size, PointChoice(mass=1 / size)) for size, _ in zip(turns, runner.ran, strict=False)]
    assert len(runner.ran) == 36


def test_a_runtime_without_stages_has_none(tiny_adaptive: Artifact) -> None:
    runner: Runner = load(tiny_adaptive)
    assert measure_stages(runner, [(random_batch((2, 3, 96, 96)), DEFAULT_CHOICE)]) is None
