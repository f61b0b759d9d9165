"""The clock: rounds in which every variant runs once, in an order drawn anew, so that drift falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.results import Timing
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.base import Runner
from sait_deploy.system.option_values import check_options

FEWEST_ROUNDS: Final = 10
MOST_ROUNDS: Final = 5000
_FEWEST_CYCLES: Final = 2
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
        check_options(self)
        if self.warmup < 0 or not 0 < self.duration < float("inf"):
            raise InvalidArgument(
                f"warm-up of {self.warmup} rounds and {self.duration} s cannot be measured", "give positive numbers"
            )


def measure(
    calls: Mapping[str, Sequence[Callable[[], float | None]]], options: MeasureOptions
) -> dict[str, list[float]]:
    """Times calls, interleaved.

    Args:
        calls: variant id to its calls, one for each of the same batches; round i runs batch i, over and over. A call
            that has a clock of its own returns its seconds.
        options: how long.

    Returns:
        Seconds per variant; sample i of all variants is of the same round and so of the same batch.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.warmup):
        for batches in calls.values():
            batches[turn % len(batches)]()
    order = np.random.default_rng(_ORDER_SEED)
    names = list(calls)
    started = time.perf_counter()
    cycle = max(map(len, calls.values()), default=1)
    fewest = max(FEWEST_ROUNDS, _FEWEST_CYCLES * cycle)
    for done in range(max(MOST_ROUNDS // cycle, 1) * cycle):
        # Whole cycles only, so that every batch counts as much as every other.
        if done >= fewest and done % cycle == 0 and time.perf_counter() - started >= options.duration:
            break
        for index in order.permutation(len(names)):
            batches = calls[names[index]]
            call = batches[done % len(batches)]
            before = time.perf_counter()
            own = call()
            seconds[names[index]].append(time.perf_counter() - before if own is None else own)
    return seconds


def call_for(
    runner: Runner, images: NDArray[np.float32], timing: Timing, choice: PointChoice = DEFAULT_CHOICE
) -> Callable[[], float | None]:
    """Returns the call that runs a batch, float32 [B, C, H, W], as far as the clock is to cover it."""
    if timing is Timing.COMPUTE:
        return runner.bind(images, choice)

    def request() -> None:
        runner.run_at(images, choice)

    return request
