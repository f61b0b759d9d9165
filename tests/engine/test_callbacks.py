"""What TensorRT calls back, from several threads at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sait_deploy.engine.callbacks import Messages, progress_monitor
from tests.engine.recording import Recording

THREADS, PHASES, STEPS = 4, 20, 3


class Slow(dict[str, Any]):
    """Lets other threads go on while it is gone through."""

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        for value in super().values():
            time.sleep(0.0002)
            yield value


def test_phases_of_several_threads_do_not_disturb_each_other() -> None:
    shares: list[float] = []
    monitor = progress_monitor(Recording(), shares.append, lambda: False)
    monitor.phases = Slow()
    monitor.phase_start("building", None, THREADS)

    def phases(thread: int) -> None:
        for number in range(PHASES):
            name = f"{thread} {number}"
            monitor.phase_start(name, "building", STEPS)
            assert all(monitor.step_complete(name, step) for step in range(STEPS))
            monitor.phase_finish(name)
        monitor.step_complete("building", thread)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(phases, range(THREADS)))
    monitor.phase_finish("building")
    assert shares == sorted(set(shares)), "it grows"
    assert not monitor.phases


def test_the_first_error_is_the_reason_until_it_was_asked_for() -> None:
    messages = Messages()
    assert messages.reason() == "it gave no reason"
    for said in ("the\n cause", "a consequence"):
        messages.error(said)
    assert [messages.reason(), messages.reason()] == ["the cause", "it gave no reason"]


def test_few_warnings_are_kept_however_long_an_engine_runs() -> None:
    messages = Messages()
    messages.warnings.extend(map(str, range(1000)))
    assert len(messages.warnings) < 100 and messages.warnings[-1] == "999"
