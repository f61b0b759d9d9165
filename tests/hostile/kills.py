"""Kills commands at and between their writes, and looks at what is left: nothing broken, nothing half-written, nobody.

    python -m tests.hostile.kills WORLD REPORT [NUMBER] [COMMAND...]

A command runs in a forked process: once to its end, to count its writes, and then once for each kill. After SIGTERM and
SIGINT nothing may be left at once; after SIGKILL the same command is run again, to its end, and sweeps what is left.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from sait_deploy.demo import IMAGES
from sait_deploy.system.interrupts import INTERRUPTED
from tests.hostile.world import ADAPTIVE, DENSE, TRAIN

SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ORPHAN_SECONDS: Final = 2
_POLL: Final = 0.05
MARK: Final = "SAIT_KILLED"
_OF: Final = ("--images", "images")
_BENCH: Final = ("--memory", "-o", "b.json")
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "export": ("export", "--model", "test_vit", "--weights", "weights.safetensors", "--imgsz", "96", "--overwrite"),
    "quantize": ("quantize", ADAPTIVE, DENSE, "--images", str(IMAGES), "--min-agreement", "0", "--overwrite"),
    "build-engine": ("build-engine", DENSE, "--builder", "tensorrt-rtx", "--target", "sm86"),
    "tune": ("tune", ADAPTIVE, *_OF, "--max-disagreement", "99", "--grid", "0.9,0.5"),
    "train": (*TRAIN[: TRAIN.index("-o")], "-o", "training"),
    "bench": ("bench", ADAPTIVE, *_OF, "--duration", "0.2", "--warmup", "0", "--batch", "1", *_BENCH),
    "batch": ("batch", "images", "-o", "job", "--artifact", ADAPTIVE),
}
_NUMBERS: Final = itertools.count()
_WRITES: Final = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"})


@dataclasses.dataclass(frozen=True)
class Kill:
    """A signal for a command: at its n-th write, or after some seconds."""

    command: str
    number: signal.Signals
    write: int | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a kill: its problems, in words; none where all is right."""

    command: str
    signal: str
    at: str
    exit_code: int
    problems: tuple[str, ...]


def started(command: str, folder: Path, mark: str, write: int | None, number: signal.Signals) -> int:
    """Runs a command in a forked process of a group of its own, which signals itself at a write; returns its number."""
    process = os.fork()
    if process == 0:
        _run(command, folder, mark, write, number)
    return process


