"""Masses against the densities that take as long, on the images of a task and on ONNX Runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from PIL import Image

from benchmarks.common import once
from benchmarks.demo_bench import bench_points
from benchmarks.demo_runs import load
from benchmarks.demo_training import MASSES
from sait_deploy.demo.data import Split
from sait_deploy.demo.tasks import Task, composed_scenes
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Basis
from sait_deploy.images.dataset import Dataset

BATCHES: Final = (8, 32)
TIMED_SEED: Final = 32
"""Of the compositions that are timed: not those whose answers are judged."""
TIMED_IMAGES: Final = 256
SECONDS: Final = 40


def bench_file(folder: Path, student: str) -> Path:
    """Returns where a student's benchmark is."""
    return folder / student / "bench.json"


def time_points(task: Task, fashion: Path | None, weights: Path, report: Path) -> None:
    """Measures a student's densities and masses on held-out images of the task.

    Args:
        task: whose images are timed.
        fashion: folder of Fashion-MNIST, which goods need.
        weights: of the student.
        report: JSON file of the benchmark.
    """
    with tempfile.TemporaryDirectory() as folder:
        scenes = composed_scenes(task, Split.HELD_OUT, TIMED_IMAGES, TIMED_SEED, fashion)
        for number, scene in enumerate(scenes):
            Image.fromarray(scene.pixels).save(Path(folder) / f"{number}.png")
        bench_points(weights, report, BATCHES, Path(folder), SECONDS)


def at_equal_time(weights: Path, dataset: Dataset, report: Path, kept: Path) -> list[dict[str, Any]]:
    """Returns what each mass gains over the density that takes as long, at each batch size.

    Args:
        weights: of the student.
        dataset: images with labels.
        report: its benchmark.
        kept: file that holds answers already given, or will; its name is followed by the batch size.

    Returns:
        For each batch size the comparisons, the change from dense of each density compared with, and seconds measured.
    """
    found = []
    for batch in BATCHES:
        file = kept.with_name(f"{kept.stem}-{batch}.json")
        options = EvaluateOptions(
            points=MASSES, lower_resolutions=(), bench_report=report, bench_batch=batch, threads=1, batch=64
        )
        question = (
            hashlib.sha256(weights.read_bytes()).hexdigest(),
            dataset.source,
            options,
            report.read_text(encoding="utf-8"),
        )
        once(file, question, lambda options=options: _compared(weights, dataset, options))
        found.append({"batch": batch, "seconds": SECONDS, **json.loads(file.read_text(encoding="utf-8"))["found"]})
    return found


def _compared(weights: Path, dataset: Dataset, options: EvaluateOptions) -> dict[str, Any]:
    evaluation = evaluate(load(weights), dataset, options)
    rows = {row.id: row for row in evaluation.rows}
    compared = [one for one in evaluation.comparisons if one.basis is Basis.EQUAL_TIME]
    changes = {one.second: rows[one.second].top1_change for one in compared}
    return {
        "comparisons": [
            {"mass": one.first, "density": one.second, "gain": dataclasses.asdict(one.difference)} for one in compared
        ],
        "changes": {name: None if change is None else dataclasses.asdict(change) for name, change in changes.items()},
        "kept_mean": {one.first: rows[one.first].kept_mean for one in compared},
    }
