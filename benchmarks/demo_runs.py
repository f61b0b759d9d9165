"""Which trainings the demonstration's evaluation compares: teachers, and what begins at their weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.demo.data import CanvasOptions, Scene, Split, compose_scenes, stacked
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import Score
from sait_deploy.training.demonstration import student_options, teacher_options
from sait_deploy.training.options import Alternation, TrainOptions

SEEDS: Final = (0, 1, 2)
TEACHERS: Final = (0, 1)
"""Seeds of teachers; those that learn take turns at them."""

IMAGES: Final = 3000
EVALUATION_SEED: Final = 31
"""Of the compositions that figures are of; recipes were chosen by others."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training.

    Attributes:
        name: of its folder.
        options: of the training.
        start: name of the training whose weights it begins at; None for random ones.
        taught: whether that one is its teacher, too.
    """

    name: str
    options: TrainOptions
    start: str | None
    taught: bool


def runs(folder: Path) -> list[Run]:
    """Returns all trainings; what others begin at comes first."""
    found = [Run(f"teacher-{s}", teacher_options(folder / f"teacher-{s}", s), None, taught=False) for s in TEACHERS]
    for seed in SEEDS:
        student, plain, start = f"student-{seed}", f"dense-{seed}", f"teacher-{TEACHERS[seed % len(TEACHERS)]}"
        found.append(Run(student, student_options(folder / student, seed), start, taught=True))
        dense = student_options(folder / plain, seed, Alternation.NEVER)
        found.append(Run(plain, dense, start, taught=False))
    whole = student_options(folder, 0)
    parts = {
        "densities-0": dataclasses.replace(whole, masses=None),
        "no-distillation-0": whole,
        "cls-0": dataclasses.replace(whole, score=Score.CLS),
        "epoch-0": dataclasses.replace(whole, alternation=Alternation.EPOCH),
    }
    for name, options in parts.items():
        there = dataclasses.replace(options, output=folder / name)
        found.append(Run(name, there, "teacher-0", taught=name != "no-distillation-0"))
    return found


def load(path: Path | None) -> LoadedModel:
    """Makes the demonstration model with weights of a file, or random ones."""
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
