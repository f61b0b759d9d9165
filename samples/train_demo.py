"""Trains the demonstration model: a dense teacher, then from its weights one set of weights for all densities.

    python samples/train_demo.py --output build/demo-training
    python samples/train_demo.py --task many --output build/many-training

The first writes ``model.safetensors`` and ``report.json``, which are the committed ones in ``sait_deploy/demo/``. It
takes about 40 minutes on one idle core, and goes on where it ended when it is started again. The teacher of a further
task begins at the weights that ship. Goods are made of Fashion-MNIST: of ``--fashion DIR``, or of Debian's package of
it, which is downloaded into the output folder.

Training the student is dense/sparse training with distillation from a teacher's class token: see the patent notice in
the README. The licence of this project grants nothing there.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.tasks import DIGITS, TASKS, Task, composed_scenes, composer_of
from sait_deploy.errors import SaitError
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.images.dataset import Dataset
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.system.machine import environment
from sait_deploy.training.demonstration import data_options, student_options, teacher_options
from sait_deploy.training.log import LogEntry
from sait_deploy.training.options import TrainOptions
from sait_deploy.training.train import TrainResult, train

DENSITIES = (Decimal("0.5"), Decimal("0.3"), Decimal("0.2"))
PACKAGE = "dataset-fashion-mnist"
IMAGES = 1000
SEED = 31
"""Of the images of a further task that accuracy is measured on."""


def load(path: Path | None) -> LoadedModel:
    """Makes the demonstration model with weights of a file, or random ones."""
    if path is None:
        return load_model(demo.NAME, WeightsRequest(WeightsSource.RANDOM))
    return load_model(demo.NAME, WeightsRequest(WeightsSource.FILE, path))


def shortened(options: TrainOptions, epochs: int | None, images: int | None, held_out: int | None) -> TrainOptions:
    """Returns a training of fewer epochs or images, to try the command."""
    recipe = options.recipe if epochs is None else dataclasses.replace(options.recipe, epochs=epochs)
    data = options.data if images is None else dataclasses.replace(options.data, epoch_images=images)
    data = data if held_out is None else dataclasses.replace(data, validation_images=held_out)
    return dataclasses.replace(options, recipe=recipe, data=data)


def training_record(options: TrainOptions, log: tuple[LogEntry, ...]) -> dict[str, Any]:
    """Returns what a report says of a training."""
    return {
        "options": {**dataclasses.asdict(options), "output": None},
        "log": [dataclasses.asdict(entry) for entry in log],
    }


def downloaded(folder: Path) -> Path:
    """Returns the folder of Fashion-MNIST, fetched as Debian packages it unless it was before."""
    place = folder / "fashion-mnist"
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=scratch, check=True, capture_output=True)
            (package,) = scratch.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, scratch / "unpacked"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, ValueError):
            raise click.ClickException(f"apt-get cannot download {PACKAGE}: give --fashion DIR") from None
        (scratch / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist").rename(place)
    return place


def held_out_of(task: Task, fashion: Path | None) -> Dataset | None:
    """Returns images to measure accuracy on; None for those that come with the toolkit."""
    if task is DIGITS:
        return None
    images, labels = stacked(composed_scenes(task, Split.HELD_OUT, IMAGES, SEED, fashion))
    return Dataset(list(images), labels, f"{IMAGES} held-out {task.words}, seed {SEED}")


@click.command()
@click.option("--task", "name", type=click.Choice(list(TASKS)), default=DIGITS.name, show_default=True)
@click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST.  [default: downloaded]")
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Of each of the two, to try the command.")
@click.option("--epoch-images", type=click.IntRange(min=1), help="Likewise.")
@click.option("--val-images", type=click.IntRange(min=1), help="Images to measure accuracy on, to try the command.")
def main(
    name: str,
    fashion: Path | None,
    output: Path,
    seed: int,
    epochs: int | None,
    epoch_images: int | None,
    val_images: int | None,
) -> None:
    """Train the teacher and the student, and write the checkpoint and report that are shipped."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    task = TASKS[name]
    if task.has_goods and fashion is None:
        fashion = downloaded(output)
    try:
        composer_of(task, Split.TRAIN, fashion)
    except SaitError as error:
        raise click.ClickException(f"{error.message}: {error.hint}") from None
    data = data_options(task, fashion)
    first = shortened(teacher_options(output / "teacher", seed, data), epochs, epoch_images, val_images)
    taught: TrainResult = train(load(None if task is DIGITS else demo.WEIGHTS), None, first, progress)
    second = shortened(student_options(output / "student", seed, data=data), epochs, epoch_images, val_images)
    done = train(load(taught.weights), load(taught.weights), second, progress)
    shutil.copyfile(done.weights, output / "model.safetensors")
    student = load(done.weights)
    assert student.training is not None
    options = EvaluateOptions(densities=DENSITIES, lower_resolutions=(), threads=1, limit=val_images)
    held_out = evaluate(student, held_out_of(task, fashion), options, progress)
    report = {
        "architecture": demo.ARCHITECTURE,
        "canvas": dataclasses.asdict(task.options),
        "teacher": training_record(first, taught.log),
        "student": training_record(second, done.log),
        "held_out": {
            "images": held_out.images,
            "source": held_out.image_source,
            "top1_percent": {row.id: row.top1_percent for row in held_out.rows},
        },
        "environment": environment(1)
        | {name: version(name) for name in ("torch", "timm", "accelerate", "scikit-learn", "scikit-image")},
    }
    (output / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(f"wrote {output / 'model.safetensors'}")


if __name__ == "__main__":
    main()
