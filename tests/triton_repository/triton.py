"""The server that nvidia-pytriton carries, in an environment of its own, as it wants NumPy before 2."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.started import free_ports
from tests.shared import made_once

PACKAGES = ("nvidia-pytriton", "numpy<2", "onnx-graphsurgeon")
READY_SECONDS = 120


def triton_python(wheel: Path) -> Path:
    """Returns the Python of an environment with the server and this package; skips where they cannot be installed.

    The server's Python reads no ``PYTHONPATH``: what its models import is installed.
    """

    def install(folder: Path) -> str:
        python, packages = folder / "venv" / "bin" / "python", [f"{wheel}[cpu]", *PACKAGES]
        for command in ([sys.executable, "-m", "venv", folder / "venv"], [python, "-m", "pip", "install", *packages]):
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
            if done.returncode:
                return "failed: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return str(python)

    found = made_once("pytriton", install)
    if found.startswith("failed: "):
        pytest.skip(f"nvidia-pytriton cannot be installed: {found.removeprefix('failed: ')}")
    return Path(found)


def _asked(python: Path, code: str) -> list[str]:
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def serving(repository: Path, python: Path) -> Iterator[str]:
    """Serves a repository on loopback and yields the address of gRPC; every model is ready.

    Args:
        repository: the models.
        python: of an environment with the server.
    """
    packages, version, libraries = _asked(
        python,
        "import json, sys, sysconfig; print(json.dumps([sysconfig.get_path('purelib'), "
        "'%d.%d' % sys.version_info[:2], sysconfig.get_config_var('LIBDIR')]))",
    )
    port, grpc_port = free_ports()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        place = Path(shutil.copytree(Path(packages, "pytriton", "tritonserver"), Path(folder, "triton")))
        stub = place / "backends" / "python" / "triton_python_backend_stub"
        shutil.copy(place / "python_backend_stubs" / version / stub.name, stub)
        stub.chmod(0o755)
        environment = dict(os.environ)
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([str(Path(packages, "nvidia_pytriton.libs")), libraries])
        options = {
            "model-repository": repository,
            "backend-directory": place / "backends",
            "http-address": "127.0.0.1",
            "grpc-address": "127.0.0.1",
            "http-port": port,
            "grpc-port": grpc_port,
            "allow-metrics": "false",
        }
        command = [place / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen([*map(str, command)], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}/v2/health/ready", process)
            yield f"127.0.0.1:{grpc_port}"
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        assert process.poll() is None and time.monotonic() < give_up, "the server did not become ready"
        time.sleep(0.1)
