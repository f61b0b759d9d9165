"""``sait-deploy serve`` as a user starts it, with a look at its processes."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import psutil

from sait_deploy.errors import ServingError
from sait_deploy.system.children import child_environment

_START_SECONDS: Final = 300
_STOP_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at ``address``, such as ``http://127.0.0.1:8000``."""

    address: str
    process: subprocess.Popen[str]

    def processes(self) -> list[psutil.Process]:
        """Returns the command's process and all that it started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def replicas(self) -> list[psutil.Process]:
        """Returns the processes that compute."""
        return [process for process in self.processes() if "ServeReplica" in _command_line(process)]

    def memory(self) -> int:
        """Returns what all processes hold for themselves, and what they share counted once for each, in bytes."""
        return sum(_memory(process) for process in self.processes())

    def processor_seconds(self) -> float:
        """Returns what all processes have taken of processors so far."""
        return sum(_processor_seconds(process) for process in self.processes())


@contextlib.contextmanager
def serving(*arguments: object) -> Iterator[Running]:
    """Serves until the block ends.

    Raises:
        ServingError: the server did not start.
    """
    port, grpc_port = _free_ports()
    command = [sys.executable, "-m", "sait_deploy", "serve", *map(str, arguments)]
    command += ["--port", str(port), "--grpc-port", str(grpc_port)]
    process = subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
    reader.start()
    watchdog = threading.Timer(_START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        watchdog.cancel()
        if not line.startswith("serving at "):
            raise ServingError(f"the server did not start: {' '.join(lines[-3:])}", "try sait-deploy serve by hand")
        yield Running(f"http://127.0.0.1:{port}", process)
    finally:
        watchdog.cancel()
        _end(process)


def _read(lines_of: IO[str], lines: list[str]) -> None:
    lines.extend(line.strip() for line in lines_of)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a server as a service manager does, and what is left of it by force."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    for one in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()
    process.wait()


def _free_ports() -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        first, second = (one.getsockname()[1] for one in sockets)
        return first, second


def _command_line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _processor_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
