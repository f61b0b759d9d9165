"""Runtimes send nothing and leave nothing behind: seen in a network of its own, with an empty home."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.system.telemetry import SWITCH
from tests.exported import TinyExport
from tests.test_imports import files

_WATCHED = """
import json, os, pathlib, socket, sys, time

guard = sys.argv[2] == "guarded"
asked = []
real = socket.getaddrinfo


def watched(*arguments, **named):
    asked.append(str(arguments))
    if guard:
        raise OSError("no network in this test")
    return real(*arguments, **named)


socket.getaddrinfo = watched

import sait_deploy
from sait_deploy.runtime.registry import RUNTIMES

for runtime in ("onnxruntime", "openvino"):
    RUNTIMES[runtime].trial()
    sait_deploy.load(sys.argv[1], runtime)
time.sleep(1)
lines = pathlib.Path("/proc/net/snmp").read_text().splitlines()
ip = dict(zip(*(line.split()[1:] for line in lines if line.startswith("Ip:"))))
sent = {name: int(ip[name]) for name in ("OutRequests", "OutNoRoutes")}
left = [str(path) for path in pathlib.Path(os.environ["HOME"]).rglob("*")]
print(json.dumps({"asked": asked, "sent": None if guard else sent, "left": left}))
"""

ALONE = ("unshare", "--user", "--map-root-user", "--net")


def alone() -> tuple[str, ...]:
    """What runs a command in a network of its own; nothing where that is not permitted."""
    if shutil.which("unshare") is None:
        return ()
    return ALONE if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0 else ()


def watched(artifact: Path, home: Path, switch: str) -> dict[str, object]:
    pytest.importorskip("openvino")
    home.mkdir()
    before = alone()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [*before, sys.executable, "-c", _WATCHED, str(artifact), "alone" if before else "guarded"]
    done = subprocess.run(
        command, env=environment | {"HOME": str(home), SWITCH: switch}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_runtimes_send_nothing_and_leave_nothing_in_the_home(tiny: TinyExport, tmp_path: Path) -> None:
    found = watched(tiny.dense.path, tmp_path / "home", "")
    assert (found["asked"], found["left"]) == ([], [])
    if found["sent"] is None:
        pytest.skip("a network of its own is not permitted: Python's look-ups were guarded, native ones were not seen")
    assert found["sent"] == {"OutRequests": 0, "OutNoRoutes": 0}


def test_the_switch_leaves_telemetry_as_it_is(tiny: TinyExport, tmp_path: Path) -> None:
    """What the test above would see."""
    found = watched(tiny.dense.path, tmp_path / "home", "1")
    assert found["asked"] or found["left"]


def test_runtimes_are_imported_by_one_function_alone() -> None:
    """A module that imports a part of onnxruntime asks for the package first."""
    wrong = []
    for name, file in files().items():
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(part.partition(".")[0] in ("onnxruntime", "openvino") for part in names):
                wrong += [] if "require_onnxruntime()" in source and "." in names[0] else [name]
    assert wrong == []
