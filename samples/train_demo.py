"""Trains the demonstration model: a dense teacher, then from its weights one set of weights for all densities.

    python samples/train_demo.py --output build/demo-training

writes ``model.safetensors`` and ``report.json``, which are the committed ones in ``sait_deploy/demo/``. It takes about
40 minutes on one idle core, and goes on where it ended when it is started again.

Training the student is dense/sparse training with distillation from a teacher's class token: see the patent notice in
the README. The licence of this project grants nothing there.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import CanvasOptions
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.system.machine import environment
from sait_deploy.training.demonstration import student_options, teacher_options
from sait_deploy.training.log import LogEntry
from sait_deploy.training.options import TrainOptions
from sait_deploy.training.train import TrainResult, train

DENSITIES = (Decimal("0.5"), Decimal("0.3"), Decimal("0.2"))


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


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo-training"), show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Of each of the two, to try the command.")
@click.option("--epoch-images", type=click.IntRange(min=1), help="Likewise.")
@click.option("--val-images", type=click.IntRange(min=1), help="Images to measure accuracy on, to try the command.")
def main(output: Path, seed: int, epochs: int | None, epoch_images: int | None, val_images: int | None) -> None:
    """Train the teacher and the student, and write the checkpoint and report that are shipped."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    first = shortened(teacher_options(output / "teacher", seed), epochs, epoch_images, val_images)
    taught: TrainResult = train(load(None), None, first, progress)
    second = shortened(student_options(output / "student", seed), epochs, epoch_images, val_images)
    done = train(load(taught.weights), load(taught.weights), second, progress)
    shutil.copyfile(done.weights, output / "model.safetensors")
    student = load(done.weights)
    assert student.training is not None
    options = EvaluateOptions(densities=DENSITIES, lower_resolutions=(), threads=1, limit=val_images)
    held_out = evaluate(student, options=options, progress=progress)
    report = {
        "architecture": demo.ARCHITECTURE,
        "canvas": dataclasses.asdict(CanvasOptions()),
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
