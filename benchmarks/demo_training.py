"""What dense/sparse training does for the demonstration model, beside plain training and with its parts left out.

    python -m benchmarks.demo_training train --folder build/demo-training
    python -m benchmarks.demo_training evaluate --folder build/demo-training

The first trains a teacher and, from its weights, students of three seeds, as many plain models that train dense for as
long, and a student for each part left out or replaced; it goes on where it ended. The second answers held-out images
with all of them and writes results/demo_training.json.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch

from benchmarks.common import environment, write
from sait_deploy import demo
from sait_deploy.cli.render import progress
from sait_deploy.dataset import Dataset
from sait_deploy.demo.data import (
    HEAVY_CLUTTER,
    LIGHT_CLUTTER,
    TWO_OBJECTS,
    CanvasOptions,
    Scene,
    Split,
    compose_scenes,
    stacked,
)
from sait_deploy.demo.recipe import student_options, teacher_options
from sait_deploy.evaluation.evaluate import evaluate_model
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation, Kind, Row
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.manifest import WeightsSource
from sait_deploy.points import mass_point
from sait_deploy.schedule import Score, default_prune_at
from sait_deploy.training.options import Alternation, Distillation, TrainOptions
from sait_deploy.training.train import train
from sait_deploy.zoo import LoadedModel, WeightsRequest, load_model

SEEDS: Final = (0, 1, 2)
IMAGES: Final = 4000
EVALUATION_SEED: Final = 11
DENSITIES: Final = tuple(map(Decimal, ("0.7", "0.49", "0.39", "0.28", "0.2", "0.15", "0.1")))
"""0.49 and 0.28 save 40 % and 55 % of the multiply-accumulates."""
CONTROLS: Final = tuple(map(Decimal, ("0.49", "0.28", "0.15")))
MASSES: Final = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
WHOLE: Final = EvaluateOptions(densities=DENSITIES, points=tuple(map(mass_point, MASSES)), controls=CONTROLS)
BRIEF: Final = EvaluateOptions(densities=CONTROLS, lower_resolutions=())
_LIGHT_LIMIT: Final = 0.5
"""Points that a mass may lose on light clutter to be chosen."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training that begins at the teacher's weights.

    Attributes:
        name: of its folder.
        options: of the training.
        taught: whether it has the teacher.
    """

    name: str
    options: TrainOptions
    taught: bool


def runs(folder: Path) -> list[Run]:
    """Returns all trainings but the teacher's."""
    found = []
    for seed in SEEDS:
        found.append(Run(f"student-{seed}", student_options(folder / f"student-{seed}", seed), taught=True))
        plain = student_options(folder / f"dense-{seed}", seed, Alternation.NEVER)
        found.append(Run(f"dense-{seed}", plain, taught=False))
    untaught = student_options(folder / "no-distillation-0", 0)
    found.append(Run("no-distillation-0", untaught, taught=False))
    by_class = dataclasses.replace(student_options(folder / "cls-0", 0), score=Score.CLS)
    found.append(Run("cls-0", by_class, taught=True))
    found.append(Run("epoch-0", student_options(folder / "epoch-0", 0, Alternation.EPOCH), taught=True))
    logits_only = dataclasses.replace(
        student_options(folder / "logits-only-0", 0), distillation=Distillation(importance=0.0)
    )
    found.append(Run("logits-only-0", logits_only, taught=True))
    return found


def _load(path: Path | None) -> LoadedModel:
    if path is None:
        return load_model(demo.NAME, WeightsRequest(WeightsSource.RANDOM))
    return load_model(demo.NAME, WeightsRequest(WeightsSource.FILE, path))


