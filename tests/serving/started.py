"""The command itself, as a user starts it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from sait_deploy.system.children import child_environment

START_SECONDS = 180
STOP_SECONDS = 90


@dataclass(frozen=True)
class Started:
    """A server that says that it serves."""

    process: subprocess.Popen[str]
    port: int
    grpc_port: int
    headers: dict[str, str]
    certificate: Path | None = None

    def url(self, path: str) -> str:
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}{path}"

    def open(self, request: urllib.request.Request | str) -> Any:
        """Opens an address, trusting the server's own certificate alone where it has one."""
        context = None if self.certificate is None else ssl.create_default_context(cafile=self.certificate)
        return urllib.request.urlopen(request, timeout=60, context=context)

    def ask(self, path: str, body: bytes | None = None) -> Any:
        """Returns the answer's JSON document."""
        request = urllib.request.Request(self.url(path), body, self.headers)
        with self.open(request) as answer:
            return json.load(answer)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> None:
        """Ends it as a service manager does, and checks that nothing is left."""
        children = self.descendants()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, alive


def free_ports() -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        first, second = (one.getsockname()[1] for one in sockets)
        return first, second


@contextlib.contextmanager
def started(
    *arguments: object, headers: dict[str, str] | None = None, certificate: Path | None = None
) -> Iterator[Started]:
    """Starts ``sait-deploy serve`` and ends it, whatever happens in between."""
    port, grpc_port = free_ports()
    before = set(Path(tempfile.gettempdir()).glob("sait-*"))
    command = [sys.executable, "-m", "sait_deploy", "serve", *map(str, arguments)]
    command += ["--port", str(port), "--grpc-port", str(grpc_port), "--threads", "1"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            watchdog = time.monotonic() + START_SECONDS
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            line = ""
            while not line and process.poll() is None and time.monotonic() < watchdog:
                line = process.stdout.readline()
                time.sleep(0.05)
            running = Started(process, port, grpc_port, headers or {}, certificate)
            assert line.startswith(f"serving at {running.url('/')}, gRPC at port {grpc_port}"), _said(log)
            yield running
            if process.poll() is None:
                running.stop()
            assert headers or certificate or f"'{running.url('/v1/predict?top=3')}'" in _said(log)
        finally:
            _kill(process)
    left = {
        path for path in set(Path(tempfile.gettempdir()).glob("sait-*")) - before if (path / "session_latest").exists()
    }
    assert not left, left


def _said(log: IO[str]) -> str:
    """What is in a file that another process writes to, whose position is that process's, too."""
    return os.pread(log.fileno(), 1 << 20, 0).decode()


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a server that did not end, and its processes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in [*psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()
