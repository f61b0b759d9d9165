"""What every runner does, whatever the runtime behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifact import Artifact
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.preprocess import ImageLike, preprocess

_MOST_THREADS: Final = 1024


class RuntimeName(StrEnum):
    """The runtimes that ``load`` knows."""

    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    TORCH = "torch"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a runner runs.

    Attributes:
        threads: threads within one operator; None for all of the processors this process may use.
        weights: the torch runtime's weights file, where the one the manifest names is not there any more.
        device: the torch runtime's device.

    Raises:
        InvalidArgument: a number of threads that no machine has.
    """

    threads: int | None = None
    weights: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.threads is not None and (type(self.threads) is not int or not 1 <= self.threads <= _MOST_THREADS):
            raise InvalidArgument(f"{self.threads!r} threads cannot be had", f"use 1 to {_MOST_THREADS}")


@dataclass(frozen=True, slots=True)
class Output:
    """The answer to a batch.

    Attributes:
        logits: float32 [B, classes]; features [B, D] for a headless model.
        kept: int32 [B], patch tokens that each image kept.
    """

    logits: NDArray[np.float32]
    kept: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer to a batch, and what the selection saw and decided.

    Attributes:
        logits: float32 [B, classes].
        importance: float32 [B, N], rows summing to 1.
        keep: int32 [B, P+N], 1 where a token was kept, prefix tokens first.
    """

    logits: NDArray[np.float32]
    importance: NDArray[np.float32]
    keep: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest classes of one image.

    Attributes:
        labels: class names, or numbers where the artifact has no names, likeliest first.
        probabilities: their softmax probabilities.
        kept: patch tokens kept.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    kept: int


class Runner(ABC):
    """An artifact ready to run. Use :func:`sait_deploy.load` to get one."""

    def __init__(self, artifact: Artifact, runtime: RuntimeName) -> None:
        self.artifact = artifact
        self.runtime = runtime

    @property
    def environment(self) -> dict[str, str]:
        """Versions and device behind this runner, name to value."""
        return {"runtime": self.runtime.value}

    @abstractmethod
    def _execute(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        """Returns logits and, of a pruned form, counts with the prefix."""

    @abstractmethod
    def _execute_selection(self, images: NDArray[np.float32]) -> Selection:
        """Returns the selection's tensors of a pruned form beside the logits."""

    @abstractmethod
    def bind(self, images: NDArray[np.float32]) -> Callable[[], None]:
        """Returns a call that runs this batch on buffers bound beforehand: what ``--timing compute`` measures."""

    def run(self, images: NDArray[np.float32]) -> Output:
        """Runs a preprocessed batch.

        Args:
            images: float32 [B, 3, H, W] as :meth:`preprocess` returns it.

        Raises:
            InvalidArgument: another shape or dtype, or an empty batch.
            ModelError: an image's logits are not numbers.
        """
        logits, counts = self._execute(self._checked(images))
        self._check_finite("logits", logits)
        geometry = self.artifact.manifest.model.geometry
        if counts is None:
            return Output(logits, np.full(len(images), geometry.patch_tokens, dtype=np.int32))
        return Output(logits, counts - np.int32(geometry.prefix_tokens))

    def select(self, images: NDArray[np.float32]) -> Selection:
        """Runs a preprocessed batch and returns importance and kept tokens too.

        Raises:
            InvalidArgument: as :meth:`run`, or the artifact is dense and selects nothing.
            ModelError: an image's importance or logits are not numbers.
        """
        images = self._checked(images)
        if self.artifact.manifest.pruning is None:
            raise InvalidArgument(f"{self.artifact.path.name} is dense: it selects no tokens", "use a pruned artifact")
        selection = self._execute_selection(images)
        self._check_finite("importance scores", selection.importance)
        self._check_finite("logits", selection.logits)
        return selection

    def preprocess(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float32]:
        """Turns paths, PIL images or uint8 arrays [H, W, 3] into float32 [B, 3, H, W], as the manifest says."""
        return preprocess(images, self.artifact.manifest.preprocessing)

    def predict(self, images: ImageLike | Iterable[ImageLike], top: int = 5) -> list[Prediction]:
        """Classifies images.

        Raises:
            ImageError: one of them cannot be read.
            InvalidArgument: the model has no head to classify with.
        """
        return predictions(self.artifact, self.run(self.preprocess(images)), top)

    def _checked(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the images as runtimes take them: rows in order, and writable as torch wants them."""
        height, width = self.artifact.manifest.model.image_size
        shape, dtype = np.shape(images), getattr(images, "dtype", type(images))
        if dtype != np.float32 or len(shape) != 4 or shape[1:] != (3, height, width) or shape[0] == 0:
            raise InvalidArgument(
                f"images are {dtype} {list(shape)}, not float32 [B, 3, {height}, {width}] with B >= 1",
                "use runner.preprocess(images)",
            )
        return np.require(images, requirements=["C", "W"])

    def _check_finite(self, what: str, values: NDArray[np.float32]) -> None:
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            raise ModelError(
                f"image {int(wrong[0])} of the batch: its {what} are not finite numbers",
                "check the weights and the input for NaN and infinity",
            )


def predictions(artifact: Artifact, output: Output, top: int) -> list[Prediction]:
    """Turns a batch's output into its likeliest classes.

    Raises:
        InvalidArgument: the model has no head to classify with.
    """
    model = artifact.manifest.model
    if model.classes == 0:
        raise InvalidArgument(f"{artifact.path.name} is headless: it returns features", "use run()")
    shifted = output.logits - output.logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names = model.labels or tuple(str(i) for i in range(model.classes))
    return [
        Prediction(
            labels=tuple(names[i] for i in row),
            probabilities=tuple(float(p[i]) for i in row),
            kept=int(kept),
        )
        for row, p, kept in zip(order, probabilities, output.kept, strict=True)
    ]
