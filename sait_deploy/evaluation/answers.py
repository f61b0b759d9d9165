"""The answers of several answerers to all images: each image is decoded once for all of them, ahead and in threads."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import ImageError, InvalidArgument, ModelError, NotFinite
from sait_deploy.evaluation.answerers import Answerer
from sait_deploy.evaluation.class_embeddings import ClassEmbeddings
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import ImageLike, Preprocessing, open_image, preprocess
from sait_deploy.runtime.embeddings import nearest, unit_length
from sait_deploy.system.processors import processors
from sait_deploy.system.progress import Progress

TOP: Final = 5
"""Classes kept of each answer."""

_AHEAD: Final = 1
"""Batches that wait decoded, beside one for each decoding thread."""

Prepared = dict[Preprocessing, NDArray[np.float32]]
"""A batch float32 [B, C, H, W] by each preprocessing that was asked for."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One answerer's answers to all images, in their order.

    Attributes:
        top: int64 [n, k], likeliest classes first, k = min(5, classes); [n, 0] of a model without classes.
        kept: int32 [n], patch tokens kept.
        macs: int64 [n], multiply-accumulates.
        cosine: float32 [n], of the logits (features) with those of the first answerer to the same image.
        seconds: spent answering, decoding left out.
        nearest: int32 [n, min(10, n - 1)], of a model without a head, the other images nearest to each; else [n, 0].
    """

    top: NDArray[np.int64]
    kept: NDArray[np.int32]
    macs: NDArray[np.int64]
    cosine: NDArray[np.float32]
    seconds: float
    nearest: NDArray[np.int32]

    def right(self, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns for each image whether its likeliest class is the wanted one, bool [n]."""
        found: NDArray[np.bool_] = self.top[:, 0] == wanted
        return found

    def right_among_top(self, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns for each image whether the wanted class is among its likeliest five, bool [n]."""
        found: NDArray[np.bool_] = (self.top == wanted[:, None]).any(axis=1)
        return found


class Collector:
    """Collects answers to a dataset, in one pass over it at each call of :meth:`collect`.

    Cosines are to the first answerer of the first call, whose outputs are held in memory: 4 bytes for each class of
    each image.

    Args:
        dataset: the images.
        batch: images asked about at once.
        progress: reports each pass, and how much of it is done.
        classes: what a model without a head classifies by; None where it does not.

    Raises:
        InvalidArgument: no images, or a batch below 1.
    """

    def __init__(
        self, dataset: Dataset, batch: int, progress: Progress, classes: ClassEmbeddings | None = None
    ) -> None:
        if batch < 1 or not len(dataset.images):
            raise InvalidArgument(f"{len(dataset.images)} images in batches of {batch} cannot be answered")
        self._images = dataset.images
        self._batch = batch
        self._progress = progress
        self._classes = classes
        self._reference: list[NDArray[np.float32]] = []

    def collect(self, answerers: Sequence[Answerer], name: str = "") -> dict[str, Answers]:
        """Returns the answers by the answerer's id, after one pass over the images.

        Args:
            answerers: what answers, nothing for no pass.
            name: of the pass, where there are several.

        Raises:
            ImageError: an image cannot be read; the message names it.
            ModelError: an answer is no number.
        """
        if not answerers:
            return {}
        records = [_Record(answerer, self._classes) for answerer in answerers]
        is_first, total = not self._reference, len(self._images)
        step = f"{name}{': ' if name else ''}answering {total} images, {_ways(len(answerers))}"
        self._progress(step, 0.0)
        preprocessings = tuple(dict.fromkeys(record.preprocessing for record in records))
        with contextlib.closing(_prepared_batches(self._images, preprocessings, self._batch)) as batches:
            for number, prepared in enumerate(batches):
                first = number * self._batch
                for record in records:
                    logits = self._logits(record, prepared[record.preprocessing], first)
                    if is_first and record is records[0]:
                        self._reference.append(logits)
                    record.add(logits, self._reference[number])
                self._progress(step, min(first + self._batch, total) / total)
        return {record.answerer.identity.id: record.answers() for record in records}

    def _logits(self, record: _Record, images: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        try:
            return record.answer(images, first)
        except NotFinite as error:
            label, name = record.answerer.identity.label, _name(self._images, error.image)
            raise ModelError(f"{label}: the answer to {name} is not finite", error.hint) from error


class _Record:
    """One answerer's answers while they come in."""

    def __init__(self, answerer: Answerer, classes: ClassEmbeddings | None) -> None:
        description = answerer.runner.description
        self.answerer = answerer
        self.preprocessing = description.preprocessing
        self._classes = description.model.classes
        self._class_embeddings = classes
        self._embeddings: list[NDArray[np.float32]] = []
        self._top: list[NDArray[np.int64]] = []
        self._kept: list[NDArray[np.int32]] = []
        self._cosine: list[NDArray[np.float32]] = []
        self._seconds = 0.0

    def answer(self, images: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        """Returns the logits of a batch whose first image has this number; kept tokens and time are recorded."""
        if not self._kept:
            self.answerer.answer(images[:1], first)  # the first run of anything pays for what later ones find ready
        runner = self.answerer.runner
        started, spared = time.perf_counter(), runner.spared_seconds
        output = self.answerer.answer(images, first)
        self._seconds += time.perf_counter() - started + runner.spared_seconds - spared  # as if it answered alone
        self._kept.append(output.kept)
        return output.logits

    def add(self, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """Records likeliest classes and cosines of a batch."""
        self._cosine.append(_cosines(logits, reference))
        classes = self._classes
        if not classes:
            self._embeddings.append(unit_length(logits))
            if self._class_embeddings is not None:
                logits = self._class_embeddings.scores(self._embeddings[-1])
                classes = logits.shape[1]
        order = np.argsort(-logits, axis=1, kind="stable")[:, : min(TOP, classes)]
        self._top.append(order.astype(np.int64))

    def answers(self) -> Answers:
        """Returns what was recorded."""
        kept = np.concatenate(self._kept)
        top, cosine = np.concatenate(self._top), np.concatenate(self._cosine)
        none = np.empty((len(kept), 0), dtype=np.int32)
        near = nearest(np.concatenate(self._embeddings)) if self._embeddings else none
        return Answers(top, kept, self.answerer.macs(kept), cosine, self._seconds, near)


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the cosines of rows [B, C], float32 [B]; 1 where both are zero and 0 where one is."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    same = (one == other).all(axis=1)
    return np.where(same, 1.0, cosines.clip(-1, 1)).astype(np.float32)


def _prepared_batches(
    images: Sequence[ImageLike], preprocessings: Sequence[Preprocessing], batch: int
) -> Generator[Prepared]:
    """Yields all images in batches, in order, each decoded once; threads work some batches ahead."""
    threads = processors()
    starts = range(0, len(images), batch)
    pending: deque[Future[Prepared]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for start in starts:
            numbers = range(start, min(start + batch, len(images)))
            pending.append(pool.submit(_prepared, images, numbers, preprocessings))
            if len(pending) > threads + _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepared(images: Sequence[ImageLike], numbers: range, preprocessings: Sequence[Preprocessing]) -> Prepared:
    """Decodes some images and makes the input of each preprocessing from them."""
    out = {p: np.empty((len(numbers), p.channels, *p.image_size), dtype=np.float32) for p in preprocessings}
    for place, number in enumerate(numbers):
        try:
            opened = {count: open_image(images[number], count) for count in {p.channels for p in preprocessings}}
            for preprocessing, batch in out.items():
                batch[place] = preprocess(opened[preprocessing.channels], preprocessing)[0]
        except ImageError as error:
            name = _name(images, number)
            if name.removeprefix("image ") in error.message:
                raise
            raise ImageError(f"{name}: {error.message}", error.hint) from error
    return out


def _ways(count: int) -> str:
    return "1 way of answering" if count == 1 else f"{count} ways of answering"


def _name(images: Sequence[ImageLike], number: int) -> str:
    image = images[number]
    return f"image {os.fspath(image)}" if isinstance(image, (str, os.PathLike)) else f"image {number}"
