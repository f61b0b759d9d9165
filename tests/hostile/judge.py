"""Runs cases, each in a forked process of its own, and judges what came of them.

    python -m tests.hostile.judge WORLD < names > verdicts

A name of a case stands on each line of the input, and on each of the output a verdict as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
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
_IMPORTED = "imported"
_WITH_THREADS = ("openvino", "tensorrt", "ray", "grpc")
"""How packages are called that no process which forks should have imported."""

_ONCE: set[str] = set()
"""Modules that the process of some case has imported."""


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
        ended = threading.Event()
        watch = threading.Thread(target=_end_late, args=(process, started, ended))
        watch.start()
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        ended.set()
        watch.join()
        seconds = _seconds(process, started)
        _, status, used = os.wait4(process, 0)
        _import_too(folder / _IMPORTED)
        return _judged(case, folder, status, used, seconds)
    finally:
        _remove(folder)


def _end_late(process: int, started: float, ended: threading.Event) -> None:
    while not ended.wait(SECONDS - _seconds(process, started)):
        if _seconds(process, started) >= SECONDS:
            os.killpg(process, signal.SIGKILL)
            return


def _seconds(process: int, started: float) -> float:
    """How long a process has run since it started, without the time in which others had the processors."""
    waited = Path(f"/proc/{process}/schedstat")
    return time.monotonic() - started - (int(waited.read_text().split()[1]) / 1e9 if waited.exists() else 0)


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
        (folder / _IMPORTED).write_text("\n".join(sys.modules), encoding="utf-8")
        os._exit(code)


def _import_too(listed: Path) -> None:
    """Imports what the processes of two cases have imported, so that the next ones need not."""
    names = listed.read_text(encoding="utf-8").split("\n") if listed.exists() else []
    for name in names:
        if name in _ONCE and name not in sys.modules and not name.startswith(_WITH_THREADS):
            with contextlib.suppress(ImportError):  # a name in ``sys.modules`` need not be one to import
                importlib.import_module(name)
    _ONCE.update(names)
    gc.freeze()


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
    """Imports and makes what cases need, so that each forked process has it."""
    import numpy
    import onnx
    import onnxruntime
    import PIL

    import sait_deploy.cli.inspect
    import sait_deploy.cli.predict
    from sait_deploy.artifacts.codec import adapter
    from sait_deploy.artifacts.manifest import Manifest
    from sait_deploy.artifacts.tuned_points import TunedPoint
    from sait_deploy.batch.record import JobRecord
    from sait_deploy.engine.manifest import EngineManifest

    assert all((numpy, onnx, onnxruntime, PIL, sait_deploy))
    for kind in (Manifest, TunedPoint, JobRecord, EngineManifest):
        adapter(kind)
    if heavy:
        import timm
        import torch

        assert timm and torch
    gc.freeze()  # collecting in a forked process would copy all its memory


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
            outcome = judge(case, world, Path(scratch))
            if outcome.verdict == Verdict.HUNG:  # or the machine was busy or stopped meanwhile: a hang hangs again
                outcome = judge(case, world, Path(scratch))
            print(json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
