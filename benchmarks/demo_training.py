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
from sait_deploy.evaluation.evaluate import evaluate_model
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation, Kind, Row, from_json, to_json
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.manifest import WeightsSource
from sait_deploy.points import PointRequest, mass_point
from sait_deploy.schedule import Score, default_prune_at
from sait_deploy.storage import write_whole
from sait_deploy.training.demonstration import student_options, teacher_options
from sait_deploy.training.options import Alternation, TrainOptions
from sait_deploy.training.train import train
from sait_deploy.zoo import LoadedModel, WeightsRequest, load_model

SEEDS: Final = (0, 1, 2)
IMAGES: Final = 3000
EVALUATION_SEED: Final = 11
DENSITIES: Final = tuple(map(Decimal, ("0.7", "0.49", "0.28", "0.15", "0.1", "0.07")))
"""0.49 and 0.28 save 40 % and 55 % of the multiply-accumulates."""
CONTROLS: Final = tuple(map(Decimal, ("0.49", "0.28", "0.15")))
MASSES: Final = (
    *map(mass_point, (0.97, 0.95, 0.9, 0.8, 0.7)),
    *(PointRequest(f"mass{mass:g}-least8", mass, 8) for mass in (0.9, 0.8, 0.7)),
)
"""By mass alone, and with at least 8 tokens: what little a peaked importance leaves may be too little."""
WHOLE: Final = EvaluateOptions(
    densities=DENSITIES, points=MASSES, controls=CONTROLS[:2], lower_resolutions=(88, 80, 72, 64, 56)
)
BRIEF: Final = EvaluateOptions(densities=CONTROLS, lower_resolutions=())
POINTS_ALONE: Final = EvaluateOptions(points=MASSES, lower_resolutions=())
LIGHT_LIMIT: Final = 0.5
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
@click.option("--only", multiple=True, metavar="NAME", help="Answer with these alone; repeatable.  [default: all]")
def evaluate_command(folder: Path, images: int, bench: Path | None, only: tuple[str, ...]) -> None:
    """Answer held-out images with what is trained and was not asked yet, and with all of it write the result file."""
    torch.set_num_threads(1)
    wanted = {"teacher": Score.MEAN, "teacher by cls": Score.CLS} | {r.name: r.options.score for r in runs(folder)}
    for name, score in wanted.items():
        if not only or name in only:
            _answered(folder, name, score, images, bench)
    if only:
        return
    found = {name: from_json(_kept_file(folder, name).read_text(encoding="utf-8")) for name in wanted}
    shift = {
        name: json.loads((folder / name / "shift.json").read_text(encoding="utf-8"))
        for name in wanted
        if name.startswith("student")
    }
    logs = {name: _log(folder / name) for name in wanted if name != "teacher by cls"}
    evaluations = {name: dataclasses.asdict(evaluation) for name, evaluation in found.items()}
    document = {
        "images": images,
        "summary": summarise(found),
        "shift": shift,
        "evaluations": evaluations,
        "logs": logs,
    }
    machine = environment("torch", "timm", "accelerate", "scikit-learn", "scikit-image")
    click.echo(write("demo_training", "python -m benchmarks.demo_training evaluate", document, machine))


def _kept_file(folder: Path, name: str) -> Path:
    place, _, score = name.partition(" by ")
    return folder / place / f"evaluation{score and '-' + score}.json"


def _answered(folder: Path, name: str, score: Score, images: int, bench: Path | None) -> None:
    """Evaluates one training and keeps what was found beside its weights; what is there already stays."""
    file, student = _kept_file(folder, name), name.startswith("student")
    weights = file.parent / "model.safetensors"
    if not file.is_file():
        dataset, groupings = composed(CanvasOptions(), EVALUATION_SEED, images)
        options = BRIEF
        if student:
            options = dataclasses.replace(WHOLE, bench_report=bench if name == "student-0" else None)
        evaluation = _evaluated(weights, score, options, dataset, groupings if student else ())
        write_whole(file, to_json(evaluation).encode())
    if student and not (file.parent / "shift.json").is_file():
        write_whole(file.parent / "shift.json", json.dumps(_shifted(weights, images)).encode())


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
    # Strata by class and by tokens kept would be most of the file.
    given = {grouping.name for grouping in groupings}
    strata = tuple(stratum for stratum in evaluation.strata if stratum.grouping in given)
    return dataclasses.replace(evaluation, strata=strata)


def _shifted(weights: Path, images: int) -> dict[str, Any]:
    """Chooses a mass on light clutter, and the density of equal cost there; then lets both meet other images."""
    light, _ = composed(LIGHT_CLUTTER, EVALUATION_SEED + 1, images)
    rows = {row.id: row for row in _evaluated(weights, Score.MEAN, POINTS_ALONE, light).rows}
    masses = [rows[point.name] for point in MASSES]
    chosen = min((row for row in masses if _change(row) >= -LIGHT_LIMIT), key=lambda row: row.macs, default=None)
    if chosen is None:
        return {"mass": None}
    densities = [row for row in rows.values() if row.kind is Kind.DENSITY and row.macs >= chosen.macs]
    kept = int(min(densities, key=lambda row: row.macs).kept_mean)
    assert chosen.point is not None
    mass = PointRequest("mass", chosen.point.mass, chosen.point.min_keep)
    both = EvaluateOptions(points=(mass, PointRequest("fixed", 1.0, kept, kept)), lower_resolutions=())
    found: dict[str, Any] = {"mass": chosen.label, "kept by density": kept}
    for name, canvas in (("light", LIGHT_CLUTTER), ("heavy", HEAVY_CLUTTER), ("two objects", TWO_OBJECTS)):
        shifted, _ = composed(canvas, EVALUATION_SEED + 2, images)
        there = {row.id: row for row in _evaluated(weights, Score.MEAN, both, shifted).rows}
        found[name] = {
            "dense_top1_percent": there["dense"].top1_percent,
            "mass": _told(there["mass"]),
            "density": _told(there["fixed"]),
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
    return {"mean": round(float(np.mean(chosen)), 3), "sd": round(float(np.std(chosen, ddof=1)), 3)} if chosen else None


def _row(evaluation: Evaluation, row_id: str) -> Row:
    return next(row for row in evaluation.rows if row.id == row_id)


if __name__ == "__main__":
    main()
