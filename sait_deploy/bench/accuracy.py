"""How often the variants of a runtime are right, or without labels answer as dense does there."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.results import Accuracy, AccuracyMeasure
from sait_deploy.bench.runtimes import Failure, RuntimeSession, portions
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.runtime import Runner
from sait_deploy.system.progress import Progress

_BATCH: Final = 32


def measure_accuracy(session: RuntimeSession, dataset: Dataset, progress: Progress) -> dict[str, Accuracy]:
    """Answers all images with all variants, each image decoded once; one that fails is refused from then on.

    Args:
        session: the runtime and its variants.
        dataset: the images.
        progress: reports how many images there are, and the share of them that is done.

    Returns:
        RunnableVariant id to accuracy. Forced counts have none; without labels, nothing has where dense does not run.

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
    measure = AccuracyMeasure.AGREEMENT if dataset.labels is None else AccuracyMeasure.TOP1
    right = whole.get(session.dense.id) if dataset.labels is None else dataset.labels
    if right is None:
        return {}
    return {
        name: Accuracy(measure, len(answer), 100.0 * float((answer == right).mean())) for name, answer in whole.items()
    }


def _answers(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> NDArray[np.int64]:
    parts = [
        runner.run_at(images[numbers], choice).logits.argmax(axis=1)
        for numbers in portions(len(images), len(images), runner.batch_range)
    ]
    return np.concatenate(parts)[: len(images)]
