"""Whether choosing tokens image by image pays: the bound of ``evaluate --oracle`` and masses, on three tasks.

    python -m benchmarks.adapting train --task many --folder build/many
    python -m benchmarks.adapting time --task many --folder build/many
    python -m benchmarks.adapting evaluate --task many --folder build/many
    python -m benchmarks.adapting evaluate --task digits

The first trains a teacher and a student for each seed, and goes on where it ended; goods need ``--fashion DIR``, the
folder of Fashion-MNIST. The second measures the students' points on ONNX Runtime. The third answers held-out images
with the students that are trained and writes results/adapting_many.json; where all of them were measured, it compares
at equal time, too. For digits it is the model that ships that answers.

Students learn from their teacher's class token: see the patent notice in the README. The licence of this project grants
nothing there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Final

import click
import torch

from benchmarks.adapting_targets import targets, targets_at_equal_time
from benchmarks.adapting_times import at_equal_time, bench_file, time_points
from benchmarks.common import environment, once, read_json, write
from benchmarks.demo_runs import EVALUATION_SEED, IMAGES, SEEDS, composed, load
from benchmarks.demo_training import DENSITIES, MASSES
from benchmarks.selection_sets import grouping
from sait_deploy import demo
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import CanvasOptions, Split, stacked
from sait_deploy.demo.tasks import DIGITS, TASKS, Task, composed_scenes
from sait_deploy.errors import SaitError
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import ORACLE, EvaluateOptions
from sait_deploy.evaluation.results import from_json, to_json
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset
from sait_deploy.training.demonstration import data_options, student_options, teacher_options
from sait_deploy.training.state import WEIGHTS_FILE
from sait_deploy.training.train import train

ASKED: Final = EvaluateOptions(densities=DENSITIES, points=MASSES, lower_resolutions=(), oracle=ORACLE, threads=1)

_task_option = click.option("--task", "name", type=click.Choice(list(TASKS)), required=True)
_fashion_option = click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST.")
_seed_option = click.option("--seed", "seeds", type=click.IntRange(min=0), multiple=True, help="[default: 0, 1, 2]")


@click.group()
def main() -> None:
    """Train further tasks, and measure what adapting to the image gains."""


@main.command(name="train")
@_task_option
@_fashion_option
@_seed_option
@click.option("--folder", type=click.Path(path_type=Path), required=True)
def train_command(name: str, fashion: Path | None, seeds: tuple[int, ...], folder: Path) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    task = TASKS[name]
    if task is DIGITS:
        raise click.ClickException("digits are trained by benchmarks.demo_training")
    data = data_options(task, fashion)
    try:
        for seed in seeds or SEEDS:
            progress(f"teacher-{seed}")
            taught = train(load(demo.WEIGHTS), None, teacher_options(folder / f"teacher-{seed}", seed, data), progress)
            progress(f"student-{seed}")
            asked = student_options(folder / f"student-{seed}", seed, data=data)
            train(load(taught.weights), load(taught.weights), asked, progress)
    except SaitError as error:
        raise click.ClickException(f"{error.message}: {error.hint}") from None


@main.command(name="time")
@_task_option
@_fashion_option
@_seed_option
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Of the trainings.")
def time_command(name: str, fashion: Path | None, seeds: tuple[int, ...], folder: Path) -> None:
    """Measure the students' densities and masses on held-out images; best on an idle machine."""
    for student in _students(seeds):
        progress(f"times of {student}")
        weights = folder / student / WEIGHTS_FILE
        time_points(TASKS[name], fashion, weights, bench_file(folder, student))


@main.command(name="evaluate")
@_task_option
@_fashion_option
@_seed_option
@click.option("--folder", type=click.Path(path_type=Path), help="Of the trainings.  [default: what ships, of digits]")
@click.option("--images", type=click.IntRange(min=200), default=IMAGES, show_default=True)
def evaluate_command(name: str, fashion: Path | None, seeds: tuple[int, ...], folder: Path | None, images: int) -> None:
    """Answer held-out images, and write the result file of the task."""
    torch.set_num_threads(1)
    task = TASKS[name]
    if folder is None and task is not DIGITS:
        raise click.ClickException("only digits have weights that ship: give --folder")
    students = {"shipped": demo.WEIGHTS}
    if folder is not None:
        students = {student: folder / student / WEIGHTS_FILE for student in _students(seeds)}
    place = Path("build") if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    for student, weights in students.items():
        kept = place / f"oracle-{task.name}-{student}.json"
        of = hashlib.sha256(weights.read_bytes()).hexdigest(), images, EVALUATION_SEED, task.options, ASKED
        once(kept, of, lambda weights=weights: _evaluated(task, fashion, weights, images))
    found = {
        student: from_json(json.dumps(read_json(place / f"oracle-{task.name}-{student}.json")["found"]))
        for student in students
    }
    logs = {} if folder is None else {student: _logs(folder, student) for student in students}
    times = {} if folder is None else _at_equal_time(folder, task, fashion, students, images)
    document = {
        "task": task.name,
        "options": dataclasses.asdict(task.options),
        "images": images,
        "targets": [*targets(task, list(found.values())), *targets_at_equal_time(task, times)],
        "equal_time": times,
        "evaluations": {student: json.loads(to_json(one)) for student, one in found.items()},
        "logs": logs,
    }
    machine = environment("torch", "timm", "accelerate", "scikit-learn", "scikit-image")
    command = f"python -m benchmarks.adapting evaluate --task {task.name}"
    command += "" if folder is None else f" --folder build/{task.name}"
    command += f" --seed {' --seed '.join(map(str, seeds))}" if seeds else ""
    click.echo(write(f"adapting_{task.name}", command, document, machine))


def _students(seeds: tuple[int, ...]) -> list[str]:
    return [f"student-{seed}" for seed in seeds or SEEDS]


def _at_equal_time(
    folder: Path, task: Task, fashion: Path | None, students: dict[str, Path], images: int
) -> dict[str, Any]:
    """Returns what each student's masses gain over densities of equal time; nothing unless all were measured."""
    if not all(bench_file(folder, student).is_file() for student in students):
        return {}
    dataset, _ = _held_out(task, fashion, images)
    return {
        student: at_equal_time(weights, dataset, bench_file(folder, student), folder / student / "equal-time.json")
        for student, weights in students.items()
    }


def _evaluated(task: Task, fashion: Path | None, weights: Path, images: int) -> Any:
    progress(f"{task.name}: {weights}")
    dataset, groupings = _held_out(task, fashion, images)
    found = evaluate(load(weights), dataset, ASKED, groupings=groupings)
    # Strata by class and by tokens kept would be most of the file.
    given = {grouping.name for grouping in groupings}
    strata = tuple(stratum for stratum in found.strata if stratum.grouping in given)
    return json.loads(to_json(dataclasses.replace(found, strata=strata)))


def _held_out(task: Task, fashion: Path | None, count: int) -> tuple[Dataset, tuple[Grouping, ...]]:
    if task is DIGITS:
        return composed(CanvasOptions(), EVALUATION_SEED, count)
    scenes = composed_scenes(task, Split.HELD_OUT, count, EVALUATION_SEED, fashion)
    images, labels = stacked(scenes)
    dataset = Dataset(list(images), labels, f"{count} held-out {task.words}, seed {EVALUATION_SEED}")
    return dataset, (grouping(scenes),)


def _logs(folder: Path, student: str) -> dict[str, Any]:
    teacher = student.replace("student", "teacher")
    return {name: read_json(folder / name / "log.json") for name in (teacher, student)}


if __name__ == "__main__":
    main()
