"""How often the variants of a group are right, or without labels answer as dense does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.results import Accuracy, AccuracyMeasure
from sait_deploy.bench.runtimes import Failure, GroupSession
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.runtime import Runner
from sait_deploy.runtime.batches import portions
from sait_deploy.system.progress import Progress

_BATCH: Final = 32


@dataclass(slots=True)
class Reference:
    """What counts as right.

    Attributes:
        measure: what counts.
        answers: int64 [n], the images' labels, or the answers of the first dense that ran; None as long as none has.
        dense_right: bool [n], which images that dense is right on; None likewise.
    """

    measure: AccuracyMeasure
    answers: NDArray[np.int64] | None
    dense_right: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> Reference:
        """Returns the labels of images, or where they have none what the first dense will have to fill in."""
        measure = AccuracyMeasure.AGREEMENT if dataset.labels is None else AccuracyMeasure.TOP1
        return cls(measure, dataset.labels)

    def accuracy(self, right: NDArray[np.bool_]) -> Accuracy:
        """Returns the accuracy of what is right on these images, bool [n]."""
        images, percent, dense = len(right), 100.0 * float(right.mean()), self.dense_right
        if dense is None:
            return Accuracy(self.measure, images, percent)
        return Accuracy(self.measure, images, percent, int((dense & ~right).sum()), int((right & ~dense).sum()))


def measure_accuracy(
    session: GroupSession, dataset: Dataset, reference: Reference, progress: Progress
) -> dict[str, Accuracy]:
    """Answers all images with all variants, each image decoded once; one that fails is refused from then on.

    Args:
        session: the group and its variants.
        dataset: the images.
        reference: what counts as right; of the first dense, answers and which are right are put into it.
        progress: reports how many images there are, and the share of them that is done.

    Returns:
        RunnableVariant id to accuracy. Forced counts have none; without labels, nothing has before any dense ran.

    Raises:
        ImageError: an image cannot be read.
    """
    judged = [variant for variant in session.running if variant.kept is None]
    answers: dict[str, list[NDArray[np.int64]]] = {variant.id: [] for variant in judged}
    preprocessing = session.dense.artifact.manifest.preprocessing
    count = len(dataset.images) if judged else 0
    step = f"accuracy on {count} images: {dataset.source}"
    for start in range(0, count, _BATCH):
        progress(step, start / count)
        images = preprocess(dataset.images[start : start + _BATCH], preprocessing)
        for variant in judged:
            if variant.id in session.refused:
                continue
            try:
                answers[variant.id].append(_answers(session.runner(variant), images, variant.choice))
            except SaitError as error:
                session.refused[variant.id] = Failure.of(error)
    progress(step, 1.0)
    whole = {variant.id: np.concatenate(answers[variant.id]) for variant in judged if variant.id not in session.refused}
    if reference.answers is None:
        reference.answers = whole.get(session.dense.id)
    if reference.answers is None:
        return {}
    right = {name: answer == reference.answers for name, answer in whole.items()}
    if reference.dense_right is None:
        reference.dense_right = right.get(session.dense.id)
    return {name: reference.accuracy(one) for name, one in right.items()}


def _answers(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> NDArray[np.int64]:
    parts = [
        runner.run_at(images[numbers], choice).logits.argmax(axis=1)
        for numbers in portions(len(images), len(images), runner.batch_range)
    ]
    return np.concatenate(parts)[: len(images)]
