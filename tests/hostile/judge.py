"""Runs cases, each in a forked process of its own, and judges what came of them.

    python -m tests.hostile.judge WORLD < names > verdicts

A name of a case stands on each line of the input, and on each of the output a verdict as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any, NoReturn

from tests.hostile import batches, engines
from tests.hostile.case import Case, Verdict
from tests.hostile.cases import CODE_RAN, all_cases

SECONDS = 20
BYTES = 4 << 30
_UNEXPECTED = 70
_LOOKED_UP = "looked-up"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case, with the last line that it printed."""

    name: str
    kind: str
    verdict: str
    exit_code: int
    seconds: float
    mebibytes: int
    said: str


def judge(case: Case, world: Path, scratch: Path) -> Outcome:
    """Runs a case on a copy of the world."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        shutil.copytree(world, folder / "w", symlinks=True)
        case.change(folder / "w")
        started = time.monotonic()
        process = os.fork()
        if process == 0:
            _run(case, folder)
        timer = threading.Timer(SECONDS, os.killpg, (process, signal.SIGKILL))
        timer.start()
        _, status, used = os.wait4(process, 0)
        timer.cancel()
        seconds = time.monotonic() - started
        return _judged(case, folder, status, used, seconds)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # Folders that go thousands deep are too deep for Python's own removal.
    os.system(f"rm -rf {folder}")


def _run(case: Case, folder: Path) -> NoReturn:
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    os.chdir(folder / "w")
    home = folder / "home"
    home.mkdir()
    os.environ |= {"HOME": str(home), CODE_RAN: str(folder / "ran")}
    _guard_sockets(folder / _LOOKED_UP)
    if case.door.arguments[0] == "batch":
        batches.without_ray()
    if case.kind == engines.KIND:
        engines.on_stand_in(folder / "ran")
    resource.setrlimit(resource.RLIMIT_AS, (4 * BYTES, 4 * BYTES))
    from sait_deploy.cli import run

    code = 1
    try:
        run(list(case.door.arguments))
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        code = _UNEXPECTED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _guard_sockets(record: Path) -> None:
    def refuse(*arguments: Any, **named: Any) -> NoReturn:
        import traceback

        record.write_text(repr(arguments) + "".join(traceback.format_stack()))
        raise OSError("no network in this test")

    socket.getaddrinfo = refuse
    socket.socket.connect = refuse  # type: ignore[method-assign]


def _judged(case: Case, folder: Path, status: int, used: Any, seconds: float) -> Outcome:
    printed = "".join((folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
    lines = [line for line in printed.splitlines() if line and not line.startswith("next: ")]
    code = os.waitstatus_to_exitcode(status)
    verdict, said = _verdict(folder, printed, code, seconds, used.ru_maxrss << 10), lines[-1] if lines else ""
    return Outcome(case.name, case.kind, verdict, code, round(seconds, 2), used.ru_maxrss >> 10, said)


def _verdict(folder: Path, printed: str, code: int, seconds: float, used: int) -> Verdict:
    if (folder / "ran").exists():
        return Verdict.RAN_CODE
    if (folder / _LOOKED_UP).exists():
        return Verdict.LOOKED_UP
    if seconds >= SECONDS:
        return Verdict.HUNG
    if used > BYTES:
        return Verdict.LARGE
    if code < 0:
        return Verdict.CRASHED
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n" for c in printed):
        return Verdict.ESCAPED
    if code == _UNEXPECTED or "Traceback" in printed:
        return Verdict.UNEXPECTED
    return Verdict.ANSWERED if code == 0 else Verdict.REFUSED


def prepare(heavy: bool) -> None:
    """Imports what cases need, so that each forked process has it."""
    import numpy
    import onnx
    import onnxruntime
    import PIL
    import pydantic

    import sait_deploy.cli.inspect
    import sait_deploy.cli.predict

    assert all((numpy, onnx, onnxruntime, PIL, pydantic, sait_deploy))
    if heavy:
        import timm
        import torch

        assert timm and torch


def main() -> None:
    """Judges the cases named on standard input."""
    world = Path(sys.argv[1])
    known = {case.name: case for case in all_cases()}
    chosen = [known[name] for name in sys.stdin.read().split("\n") if name]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare(any(case.door.heavy for case in chosen))
    memory = Path("/dev/shm")  # copies of the world are made faster there
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        for case in chosen:
            print(json.dumps(dataclasses.asdict(judge(case, world, Path(scratch)))), flush=True)


if __name__ == "__main__":
    main()
