"""What TensorRT calls back: a logger and a progress monitor, as classes of whichever package is there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from sait_deploy.engine.messages import shortened

_MOST_WARNINGS: Final = 50


class Messages:
    """What TensorRT says of an engine: few messages are kept, as an engine may run for long.

    Attributes:
        warnings: the last warnings.
    """

    def __init__(self) -> None:
        self.warnings: deque[str] = deque(maxlen=_MOST_WARNINGS)
        self._cause: str | None = None

    def error(self, message: str) -> None:
        """Keeps the first error since the last one was asked for: those after it are its consequences."""
        self._cause = self._cause or message

    def reason(self) -> str:
        """Returns why TensorRT refused something, in one line, and forgets it."""
        cause, self._cause = self._cause, None
        return shortened(cause) if cause else "it gave no reason"


def message_collector(trt: Any, error: Callable[[str], None], warning: Callable[[str], None]) -> Any:
    """Returns a logger that hands errors and warnings on, and prints nothing."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                error(message)
            elif severity == trt.ILogger.WARNING:
                warning(message)

    return Collector()


def progress_monitor(trt: Any, report: Callable[[float], None], stop_requested: Callable[[], bool]) -> Any:
    """Returns a monitor that turns nested phases into one share: a phase's steps divide its parent's current step.

    TensorRT calls it from several threads at once.

    Args:
        trt: a TensorRT package.
        report: called with the share that is done, when it grows by a hundredth.
        stop_requested: returns whether the build is to stop.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.reported = -1
            self.lock = threading.Lock()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with self.lock:
                self.phases[phase] = (parent, max(steps, 1), 0)

        def step_complete(self, phase: str, step: int) -> bool:
            with self.lock:
                parent, steps, _ = self.phases.get(phase, (None, 1, 0))
                self.phases[phase] = (parent, steps, min(step + 1, steps))
                self._report()
            return not stop_requested()

        def phase_finish(self, phase: str) -> None:
            with self.lock:
                self.phases.pop(phase, None)

        def _report(self) -> None:
            share, step = 0.0, 1.0
            for _, steps, done in self.phases.values():
                share += step * done / steps
                step /= steps
            if (percent := int(100 * min(share, 1.0))) > self.reported:
                self.reported = percent
                report(percent / 100)

    return Monitor()
