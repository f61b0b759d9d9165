"""Ray's processes and its folder end with the process that started them, whenever a signal arrives."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calls import child_environment
from tests.hostile.remains import MARK, processes

_SCRIPT = """
import os, signal, sys, threading, time
from sait_deploy.serving.ray_processes import connected, import_ray
from sait_deploy.system import interrupts

def is_handled():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> signal.SIGTERM - 1 & 1)

def send(ended):
    ended.wait()
    time.sleep(0.01)
    print(is_handled(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

interrupts.unwind()
ray, ended = import_ray(True), threading.Event()
try:
    with connected(ray, None, 1):
        if sys.argv[1] == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        node = ray._private.worker._global_node
        end = node.kill_all_processes
        node.kill_all_processes = lambda *one, **other: [ended.set(), time.sleep(1), end(*one, **other)]
        threading.Thread(target=send, args=(ended,), daemon=True).start()
except interrupts.Ended as error:
    sys.exit(error.exit_code)
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for those of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are found by /proc")
@pytest.mark.parametrize(("number", "code", "told"), [("SIGTERM", 143, "True\n"), ("SIGKILL", -9, "")])
def test_nothing_stays(number: str, code: int, told: str, short: Path) -> None:
    pytest.importorskip("ray", reason="Ray has no wheel here")
    environment = child_environment(TMPDIR=str(short), **{MARK: str(short)})
    command = [sys.executable, "-c", _SCRIPT, number]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, told)
    for _ in range(40):
        if not (left := processes(0, str(short))) and not list(short.iterdir()):
            break
        time.sleep(0.05)
    assert not left
    assert not list(short.iterdir())
