"""Kills commands at imports, at writes and between, and looks at what is left: nothing broken, half-written or running.

    python -m tests.hostile.kills WORLD REPORT [NUMBER] [COMMAND...]

A command runs to its end twice, to count its imports and its writes, and then once for each kill: in a process of its
own where it is killed at an import, else in a forked one, which has imported already. After SIGTERM and SIGINT nothing
may be left at once; after a few SIGKILLs in a row the same command is run to its end, and sweeps what they left.
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
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

from sait_deploy.demo import IMAGES
from sait_deploy.system.interrupts import INTERRUPTED
from tests.cli.calls import child_environment
from tests.hostile.remains import MARK, broken, left_over, processes
from tests.hostile.starting import IMPORTS, send
from tests.hostile.world import ADAPTIVE, DENSE, TRAIN

SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ORPHAN_SECONDS: Final = 2
IN_A_ROW: Final = 4
"""SIGKILLs before the command is run to its end."""

_POLL: Final = 0.05
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


class Moment(StrEnum):
    """What is counted until a command is killed."""

    IMPORT = "import"
    WRITE = "write"
    SECONDS = "s"


@dataclasses.dataclass(frozen=True)
class Kill:
    """A signal for a command: at its n-th import or write, or after some seconds."""

    command: str
    number: signal.Signals
    moment: Moment
    at: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a kill: its problems, in words; none where all is right."""

    command: str
    signal: str
    at: str
    exit_code: int
    problems: tuple[str, ...]


_NEVER: Final = -1


def started(kill: Kill, folder: Path) -> int:
    """Runs a command, which signals itself, in a process that leads a group of its own; returns its number."""
    process = os.fork()
    if process == 0:
        _run(kill, folder)
    return process


def _run(kill: Kill, folder: Path) -> NoReturn:
    os.setpgid(0, 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder / "w")
    os.environ |= {MARK: str(folder), "TMPDIR": str(folder / "t"), "XDG_STATE_HOME": str(folder / "state")}
    if kill.moment is Moment.IMPORT:
        arguments = ["-m", "tests.hostile.starting", str(kill.at), str(int(kill.number)), *COMMANDS[kill.command]]
        os.execve(sys.executable, [sys.executable, *arguments], child_environment(**{IMPORTS: str(folder / "seen")}))
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    tempfile.tempdir = None
    counter = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = str(folder) in str(Path.cwd() / str(arguments[0])) if writes or event in _WRITES else False
        if inside and next(counter) == kill.at and kill.moment is Moment.WRITE:
            send(os.getpid(), kill.number)

    sys.addaudithook(hook)
    from sait_deploy.cli import run

    code = 1
    try:
        run(list(COMMANDS[kill.command]))
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
        (folder / "seen").write_text(str(seen), encoding="ascii")
        os._exit(code)


def killed(kill: Kill, folder: Path) -> Outcome:
    """Kills a command once and says what is wrong with what is left."""
    process = started(kill, folder)
    timer = threading.Timer(kill.at, send, (process, kill.number))
    if kill.moment is Moment.SECONDS:
        timer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    timer.cancel()
    at = f"{kill.moment} {kill.at:.4g}"
    return Outcome(kill.command, kill.number.name, at, code, tuple(_problems(kill, folder, code, process)))


def killed_in_turn(chosen: Iterable[Kill], world: Path, scratch: Path) -> Iterator[Outcome]:
    """Kills a command; SIGKILLs a few times in a row, and then lets it run to its end where they killed it."""
    chosen = list(chosen)
    hard = [kill for kill in chosen if kill.number is signal.SIGKILL]
    rows = [hard[first : first + IN_A_ROW] for first in range(0, len(hard), IN_A_ROW)]
    rows += [[kill] for kill in chosen if kill.number is not signal.SIGKILL]
    for row in rows:
        folder = fresh(world, scratch)
        found = [killed(kill, folder) for kill in row]
        if row[0].number is signal.SIGKILL and not any(one.problems for one in found):
            found[-1] = dataclasses.replace(found[-1], problems=tuple(_problems_of_next(row[0].command, folder)))
        shutil.rmtree(folder, ignore_errors=True)
        yield from found


def _problems_of_next(command: str, folder: Path) -> Iterator[str]:
    code = ended(Kill(command, signal.SIGKILL, Moment.WRITE, _NEVER), folder)
    if code:
        yield f"the next run ends with {code}: {_last_line(folder)}"
    yield from (f"the next run leaves {name}" for name in left_over(folder))
    yield from broken(folder)


def ended(kill: Kill, folder: Path) -> int:
    """Runs a command to its end, and returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(started(kill, folder), 0)[1])


def _problems(kill: Kill, folder: Path, code: int, process: int) -> Iterator[str]:
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
        if not (alive := processes(process, str(folder))):
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


def kills(command: str, number: int, world: Path, scratch: Path) -> list[Kill]:
    """Returns kills of a command, spread over its run: at imports, at writes and between in turn, by all signals.

    Raises:
        RuntimeError: the command fails without being killed.
    """
    most: dict[Moment, float] = {}
    for moment in (Moment.IMPORT, Moment.WRITE):
        folder, began = fresh(world, scratch), time.monotonic()
        code = ended(Kill(command, signal.SIGKILL, moment, _NEVER), folder)
        if code or left_over(folder) or list(broken(folder)):
            raise RuntimeError(f"{command} ends with {code}: {_last_line(folder)} {left_over(folder)}")
        most |= {moment: int((folder / "seen").read_text(encoding="ascii")), Moment.SECONDS: time.monotonic() - began}
        shutil.rmtree(folder, ignore_errors=True)
    chosen = []
    for index in range(number):
        moment, share = list(Moment)[index % 3], (index + 0.5) / number
        at = share * most[moment] if moment is Moment.SECONDS else int(share * most[moment])
        chosen.append(Kill(command, SIGNALS[index // 3 % 3], moment, at))
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
            for one in killed_in_turn(kills(name, share, world, Path(scratch)), world, Path(scratch)):
                outcomes.append(one)
                for problem in one.problems:
                    print(f"{name} {one.signal} at {one.at}: {problem}", flush=True)
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
