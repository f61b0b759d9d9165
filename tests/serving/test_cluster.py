"""The command on a cluster that is there already: a Ray of one machine, started as Ray's own command does."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.serving.confinement import ENVIRONMENT
from sait_deploy.system.children import child_environment
from tests.serving.started import Started, free_ports, started

pytest.importorskip("ray", reason="Ray has no wheel here")

DIGIT = sorted((demo.IMAGES / "7").iterdir())[0]
START_SECONDS = 120


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, str]]:
    """Runs a Ray on loopback until the block ends, and yields its address and that for clients."""
    port, client_port = free_ports()
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client_port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]
    command += [f"--object-store-memory={200 << 20}"]
    process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < give_up
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        for child in (psutil.Process(process.pid), *children):  # told to end, it would wait half a minute for requests
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def joined(artifact: Path, address: str) -> Iterator[Started]:
    """Serves on the cluster; asks again where Ray on a busy machine gave up the process that it starts for a client."""
    with contextlib.ExitStack() as stack:
        for last in (False, False, True):
            try:
                server = stack.enter_context(started(artifact, "--address", address))
                break
            except AssertionError as error:
                if last or "Initialization failure from server" not in str(error):
                    raise
        yield server


@pytest.mark.slow
def test_a_server_runs_on_a_cluster_for_as_long_as_the_command_does(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray takes 127.0.0.1 in an address for this machine's own, where a Ray on loopback does not listen.
    for name, value in {**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}.items():
        monkeypatch.setenv(name, value)
    with cluster() as addresses:
        for address in addresses:
            with joined(tiny_adaptive.path, address) as server:
                found = server.ask("/v1/predict?point=fast", DIGIT.read_bytes())
                assert (found["point"], found["of"]) == ("fast", 36)
                _check_grpc(server)
                port = server.port
            with socket.socket() as again:  # what served is gone from the cluster, its port too
                again.settimeout(5)
                assert again.connect_ex(("127.0.0.1", port)) != 0, address


def _check_grpc(server: Started) -> None:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=60)
    assert answer == bytes([8, 1]), "a message that says ready"