def _groupings(scenes: list[Scene]) -> tuple[Grouping, ...]:
    """Divides composed images by the size of their digit and by their clutter."""
    sizes = np.digitize([scene.digit_scale for scene in scenes], (3.0, 4.0, 5.0))
    clutter = np.digitize([scene.fragments for scene in scenes], (2, 4, 6))
    background = np.array([int(scene.photograph) for scene in scenes])
    return (
        Grouping("digit size", ("2 to 3 ×", "3 to 4 ×", "4 to 5 ×", "5 to 6 ×"), sizes),
        Grouping("fragments", ("0 or 1", "2 or 3", "4 or 5", "6 or more"), clutter),
        Grouping("background", ("shaded", "photograph"), background),
    )


def composed(options: CanvasOptions, seed: int, count: int = IMAGES) -> tuple[Dataset, tuple[Grouping, ...]]:
    """Returns held-out images of a canvas, with what they may be divided by."""
    scenes = compose_scenes(Split.HELD_OUT, count, seed, options)
    images, labels = stacked(scenes)
    return Dataset(list(images), labels, f"{count} composed held-out digits, seed {seed}"), _groupings(scenes)


@click.group()
def main() -> None:
    """Train and evaluate the demonstration and its ablations."""


@main.command(name="train")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Trainings beside the teacher's; repeatable.  [default: all]"
)
def train_command(folder: Path, only: tuple[str, ...]) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    teacher = train(_load(None), None, teacher_options(folder / "teacher"), progress).weights
    for run in runs(folder):
        if not only or run.name in only:
            progress(run.name)
            train(_load(teacher), _load(teacher) if run.taught else None, run.options, progress)


@main.command(name="evaluate")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option("--images", type=click.IntRange(min=100), default=IMAGES, show_default=True)
@click.option(
    "--bench", type=click.Path(path_type=Path), help="Times of the first student: compare at equal time, too."
)
def evaluate_command(folder: Path, images: int, bench: Path | None) -> None:
    """Answer held-out images with everything that is trained, and write the result file."""
    torch.set_num_threads(1)
    dataset, groupings = composed(CanvasOptions(), EVALUATION_SEED, images)
    teacher = folder / "teacher" / "model.safetensors"
    plain = _evaluated(teacher, Score.MEAN, BRIEF, dataset)
    found: dict[str, Evaluation] = {"teacher": plain, "teacher by cls": _evaluated(teacher, Score.CLS, BRIEF, dataset)}
    shift: dict[str, Any] = {}
    for run in runs(folder):
        weights = folder / run.name / "model.safetensors"
        if not weights.is_file():
            progress(f"{run.name} is not trained")
            continue
        student = run.name.startswith("student")
        timed = dataclasses.replace(WHOLE, bench_report=bench)
        options = timed if student else BRIEF
        found[run.name] = _evaluated(weights, run.options.score, options, dataset, groupings if student else ())
        if student:
            shift[run.name] = _shifted(weights, images)
    summary = summarise(found)
    logs = {name: _log(folder / name) for name in ("teacher", *(run.name for run in runs(folder)))}
    evaluations = {name: dataclasses.asdict(evaluation) for name, evaluation in found.items()}
    document = {"images": images, "summary": summary, "shift": shift, "evaluations": evaluations, "logs": logs}
    machine = environment("torch", "timm", "accelerate", "scikit-learn", "scikit-image")
    click.echo(write("demo_training", "python -m benchmarks.demo_training evaluate", document, machine))


def _log(folder: Path) -> Any:
    path = folder / "log.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _evaluated(
    weights: Path, score: Score, options: EvaluateOptions, dataset: Dataset, groupings: tuple[Grouping, ...] = ()
) -> Evaluation:
    progress(f"{weights.parent.name} by {score}")
    model = _load(weights)
    block = default_prune_at(model.info.geometry.depth)
    evaluation = evaluate_model(model, score, block, dataset, options, groupings=groupings)
    # By class, what a stratum says of digits is of no use here, and it would be most of the file.
    strata = tuple(stratum for stratum in evaluation.strata if stratum.grouping != "class")
    return dataclasses.replace(evaluation, strata=strata)


