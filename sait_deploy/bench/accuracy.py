"""How often the variants of a runtime are right, and how often they answer as dense does there."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.results import Accuracy
from sait_deploy.bench.runtimes import Group, Why, portions
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.runtime import Runner

_BATCH: Final = 32


def measure_accuracy(group: Group, dataset: Dataset) -> dict[str, Accuracy]:
    """Answers all images with all subjects, each image decoded once; one that fails is refused from then on.

    Returns:
        Subject id to accuracy; forced counts have none.

    Raises:
        ImageError: an image cannot be read.
    """
    judged = [subject for subject in group.running if subject.kept is None]
    answers: dict[str, list[NDArray[np.int64]]] = {subject.id: [] for subject in judged}
    preprocessing = group.dense.artifact.manifest.preprocessing
    for start in range(0, len(dataset.images) if judged else 0, _BATCH):
        images = preprocess(dataset.images[start : start + _BATCH], preprocessing)
        for subject in judged:
            if subject.id in group.refused:
                continue
            try:
                answers[subject.id].append(_answers(group.runner(subject), images, subject.choice))
            except SaitError as error:
                group.refused[subject.id] = Why.of(error)
    whole = {subject.id: np.concatenate(answers[subject.id]) for subject in judged if subject.id not in group.refused}
    reference = whole.get(group.dense.id)
    return {name: _accuracy(answer, dataset.labels, reference) for name, answer in whole.items()}


def _answers(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> NDArray[np.int64]:
    parts = [
        runner.run_at(images[numbers], choice).logits.argmax(axis=1)
        for numbers in portions(len(images), len(images), runner.batch_range)
    ]
    return np.concatenate(parts)[: len(images)]


def _accuracy(
    answer: NDArray[np.int64], labels: NDArray[np.int64] | None, reference: NDArray[np.int64] | None
) -> Accuracy:
    top1, agreement = (
        None if wanted is None else 100.0 * float((answer == wanted).mean()) for wanted in (labels, reference)
    )
    return Accuracy(len(answer), top1, agreement)
