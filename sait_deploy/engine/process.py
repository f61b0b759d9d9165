"""The parent's side of the building process: start it, listen, stop it, and say what went wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sait_deploy.engine.messages import explain_error, explain_warning, shortened
from sait_deploy.engine.request import BuildRequest, Event, PartAnswer
from sait_deploy.errors import EngineError

_GRACE_SECONDS: Final = 10
_SHOWN_BYTES: Final = 4000

Progress = Callable[[str, float], None]
"""Told which part is being built, and the share of it that is done."""


@dataclass(frozen=True, slots=True)
class BuildAnswer:
    """What became of a request.

    Attributes:
        parts: the engines, in the order asked for.
        messages: what the builder warned of, each once.
        gpu: the GPU they were built on; None where they were built for architectures.
    """

    parts: tuple[PartAnswer, ...]
    messages: tuple[str, ...]
    gpu: str | None


def run_builder(request: BuildRequest, progress: Progress) -> BuildAnswer:
    """Builds in a process of its own, which an interrupt ends.

    Raises:
        EngineError: no engine came of it: the builder refused, failed or aborted.
        OSError: there is no space for it.
    """
    parts: list[PartAnswer] = []
    messages: dict[str, None] = {}
    error = gpu = refused = None
    with tempfile.TemporaryFile() as noise:
        with _started(request, noise) as (worker, events):
            for event in events:
                if event.progress is not None:
                    progress(*event.progress)
                if event.warning is not None:
                    messages[explain_warning(event.warning)] = None
                if event.answer is not None:
                    parts.append(event.answer)
                error, gpu = event.error or error, event.gpu or gpu
                refused = event.errno or refused
            code = worker.wait()
        if refused in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(refused, os.strerror(refused))
        if error is not None:
            what, hint = explain_error(error.splitlines())
            raise EngineError(f"{request.builder} built no engine: {what}", hint) from RuntimeError(error)
        if code != 0 or len(parts) < len(request.parts):
            raise EngineError(
                f"{request.builder} {_ending(code)}{_last_words(noise)}",
                "try --allow-unfused or another --precision, and report this",
            )
    order = [part.name for part in request.parts]
    return BuildAnswer(tuple(sorted(parts, key=lambda part: order.index(part.name))), tuple(messages), gpu)


@contextlib.contextmanager
def _started(request: BuildRequest, noise: IO[bytes]) -> Iterator[tuple[subprocess.Popen[str], Iterator[Event]]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as answers:
        try:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "sait_deploy.engine.worker", str(writing)],
                stdin=subprocess.PIPE,
                stdout=noise,
                stderr=noise,
                pass_fds=(writing,),
                # An interrupt at the keyboard reaches this process alone, which ends the other in order.
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": _search_path()},
                text=True,
            )
        finally:
            os.close(writing)
        try:
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(request.to_json())
            yield worker, map(Event.from_json, answers)
        finally:
            _end(worker)


def _search_path() -> str:
    """Returns where the other process finds this package, also where it is not installed."""
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, places))


def _end(worker: subprocess.Popen[str]) -> None:
    if worker.poll() is not None:
        return
    worker.send_signal(signal.SIGTERM)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(_GRACE_SECONDS)
    finally:
        # A second interrupt does not wait, nor does it leave the process behind.
        worker.kill()
        worker.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with status {code} and no engine"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _last_words(noise: IO[bytes]) -> str:
    """Returns the last line that the process printed, where it printed any."""
    noise.seek(0, os.SEEK_END)
    noise.seek(max(0, noise.tell() - _SHOWN_BYTES))
    lines = [line for line in noise.read().decode(errors="replace").splitlines() if line.strip()]
    return f": {shortened(lines[-1])}" if lines else ""
