"""What opening an artifact costs by this source tree against another, such as a release before: a process each time.

    git archive 366cb3b | tar x -C BEFORE
    python -m benchmarks.opening_cost --before BEFORE

366cb3b is the last version that checked of an artifact no more than its files' digests and where its weights lie.

Once as a program does, ``load`` to a runner on ONNX Runtime that has not run yet, and once the artifact alone, both
sides in turn. Python's start and the imports that both make are not timed; those that opening makes are. Opening keeps
one processor busy: its seconds of a processor, which the target is about, are those of a quiet machine on a busy one,
too. The artifacts are the demonstration model's and DeiT-S's, dense and adaptive, the latter with weights drawn at
random.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import click

from benchmarks.common import environment, write

MODELS: Final = {"demonstration": (), "DeiT-S": ("--model", "deit_small_patch16_224", "--random-weights")}
FORMS: Final = ("dense", "adaptive")
ROUNDS: Final = 20
MOST: Final = 1.1
"""Processor seconds of this source tree over those of the other: the target of ``load``."""

_BEFORE, _NOW = "before", "now"
_PROCESSOR, _CLOCK = "processor seconds", "seconds"
_CALLS: Final = {"load": "load(path, options=RunOptions(threads=1))", "open": "open_artifact(path)"}
_CHILD: Final = """
import sys, time
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.runtime import RunOptions, load
path = sys.argv[1]
processor, clock = time.process_time(), time.perf_counter()
{call}
print(time.process_time() - processor, time.perf_counter() - clock, open_artifact.__code__.co_filename)
"""


def _opened(path: Path, what: str, tree: Path) -> list[float]:
    """Opens an artifact once by a source tree, and returns seconds of the processor and of the clock.

    Raises:
        RuntimeError: another tree's source ran.
    """
    command = [sys.executable, "-c", _CHILD.format(call=_CALLS[what]), str(path.resolve())]
    done = subprocess.run(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    processor, clock, source = done.stdout.split(maxsplit=2)
    if not Path(source.strip()).is_relative_to(tree):
        raise RuntimeError(f"{source.strip()} is not of {tree}")
    return [float(processor), float(clock)]


def _rounds(path: Path, what: str, trees: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Returns the seconds of both sides, and their ratios pair by pair; the first round warms the files up."""
    seconds: dict[str, list[list[float]]] = {side: [] for side in trees}
    for turn in range(rounds + 1):
        for side in sorted(trees, reverse=turn % 2 == 0):
            found = _opened(path, what, trees[side])
            if turn:
                seconds[side].append(found)
    compared = {}
    for number, unit in enumerate((_PROCESSOR, _CLOCK)):
        sides = {side: [round(found[number], 4) for found in seconds[side]] for side in seconds}
        ratios = [now / before for now, before in zip(sides[_NOW], sides[_BEFORE], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        compared[unit] = {"ratio": round(median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)], **sides}
    return compared


def _exported(place: Path, arguments: tuple[str, ...]) -> dict[str, Path]:
    """Exports a model, and returns its artifacts by form."""
    command = [sys.executable, "-m", "sait_deploy", "export", *arguments, "--mass", "0.9", "--output", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    names = json.loads((place / "last-export.json").read_text(encoding="utf-8"))
    return {next(form for form in FORMS if form in name): place / name for name in names}


@click.command()
@click.option("--before", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--rounds", type=click.IntRange(min=2), default=ROUNDS, show_default=True)
def main(before: Path, rounds: int) -> None:
    """Measure and write results/opening_cost.json."""
    trees = {_BEFORE: before.resolve(), _NOW: Path(__file__).resolve().parents[1]}
    machine = environment("onnx", "onnxruntime", "pydantic")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, arguments in MODELS.items():
            for form, artifact in _exported(Path(place) / name, arguments).items():
                for what in _CALLS:
                    key = f"{what} {name} {form}"
                    found[key] = _rounds(artifact, what, trees, rounds)
                    click.echo(f"{key}: {found[key][_PROCESSOR]['ratio']}", err=True)
    reached = all(one[_PROCESSOR]["ratio"] <= MOST for key, one in found.items() if key.startswith("load"))
    found = {"target": MOST, "load_reaches_target": reached, "found": found}
    command = f"python -m benchmarks.opening_cost --before BEFORE --rounds {rounds}"
    click.echo(write("opening_cost", command, found, machine))


if __name__ == "__main__":
    main()
