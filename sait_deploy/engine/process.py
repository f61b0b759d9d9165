"""The parent's side of the building process: it starts and stops the process, and turns its events into an answer.

The process is a subprocess and not multiprocessing's: spawning imports the caller's main module again, which starts the
build again in a script without a guard, and finds no file where the code came from standard input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sait_deploy.engine.messages import explain_error, explain_warning, shortened
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.request import BuildEvent, BuildRequest, PartAnswer
from sait_deploy.errors import EngineError, SaitError
from sait_deploy.system.children import child_environment
from sait_deploy.system.progress import Progress
from sait_deploy.system.scratch import temporary_place

_GRACE_SECONDS: Final = 10
_SHOWN_BYTES: Final = 4000


@dataclass(frozen=True, slots=True)
class BuildAnswer:
    """The engines of a request.

    Attributes:
        parts: the engines, in the order asked for.
        messages: the builder's warnings, each once.
        gpu: the GPU they were built on; None where they were built for architectures.
    """

    parts: tuple[PartAnswer, ...]
    messages: tuple[str, ...]
    gpu: str | None


def run_builder(request: BuildRequest, progress: Progress) -> BuildAnswer:
    """Builds in processes of their own, which an interrupt ends.

    TensorRT for RTX only compiles, and on one thread: its parts are built at the same time, a process each. TensorRT
    times kernels on the GPU, where two builds would disturb each other.

    Args:
        request: what to build.
        progress: called with the name of a part and the share of it that is built.

    Raises:
        EngineError: no engine came of it: the builder refused, failed or aborted.
        OSError: there is no space for it.
    """
    apart = request.builder is BuilderName.TENSORRT_RTX
    requests = [dataclasses.replace(request, parts=(part,)) for part in request.parts] if apart else [request]
    events: queue.SimpleQueue[BuildEvent | _Worker] = queue.SimpleQueue()
    parts: list[PartAnswer] = []
    messages: dict[str, None] = {}
    gpu = None
    with contextlib.ExitStack() as stack:
        pending = {stack.enter_context(_started(each, events)) for each in requests}
        stack.callback(_stop, tuple(pending))
        while pending:
            event = events.get()
            if isinstance(event, _Worker):
                pending.discard(event)
                event.check()
                continue
            _check(event, request.builder)
            if event.progress is not None:
                progress(*event.progress)
            if event.warning is not None:
                messages[explain_warning(event.warning)] = None
            if event.answer is not None:
                parts.append(event.answer)
            gpu = event.gpu or gpu
    order = [part.name for part in request.parts]
    return BuildAnswer(tuple(sorted(parts, key=lambda part: order.index(part.name))), tuple(messages), gpu)


def _stop(workers: Iterable[_Worker]) -> None:
    """Asks all that still run to end, before any of them is waited for."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)


def _check(event: BuildEvent, builder: BuilderName) -> None:
    """Raises the error that an event reports."""
    if event.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(event.errno, os.strerror(event.errno))
    if event.error is not None:
        what, hint = explain_error(event.error.splitlines())
        raise EngineError(f"{builder} built no engine: {what}", hint) from RuntimeError(event.error)


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    """One building process, its request, and the file that it prints to."""

    process: subprocess.Popen[str]
    request: BuildRequest
    printed: IO[bytes]

    def check(self) -> None:
        """Waits for the process to end, and checks that it ended well and wrote every file."""
        code = self.process.wait()
        if code != 0 or not all(Path(part.plan).is_file() for part in self.request.parts):
            raise EngineError(
                f"{self.request.builder} {_ending(code)}{_last_printed_line(self.printed)}",
                "try --allow-unfused or another --precision, and report this",
            )


@contextlib.contextmanager
def _started(request: BuildRequest, events: queue.SimpleQueue[BuildEvent | _Worker]) -> Iterator[_Worker]:
    """Yields a running process, whose events are put on a queue, and itself when there are no more."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as answers, tempfile.TemporaryFile(dir=temporary_place()) as printed:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sait_deploy.engine.worker", str(writing), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                pass_fds=(writing,),
                # An interrupt at the keyboard reaches this process alone, which ends the other in order.
                start_new_session=True,
                env=child_environment(),
                text=True,
            )
        finally:
            os.close(writing)
        worker = _Worker(process, request, printed)
        listener = threading.Thread(target=_listen, args=(worker, answers, events))
        listener.start()
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(request.to_json())
            yield worker
        finally:
            _end(process)
            listener.join()


def _listen(worker: _Worker, answers: IO[str], events: queue.SimpleQueue[BuildEvent | _Worker]) -> None:
    try:
        for line in answers:
            events.put(BuildEvent.from_json(line))
    except SaitError as error:
        events.put(BuildEvent(error=error.message))
    finally:
        events.put(worker)


def _end(worker: subprocess.Popen[str]) -> None:
    if worker.poll() is not None:
        return
    worker.send_signal(signal.SIGTERM)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(_GRACE_SECONDS)
    finally:
        # A second interrupt ends the wait, and the process is killed all the same.
        worker.kill()
        worker.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with status {code} and no engine"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _last_printed_line(printed: IO[bytes]) -> str:
    """Returns the last line that the process printed, where it printed any."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - _SHOWN_BYTES))
    lines = [line for line in printed.read().decode(errors="replace").splitlines() if line.strip()]
    return f": {shortened(lines[-1])}" if lines else ""
