"""Small models and images to evaluate them on, whose labels the dense model has right but for every fourth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.evaluation.results import Evaluation, EvaluationRow
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.registry import LoadedModel, describe
from tests.tiny import small_vit

IMAGES = 40


def small(**options: object) -> LoadedModel:
    """A model of 16 patch tokens and ten classes."""
    return describe(small_vit(**options), "small", WeightsSource.MEMORY, None)


def noise(count: int, size: int = 32, classes: int = 10) -> Dataset:
    """Blotchy images with labels that have nothing to do with them."""
    chance = np.random.default_rng(count)
    coarse = chance.integers(0, 255, (count, size // 8, size // 8, 3), np.uint8)
    images = list(coarse.repeat(8, axis=1).repeat(8, axis=2))
    return Dataset(images, chance.integers(0, classes, count), f"{count} blotches")


def labelled_by(loaded: LoadedModel, count: int = IMAGES) -> Dataset:
    """Images whose labels are what dense answers, but for every fourth."""
    dataset = noise(count, loaded.info.image_size[0], max(loaded.info.classes, 1))
    with torch.inference_mode():
        images = torch.from_numpy(preprocess(list(dataset.images), loaded.preprocessing))
        labels = loaded.vit(images).argmax(dim=1).numpy()
    labels[::4] = (labels[::4] + 1) % loaded.info.classes
    return dataclasses.replace(dataset, labels=labels)


def grouped(name: str, names: Sequence[str]) -> Grouping:
    """Images grouped by a name given for each of them."""
    groups, of = np.unique(np.asarray(names), return_inverse=True)
    return Grouping(name, tuple(map(str, groups)), of.astype(np.int64))


def row_of(evaluation: Evaluation, name: str) -> EvaluationRow:
    """The row with this id."""
    (row,) = [row for row in evaluation.rows if row.id == name]
    return row
