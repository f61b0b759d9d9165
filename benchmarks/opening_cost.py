"""What the check of its graph costs where an artifact is opened: with it against without it, in processes of their own.

    python -m benchmarks.opening_cost

Once as a program does, ``load`` to a runner on ONNX Runtime that has not run yet, and once the artifact alone, both
sides in turn. Python's start and the imports that both make are not timed; those that the check alone makes are. The
artifacts are the demonstration model's and DeiT-S's, dense and adaptive, the latter with weights drawn at random.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import click

from benchmarks.common import environment, write

MODELS: Final = {"demonstration": (), "DeiT-S": ("--model", "deit_small_patch16_224", "--random-weights")}
FORMS: Final = ("dense", "adaptive")
ROUNDS: Final = 20
MOST: Final = 1.1
"""Seconds with the check over seconds without it: the target of ``load``."""

_LOAD, _OPEN = "load", "open"


def _child(path: Path, what: str, checked: bool) -> float:
    """Opens an artifact once and returns seconds."""
    from sait_deploy.artifacts import folder
    from sait_deploy.runtime import RunOptions, load

    if not checked:
        folder._check_graph = lambda *_: None
    started = time.perf_counter()
    if what == _LOAD:
        load(path, options=RunOptions(threads=1))
    else:
        folder.open_artifact(path)
    return time.perf_counter() - started


def _rounds(path: Path, what: str, rounds: int) -> dict[str, Any]:
    """Returns the seconds of both sides, and their ratios pair by pair; the first round warms the files up."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(rounds + 1):
        for side in sorted(seconds, reverse=turn % 2 == 0):
            command = [sys.executable, "-m", "benchmarks.opening_cost", "--child", side, "--what", what, "--path", path]
            done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
            if turn:
                seconds[side].append(round(float(done.stdout), 5))
    ratios = [a / b for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {"ratio": round(median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)], "seconds": seconds}


@click.command()
@click.option("--rounds", type=click.IntRange(min=2), default=ROUNDS, show_default=True)
@click.option("--child", type=click.Choice(["with", "without"]), hidden=True)
@click.option("--what", type=click.Choice([_LOAD, _OPEN]), hidden=True)
@click.option("--path", type=click.Path(path_type=Path), hidden=True)
def main(rounds: int, child: str | None, what: str, path: Path | None) -> None:
    """Measure and write results/opening_cost.json."""
    if child is not None and path is not None:
        click.echo(_child(path, what, child == "with"))
        return
    machine = environment("onnx", "onnxruntime")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, arguments in MODELS.items():
            folder = Path(place) / name
            command = [
                sys.executable,
                "-m",
                "sait_deploy",
                "export",
                *arguments,
                "--mass",
                "0.9",
                "--output",
                str(folder),
            ]
            subprocess.run(command, check=True, capture_output=True)
            for artifact in json.loads((folder / "last-export.json").read_text(encoding="utf-8")):
                form = next(form for form in FORMS if form in artifact)
                for one in (_LOAD, _OPEN):
                    rounds_of = found[f"{one} {name} {form}"] = _rounds(folder / artifact, one, rounds)
                    click.echo(f"{one} {name} {form}: {rounds_of['ratio']}", err=True)
    reached = all(one["ratio"] <= MOST for key, one in found.items() if key.startswith(_LOAD))
    found = {"target": MOST, "load_reaches_target": reached, "found": found}
    click.echo(write("opening_cost", f"python -m benchmarks.opening_cost --rounds {rounds}", found, machine))


if __name__ == "__main__":
    main()