def _run(command: str, folder: Path, mark: str, write: int | None, number: signal.Signals) -> NoReturn:
    os.setpgid(0, 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    os.chdir(folder / "w")
    os.environ |= {MARK: mark, "TMPDIR": str(folder / "t"), "XDG_STATE_HOME": str(folder / "state")}
    tempfile.tempdir = None
    counter = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = str(folder) in str(Path.cwd() / str(arguments[0])) if writes or event in _WRITES else False
        if inside and next(counter) == write:
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    from sait_deploy.cli import run

    code = 1
    try:
        run(list(COMMANDS[command]))
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        seen = next(counter)
        (folder / "writes").write_text(str(seen), encoding="ascii")
        os._exit(code)


def killed(kill: Kill, world: Path, scratch: Path) -> Outcome:
    """Kills a command once and says what is wrong with what is left."""
    folder = fresh(world, scratch)
    mark = str(folder)
    process = started(kill.command, folder, mark, kill.write, kill.number)
    timer = threading.Timer(kill.seconds, os.kill, (process, kill.number))
    if kill.write is None:
        timer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    timer.cancel()
    problems = list(_problems(kill, folder, code, process, mark))
    if kill.number is signal.SIGKILL and not problems:
        again = started(kill.command, folder, mark, None, kill.number)
        last = os.waitstatus_to_exitcode(os.waitpid(again, 0)[1])
        if last:
            problems.append(f"the next run ends with {last}: {_last_line(folder)}")
        problems += (f"the next run leaves {name}" for name in left_over(folder))
        problems += broken(folder)
    shutil.rmtree(folder, ignore_errors=True)
    at = f"{kill.seconds:.2f} s" if kill.write is None else f"write {kill.write}"
    return Outcome(kill.command, kill.number.name, at, code, tuple(problems))


def _problems(kill: Kill, folder: Path, code: int, process: int, mark: str) -> Iterator[str]:
    wanted = -kill.number if kill.number is signal.SIGKILL else 128 + kill.number
    said = (folder / "err").read_text(encoding="utf-8", errors="replace")
    if code not in (wanted, 0):
        yield f"it ends with {code}: {_last_line(folder)}"
    if "Traceback" in said or "Exception ignored" in said:
        yield "a traceback is shown"
    if code == 128 + kill.number and not said.endswith(f"{INTERRUPTED}\n"):
        yield f"it says {_last_line(folder)}"
    if kill.number is not signal.SIGKILL:  # else what was put aside is put back by the next run
        yield from (f"it leaves {name}" for name in left_over(folder))
        yield from broken(folder)
    for _ in range(round(ORPHAN_SECONDS / _POLL)):  # by its own steps: this process may be stopped with all others
        if not (alive := orphans(process, mark)):
            break
        time.sleep(_POLL)
    if alive:
        yield f"{len(alive)} processes are there after {ORPHAN_SECONDS} s"


def _last_line(folder: Path) -> str:
    lines = (folder / "err").read_text(encoding="utf-8", errors="replace").splitlines()
    return repr(lines[-1] if lines else "")


def fresh(world: Path, scratch: Path) -> Path:
    """Returns a folder with a copy of the world, and a place for temporary files."""
    folder = scratch / str(next(_NUMBERS))  # short, as names of sockets below are
    shutil.copytree(world, folder / "w")
    (folder / "t").mkdir()
    return folder


def left_over(folder: Path) -> list[str]:
    """Returns what is in no place that is its own: partial files, what was put aside, temporary files."""
    names = [str(path.relative_to(folder)) for path in (folder / "t").iterdir()]
    for path in (folder / "w").rglob(".*"):
        names.append(str(path.relative_to(folder)))
    return names


def broken(folder: Path) -> Iterator[str]:
    """Yields artifacts, engines, reports, states and files of rows that are not whole."""
    from sait_deploy.artifacts.folder import Workspace, open_artifact
    from sait_deploy.batch.place import open_place
    from sait_deploy.batch.rows import read_counts
    from sait_deploy.engine.folder import engine_folders, open_engine
    from sait_deploy.errors import SaitError
    from sait_deploy.training.state import read_state

    place = folder / "w"
    try:
        for path in (place / DENSE, place / ADAPTIVE, *Workspace(place / "artifacts").artifacts()):
            artifact = open_artifact(path)
            for engine in engine_folders(artifact):
                open_engine(artifact, engine)
        for report in (place / "b.json", place / "artifacts" / "last-export.json"):
            if report.exists():
                json.loads(report.read_text(encoding="utf-8"))
        read_state(place / "training")
        for number, _ in enumerate((place / "job").glob("part-*.parquet")):
            read_counts(open_place(str(place / "job")), number)
    except (SaitError, ValueError) as error:
        yield f"{type(error).__name__}: {error}"


def orphans(group: int, mark: str) -> list[int]:
    """Returns processes of a group, and others that were started with that mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
                marked = f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if state[0] != "Z" and (int(state[2]) == group or marked):
                found.append(int(entry.name))
    return found


def kills(command: str, number: int, world: Path, scratch: Path) -> list[Kill]:
    """Returns kills of a command: every other one at a write, the others between, all signals in turn.

    Raises:
        RuntimeError: the command fails without being killed.
    """
    folder, began = fresh(world, scratch), time.monotonic()
    process = started(command, folder, str(folder), None, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seconds = time.monotonic() - began
    if code or left_over(folder) or list(broken(folder)):
        raise RuntimeError(f"{command} ends with {code}: {_last_line(folder)} {left_over(folder)}")
    writes = int((folder / "writes").read_text(encoding="ascii"))
    shutil.rmtree(folder, ignore_errors=True)
    chosen = []
    for index in range(number):
        share = (index + 0.5) / number
        write = int(share * writes) if index % 2 == 0 else None
        chosen.append(Kill(command, SIGNALS[(index // 2) % 3], write, share * seconds))
    return chosen


def prepare() -> None:
    """Imports what commands need, so that each forked process has it."""
    import onnx
    import onnxruntime
    import timm
    import torch

    import sait_deploy.cli.batch
    import sait_deploy.cli.bench
    import sait_deploy.cli.build_engine
    import sait_deploy.cli.export
    import sait_deploy.cli.quantize
    import sait_deploy.cli.train
    import sait_deploy.cli.tune

    assert all((onnx, onnxruntime, timm, torch, sait_deploy))


def main(arguments: list[str]) -> int:
    """Kills, and writes a report after each command; what it says of other commands stays."""
    world, report = Path(arguments[0]), Path(arguments[1])
    number = int(arguments[2]) if len(arguments) > 2 else 200
    names = arguments[3:] or list(COMMANDS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as scratch:
        for index, name in enumerate(names):
            share = number // len(names) + (index < number % len(names))
            outcomes = []
            for kill in kills(name, share, world, Path(scratch)):
                outcomes.append(killed(kill, world, Path(scratch)))
                for problem in outcomes[-1].problems:
                    print(f"{name} {kill.number.name} at {outcomes[-1].at}: {problem}", flush=True)
            print(f"{name}: {share} kills", flush=True)
            _report(report, name, outcomes)
            wrong += sum(bool(one.problems) for one in outcomes)
    return 1 if wrong else 0


def _report(report: Path, command: str, outcomes: list[Outcome]) -> None:
    """Puts what came of a command's kills into the report."""
    before = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"counts": [], "wrong": []}
    counts = collections.Counter((one.signal, one.exit_code) for one in outcomes)
    rows = [{"command": command, "signal": s, "exit_code": e, "kills": n} for (s, e), n in sorted(counts.items())]
    rows += [row for row in before["counts"] if row["command"] != command]
    wrong = [dataclasses.asdict(one) for one in outcomes if one.problems]
    wrong += [one for one in before["wrong"] if one["command"] != command]
    document = {
        "command": "python -m tests.hostile.kills WORLD FILE [NUMBER] [COMMAND...]",
        "kills": sum(row["kills"] for row in rows),
        "wrong": wrong,
        "counts": sorted(rows, key=lambda row: (row["command"], row["signal"], row["exit_code"])),
    }
    report.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
