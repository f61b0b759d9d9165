"""What a process leaves running is ended, and its folder removed, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sait_deploy.system.afterwards import ended_afterwards
from tests.cli.calls import child_environment

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="processes are found by /proc")

_STARTER = """
import os, subprocess, sys, time
from pathlib import Path
from sait_deploy.system.afterwards import ended_afterwards
folder = Path(sys.argv[1])
with ended_afterwards(folder):
    with open(folder / "log", "w") as log:
        writer = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; sleep 60 & wait"], stdout=log)
    reader = subprocess.Popen(["sleep", "60"], stdin=open(folder / "log"), start_new_session=True)
    print(writer.pid, reader.pid, flush=True)
    time.sleep(60 if sys.argv[2] == "stay" else 0)
print("out", flush=True)
"""


def _is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_for_no(path: Path) -> None:
    for _ in range(200):
        if not path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} is there")


@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGTERM])
def test_writers_end_and_the_folder_goes(tmp_path: Path, number: signal.Signals | None) -> None:
    folder = tmp_path / "sait"
    folder.mkdir()
    command = [sys.executable, "-c", _STARTER, str(folder), "stay" if number else "leave"]
    with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        writer, reader = map(int, child.stdout.readline().split())
        try:
            if number is not None:
                child.send_signal(number)
            child.wait(20)
            if number is not None:
                _wait_for_no(folder)
            assert not folder.exists()
            assert not _is_there(writer)
            assert _is_there(reader), "a process of another session only looks at the folder"
        finally:
            os.kill(reader, signal.SIGKILL)


def test_other_processes_stay(tmp_path: Path) -> None:
    folder, beside = tmp_path / "sait", tmp_path / "sait-other"
    folder.mkdir()
    beside.mkdir()
    with (beside / "log").open("w") as log, subprocess.Popen(["sleep", "60"], stdout=log) as other:
        with ended_afterwards(folder):
            pass
        assert not folder.exists()
        assert beside.exists()
        assert other.poll() is None
        other.kill()
