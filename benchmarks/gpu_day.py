"""The first day on a GPU as one command: steps by value, each in a process of its own with a time limit.

    python -m benchmarks.gpu_day --minutes 12 --output gpu_day.json
    python -m benchmarks.gpu_day --full --output gpu_day.json
    python -m benchmarks.gpu_day --dry-run

What a step finds is kept as it goes, also of one that is ended in time; a machine that goes away takes one step along.
``--dry-run`` runs the same steps on a processor, on small models; its times mean nothing. A step whose packages are
not installed is left out and says so.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import environment
from benchmarks.gpu_checks import KERNEL_FILES, RUNTIME_FILES, engines, float32, kernels, memory, million, tests
from benchmarks.gpu_full import everywhere, peers, seconds_everywhere, spread, where_time_goes
from benchmarks.gpu_steps import (
    FIRST,
    Step,
    answers,
    attention,
    on_gpu,
    operators,
    rehearsal,
    scoring,
    selection,
    speed,
)
from sait_deploy.artifacts.files import write_whole
from sait_deploy.errors import SaitError
from sait_deploy.runtime.torch_cuda import gpu

MINUTES, FULL_MINUTES = 12, 250
DAY: Final[dict[str, Step]] = {
    FIRST: Step(60, selection),
    "operators": Step(40, operators),
    "float32": Step(40, float32),
    "answers": Step(100, answers),
    "speed": Step(290, speed),
    "a million rows": Step(60, million),
    "kernels": Step(70, kernels),
    "attention": Step(30, attention),
    "scoring": Step(30, scoring),
}
"""By value: where time runs out, the last are left out. The limits together are what a day takes at most."""

_ON_GPU: Final = ("-m", "gpu")
_TESTS: Final = ("pytest", "xdist", "hypothesis")
_EXPORTS: Final = (*_TESTS, "filelock", "pydantic", "onnxruntime", "onnxscript", "onnx_graphsurgeon")


def _everywhere(model: str) -> dict[str, Step]:
    return {f"everywhere, {model}": Step(seconds_everywhere(model), functools.partial(everywhere, model=model))}


FULL_DAY: Final[dict[str, Step]] = {
    **DAY,
    "tests of kernels": Step(300, functools.partial(tests, files=(*_ON_GPU, *KERNEL_FILES)), _TESTS),
    "tests of runtimes": Step(600, functools.partial(tests, files=(*_ON_GPU, *RUNTIME_FILES)), _EXPORTS),
    "tensorrt": Step(600, functools.partial(engines, package="tensorrt"), _EXPORTS),
    "tensorrt-rtx": Step(300, functools.partial(engines, package="tensorrt_rtx"), _EXPORTS),
    "memory": Step(180, memory),
    **_everywhere("deit_small_patch16_224"),
    **_everywhere("vit_base_patch16_224"),
    "spread": Step(300, spread),
    "where time goes": Step(180, where_time_goes),
    "peers": Step(900, peers),
    **_everywhere("vit_large_patch16_224"),
}
"""Likewise; the largest model, which takes longest to compile, comes last."""

_LAST_LINES: Final = 3
_LEAST_SECONDS: Final = 5.0
_REHEARSED: Final = 4
"""Times its limit a step has on a processor, which may be slow or busy."""


def _in_time(command: list[str], seconds: float) -> tuple[str, str]:
    """Runs a command, ends it in time with all that it started, and returns its state and what it said as an error."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
            return ("done" if process.returncode == 0 else "failed"), said
        except subprocess.TimeoutExpired:
            return f"ended after {seconds:.0f} s", ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _run_step(name: str, seconds: float, dry_run: bool) -> dict[str, Any]:
    """Runs a step in a process of its own and returns its state, its seconds and what it found or said last."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.gpu_day", "--step", name, "--output", str(found)]
        command += ["--dry-run"] if dry_run else []
        state, said = _in_time(command, seconds)
        result: dict[str, Any] = {"state": state, "seconds": round(time.perf_counter() - started, 1)}
        if found.is_file():
            result["found"] = json.loads(found.read_text(encoding="utf-8"))
            if why := result["found"].get("left out"):
                result["said"] = [f"left out: {why}"]
        return result if state == "done" else result | {"said": said.strip().splitlines()[-_LAST_LINES:]}


def _missing(step: Step) -> str:
    """Returns which packages a step lacks, in words; nothing where it can start."""
    lacking = [package for package in step.needs if importlib.util.find_spec(package) is None]
    return f"left out, as there is no {' and no '.join(lacking)}" if lacking else ""


def _machine(dry_run: bool) -> dict[str, str]:
    import torch

    known = environment("torch", "timm")
    if dry_run or not torch.cuda.is_available():
        return known | {"gpu": "none: times mean nothing"}
    about = torch.cuda.get_device_properties(torch.cuda.current_device())
    return known | {
        "gpu": about.name,
        "compute capability": f"{about.major}.{about.minor}",
        "CUDA": str(torch.version.cuda),
    }


def _write(output: Path, document: dict[str, Any]) -> None:
    write_whole(output, (json.dumps(document, indent=1) + "\n").encode())


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help=f"[default: {MINUTES}, with --full {FULL_MINUTES}]",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("gpu_day.json"), show_default=True
)
@click.option("--step", "only", type=click.Choice(list(FULL_DAY)), help="Run one step in this process.")
@click.option("--full", is_flag=True, help="Run also what takes longer: every size, spread, kernels, other methods.")
@click.option("--dry-run", is_flag=True, help="Run every step on a processor, on small models.")
def main(minutes: float | None, output: Path, only: str | None, full: bool, dry_run: bool) -> None:
    """Run the steps, and write what they found."""
    try:
        if not dry_run:
            gpu()
    except SaitError as error:
        raise SystemExit(f"error: {error.message}\nhint: --dry-run runs the steps on a processor") from None
    if only is not None:
        if missing := _missing(FULL_DAY[only]):
            raise SystemExit(f"{only}: {missing}")
        for found in FULL_DAY[only].run(rehearsal() if dry_run else on_gpu()):
            _write(output, found)
        return
    minutes = minutes or (FULL_MINUTES if full else MINUTES)
    deadline, steps = time.monotonic() + 60 * minutes, {}
    command = f"python -m benchmarks.gpu_day{' --full' if full else ''} --minutes {minutes:g}"
    document: dict[str, Any] = {"command": command, "dry run": dry_run}
    document |= {"environment": _machine(dry_run), "steps": steps}
    for name, step in (FULL_DAY if full else DAY).items():
        left = deadline - time.monotonic()
        first = steps.get(FIRST, {}).get("state", "done")
        if left < _LEAST_SECONDS:
            steps[name] = {"state": "left out, as no time was left"}
        elif first != "done":
            steps[name] = {"state": f"left out, as {FIRST} {first}"}
        elif missing := _missing(step):
            steps[name] = {"state": missing}
        else:
            steps[name] = _run_step(name, min(step.seconds * (_REHEARSED if dry_run else 1), left), dry_run)
        _write(output, document)
        click.echo(f"{name}: {steps[name]['state']}, {steps[name].get('seconds', 0)} s", err=True)
        for line in steps[name].get("said", []):
            click.echo(f"  {line}", err=True)
    click.echo(output)
    if any(one["state"] != "done" for one in steps.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