def _shifted(weights: Path, images: int) -> dict[str, Any]:
    """Chooses a mass on light clutter, and the density of equal cost there; then lets both meet other images."""
    light, _ = composed(LIGHT_CLUTTER, EVALUATION_SEED + 1, images)
    masses = tuple(map(mass_point, MASSES))
    options = EvaluateOptions(points=masses, lower_resolutions=())
    rows = {row.id: row for row in _evaluated(weights, Score.MEAN, options, light).rows}
    within = [rows[point.name] for point in masses if _change(rows[point.name]) >= -_LIGHT_LIMIT]
    chosen = min(within, key=lambda row: row.macs, default=rows[masses[0].name])
    assert chosen.point is not None
    patches = demo.ARCHITECTURE["img_size"] ** 2 // demo.ARCHITECTURE["patch_size"] ** 2
    kept = min(int(row.kept_mean) for row in rows.values() if row.kind is Kind.DENSITY and row.macs >= chosen.macs)
    density = Decimal(kept) / patches
    both = EvaluateOptions(
        densities=(round(density, 6),), points=(mass_point(chosen.point.mass),), lower_resolutions=()
    )
    found: dict[str, Any] = {"mass": chosen.point.mass, "kept by density": kept}
    for name, canvas in (("light", LIGHT_CLUTTER), ("heavy", HEAVY_CLUTTER), ("two objects", TWO_OBJECTS)):
        shifted, _ = composed(canvas, EVALUATION_SEED + 2, images)
        evaluation = _evaluated(weights, Score.MEAN, both, shifted)
        by_kind = {row.kind: row for row in evaluation.rows if row.id in (f"mass{chosen.point.mass:g}", "dense")}
        fixed = next(row for row in evaluation.rows if row.kind is Kind.DENSITY and round(row.kept_mean) == kept)
        found[name] = {
            "dense_top1_percent": by_kind[Kind.DENSE].top1_percent,
            "mass": _told(by_kind[Kind.MASS]),
            "density": _told(fixed),
        }
    return found


def _told(row: Row) -> dict[str, Any]:
    change = row.top1_change
    return {
        "change": None if change is None else dataclasses.asdict(change),
        "kept_mean": round(row.kept_mean, 2),
        "kept_p95": row.kept_p95,
        "mac_ratio": round(row.mac_ratio, 3),
    }


def _change(row: Row) -> float:
    assert row.top1_change is not None
    return row.top1_change.value


def summarise(found: dict[str, Evaluation]) -> dict[str, Any]:
    """Returns the figures that the targets are about: means over seeds, and every seed's own."""
    students = [name for name in found if name.startswith("student")]
    plain = [name for name in found if name.startswith("dense")]
    dense = {name: _row(evaluation, "dense").top1_percent for name, evaluation in found.items()}
    changes = {
        str(density): {name: round(_change(_row(e, f"density{density}")), 3) for name, e in found.items()}
        for density in BRIEF.densities
    }
    saved = {
        str(density): round(100 - 100 / _row(found["teacher"], f"density{density}").mac_ratio, 1)
        for density in BRIEF.densities
    }
    return {
        "macs_saved_percent": saved,
        "dense_top1_percent": dense,
        "dense_top1_mean": {"students": _mean(dense, students), "dense-only": _mean(dense, plain)},
        "change": changes,
        "change_mean": {
            density: {"students": _mean(values, students), "dense-only": _mean(values, plain)}
            for density, values in changes.items()
        },
        "comparisons": {name: [dataclasses.asdict(c) for c in found[name].comparisons] for name in students},
    }


def _mean(values: dict[str, Any], names: list[str]) -> dict[str, float] | None:
    chosen = [values[name] for name in names]
    return {"mean": round(float(np.mean(chosen)), 3), "sd": round(float(np.std(chosen)), 3)} if chosen else None


def _row(evaluation: Evaluation, row_id: str) -> Row:
    return next(row for row in evaluation.rows if row.id == row_id)


if __name__ == "__main__":
    main()
