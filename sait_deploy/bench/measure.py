"""The clock: rounds in which every variant runs once, in an order drawn anew, so that drift falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.bench.results import Timing
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.base import Runner

FEWEST_ROUNDS: Final = 10
MOST_ROUNDS: Final = 5000
_ORDER_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How long to measure.

    Attributes:
        timing: what the clock covers.
        warmup: rounds that are run and not counted, per batch size.
        duration: seconds to measure for per batch size, all variants together; at least ``FEWEST_ROUNDS`` rounds run.
    """

    timing: Timing = Timing.END_TO_END
    warmup: int = 3
    duration: float = 10.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 < self.duration < float("inf"):
            raise InvalidArgument(
                f"warm-up of {self.warmup} rounds and {self.duration} s cannot be measured", "give positive numbers"
            )


def measure(
    runners: Mapping[str, Runner], images: NDArray[np.float32], options: MeasureOptions
) -> dict[str, list[float]]:
    """Times every runner on one batch, interleaved.

    Args:
        runners: variant id to runner.
        images: float32 [B, 3, H, W].
        options: how long.

    Returns:
        Seconds per variant; sample i of all variants is of the same round.
    """
    calls = {name: _call(runner, images, options.timing) for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.warmup):
        for call in calls.values():
            call()
    order = np.random.default_rng(_ORDER_SEED)
    names = list(calls)
    started = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done >= FEWEST_ROUNDS and time.perf_counter() - started >= options.duration:
            break
        for index in order.permutation(len(names)):
            call = calls[names[index]]
            before = time.perf_counter()
            call()
            seconds[names[index]].append(time.perf_counter() - before)
    return seconds


def _call(runner: Runner, images: NDArray[np.float32], timing: Timing) -> Callable[[], object]:
    if timing is Timing.COMPUTE:
        return runner.bind(images)
    return lambda: runner.run(images)
