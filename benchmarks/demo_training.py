"""What dense/sparse training does for the demonstration model, beside plain training and with its parts left out.

    python -m benchmarks.demo_training train --folder build/demo-training
    python -m benchmarks.demo_training evaluate --folder build/demo-training

The first trains two teachers and from their weights, for each of three seeds, a student and a plain model that trains
dense for as long; and of the first seed a student for each part left out or replaced. It goes on where it ended. The
second answers held-out images with all of them and writes results/demo_training.json.

Students learn from their teacher's class token, one of them in alternating epochs: see the patent notice in the README.
The licence of this project grants nothing there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch

from benchmarks.common import environment, once, read_json, write
from benchmarks.demo_runs import EVALUATION_SEED, IMAGES, composed, load, runs
from benchmarks.demo_shift import CANVASES, GRIDS, LIMIT, shifted
from benchmarks.demo_targets import targets
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import CanvasOptions
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation, EvaluationRow, from_json, to_json
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset
from sait_deploy.tokens import Score, default_prune_at
from sait_deploy.training.state import WEIGHTS_FILE
from sait_deploy.training.train import train

DENSITIES: Final = tuple(map(Decimal, ("0.7", "0.49", "0.28", "0.15", "0.1", "0.07")))
"""0.49 and 0.28 save 40 % and 55 % of the multiply-accumulates."""
CONTROLS: Final = tuple(map(Decimal, ("0.49", "0.28")))
MASSES: Final = (
    *map(mass_point, (0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)),
    *(
        PointRequest(f"mass{mass:g}-{least}to{most}", mass, least, most)
        for mass, least, most in ((0.9, 10, 48), (0.8, 6, 24), (0.7, 4, 16), (0.6, 3, 12))
    ),
)
"""By mass alone, and within limits: what a peaked importance leaves may be too little, and the longest costs most."""
WHOLE: Final = EvaluateOptions(
    densities=DENSITIES, points=MASSES, controls=CONTROLS, lower_resolutions=(88, 80, 72, 64, 56)
)
TOLD: Final = tuple(map(Decimal, ("0.49", "0.28", "0.15")))
BRIEF: Final = EvaluateOptions(densities=TOLD, points=tuple(map(mass_point, (0.9, 0.7, 0.6))), lower_resolutions=())
BY_CLASS: Final = "teacher-0 by cls"
TIMED: Final = "student-0"
"""What ships, and so what a benchmark of its times is of."""

SHIFT_FILE: Final = "shift.json"


@click.group()
def main() -> None:
    """Train and evaluate the demonstration and its ablations."""


@main.command(name="train")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="These alone; repeatable.  [default: all]")
def train_command(folder: Path, only: tuple[str, ...]) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    for run in runs(folder):
        if not only or run.name in only:
            progress(run.name)
            start = None if run.start is None else folder / run.start / WEIGHTS_FILE
            train(load(start), load(start) if run.taught else None, run.options, progress)


@main.command(name="evaluate")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option("--images", type=click.IntRange(min=100), default=IMAGES, show_default=True)
@click.option(
    "--bench", type=click.Path(path_type=Path), help="Times of the first student: compare at equal time, too."
)
@click.option("--only", multiple=True, metavar="NAME", help="Answer with these alone; repeatable.  [default: all]")
def evaluate_command(folder: Path, images: int, bench: Path | None, only: tuple[str, ...]) -> None:
    """Answer held-out images with what is trained and was not asked yet, and with all of it write the result file."""
    torch.set_num_threads(1)
    wanted = {run.name: run.options.score for run in runs(folder)} | {BY_CLASS: Score.CLS}
    for name, score in wanted.items():
        if not only or name in only:
            _answered(folder, name, score, images, bench)
    if only:
        return
    found = {name: from_json(json.dumps(read_json(_kept_file(folder, name))["found"])) for name in wanted}
    students = [name for name in wanted if name.startswith("student")]
    shift = {name: read_json(folder / name / SHIFT_FILE)["found"] for name in students}
    summary = summarise(found)
    summary["targets"] = targets(summary, [found[name] for name in students])
    logs = {name: _log(folder / name) for name in wanted if name != BY_CLASS}
    evaluations = {name: json.loads(to_json(evaluation)) for name, evaluation in found.items()}
    document = {
        "images": images,
        "summary": summary,
        "shift": shift,
        "evaluations": evaluations,
        "logs": logs,
    }
    machine = environment("torch", "timm", "accelerate", "scikit-learn", "scikit-image")
    times = "" if bench is None else f" --bench {bench}"
    click.echo(write("demo_training", f"python -m benchmarks.demo_training evaluate{times}", document, machine))


def _kept_file(folder: Path, name: str) -> Path:
    place, _, score = name.partition(" by ")
    return folder / place / f"evaluation{score and '-' + score}.json"


def _answered(folder: Path, name: str, score: Score, images: int, bench: Path | None) -> None:
    """Evaluates one training and keeps what was found beside its weights; the answer to the same question stays."""
    file, student = _kept_file(folder, name), name.startswith("student")
    weights = file.parent / WEIGHTS_FILE
    options, timed = WHOLE if student else BRIEF, bench if name == TIMED else None

    def answers() -> Any:
        dataset, groupings = composed(CanvasOptions(), EVALUATION_SEED, images)
        asked = dataclasses.replace(options, bench_report=timed)
        return json.loads(to_json(_evaluated(weights, score, asked, dataset, groupings if student else ())))

    times = "" if timed is None else timed.read_text(encoding="utf-8")
    of = (hashlib.sha256(weights.read_bytes()).hexdigest(), images, EVALUATION_SEED)
    once(file, (*of, CanvasOptions(), score, options, times), answers)
    if student:
        once(file.parent / SHIFT_FILE, (*of, CANVASES, LIMIT, GRIDS), lambda: shifted(weights, images))


def _log(folder: Path) -> Any:
    path = folder / "log.json"
    return read_json(path) if path.is_file() else None


def _evaluated(
    weights: Path, score: Score, options: EvaluateOptions, dataset: Dataset, groupings: tuple[Grouping, ...] = ()
) -> Evaluation:
    progress(f"{weights.parent.name} by {score}")
    model = load(weights)
    block = default_prune_at(model.info.geometry.depth)
    asked = dataclasses.replace(options, score=score, prune_at=block, threads=1)
    evaluation = evaluate(model, dataset, asked, groupings=groupings)
    # Strata by class and by tokens kept would be most of the file.
    given = {grouping.name for grouping in groupings}
    strata = tuple(stratum for stratum in evaluation.strata if stratum.grouping in given)
    return dataclasses.replace(evaluation, strata=strata)


def _change(row: EvaluationRow) -> float:
    assert row.top1_change is not None
    return row.top1_change.value


def summarise(found: dict[str, Evaluation]) -> dict[str, Any]:
    """Returns the figures that the targets are about: means over seeds, and every seed's own."""
    students = [name for name in found if name.startswith("student")]
    plain = [name for name in found if name.startswith("dense")]
    teachers = [name for name in found if name.startswith("teacher") and name != BY_CLASS]
    groups = {"students": students, "dense-only": plain, "teachers": teachers}
    dense = {name: _row(evaluation, "dense").top1_percent for name, evaluation in found.items()}
    changes = {
        str(density): {name: round(_change(_row(e, f"density{density}")), 3) for name, e in found.items()}
        for density in TOLD
    }
    saved = {
        str(density): round(100 - 100 / _row(found["teacher-0"], f"density{density}").mac_ratio, 1) for density in TOLD
    }
    return {
        "macs_saved_percent": saved,
        "dense_top1_percent": dense,
        "dense_top1_mean": {group: _mean(dense, names) for group, names in groups.items()},
        "change": changes,
        "change_mean": {
            density: {group: _mean(values, names) for group, names in groups.items()}
            for density, values in changes.items()
        },
    }


def _mean(values: dict[str, Any], names: list[str]) -> dict[str, float] | None:
    chosen = [values[name] for name in names]
    return {"mean": round(float(np.mean(chosen)), 3), "sd": round(float(np.std(chosen, ddof=1)), 3)} if chosen else None


def _row(evaluation: Evaluation, row_id: str) -> EvaluationRow:
    return next(row for row in evaluation.rows if row.id == row_id)


if __name__ == "__main__":
    main()
