"""A server for some minutes: whether its memory stays, and what becomes of requests when replicas are killed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.serving_client import NO_ANSWER, OK, Client, Load, poisson_times
from benchmarks.serving_load import BUSY, capacity
from benchmarks.serving_process import Running

STEADY_SHARE: Final = 0.8
KILLED_SHARE: Final = 0.5
"""Shares of the capacity: while one of two replicas is killed, the other has all."""

MOST_GROWTH: Final = 0.03
_SAMPLE_SECONDS: Final = 2.0


@contextlib.contextmanager
def every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Does something over and over in a thread for as long as the block lasts."""
    ended = threading.Event()

    def act() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(psutil.Error):
                action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def steady(running: Running, client: Client, seconds: float, capacity_seconds: float) -> dict[str, Any]:
    """Asks at a steady rate for some time, and watches the memory of all the server's processes.

    The first fifth of the time is left out: what a server makes once is made in it.
    """
    rate = STEADY_SHARE * capacity(client, capacity_seconds)
    samples: list[int] = []
    with every(min(_SAMPLE_SECONDS, seconds / 20), lambda: samples.append(running.memory())):
        load = asyncio.run(client.open_loop(poisson_times(rate, seconds, seed=0)))
    growth = grown(samples)
    counts = statuses(load)
    errors = len(load.outcomes) - counts["answered"]
    return {
        "seconds": seconds,
        "share_of_capacity": STEADY_SHARE,
        **counts,
        "memory_growth": growth,
        "client_share": load.client_share,
        "targets": {"no errors": errors == 0, f"memory within {MOST_GROWTH:.0%}": abs(growth) <= MOST_GROWTH},
    }


def grown(samples: list[int]) -> float:
    """Returns by how much memory grew from the second fifth of the samples to the last, as a share of it."""
    fifth = max(1, len(samples) // 5)
    return float(np.median(samples[-fifth:]) / np.median(samples[fifth : 2 * fifth])) - 1


def killed(
    running: Running, client: Client, seconds: float, capacity_seconds: float, kill_seconds: float
) -> dict[str, Any]:
    """Asks at a steady rate while one replica after the other is killed."""
    rate = KILLED_SHARE * capacity(client, capacity_seconds)
    kills: list[float] = []

    def kill() -> None:
        replicas = sorted(running.replicas(), key=lambda process: process.create_time())
        if replicas:
            replicas[0].kill()
            kills.append(time.monotonic())

    with every(kill_seconds, kill):
        load = asyncio.run(client.open_loop(poisson_times(rate, seconds, seed=1)))
    counts = statuses(load)
    others = counts["unanswered"] + counts["other_errors"] + counts["wrong"]
    return {
        "seconds": seconds,
        "share_of_capacity": KILLED_SHARE,
        "kills": len(kills),
        **counts,
        "client_share": load.client_share,
        "targets": {"an answer or 503 to each request, and one alone": bool(kills) and others == 0},
    }


def statuses(load: Load) -> dict[str, int]:
    """Counts what became of requests.

    A second answer to a request would be read as that to the next one of its connection, whose number it has not: such
    answers are counted as wrong.
    """
    counts = Counter(outcome.status for outcome in load.outcomes)
    right = sum(outcome.status == OK and outcome.right for outcome in load.outcomes)
    known = counts[OK] + counts[BUSY] + counts[NO_ANSWER]
    return {
        "requests": len(load.outcomes),
        "answered": right,
        "refused": counts[BUSY],
        "unanswered": counts[NO_ANSWER],
        "wrong": sum(not outcome.right for outcome in load.outcomes),
        "other_errors": len(load.outcomes) - known,
    }
