"""What every runner does, whatever the runtime behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, Precision
from sait_deploy.artifacts.points import DEFAULT_CHOICE, BatchPoint, Described, PerImage, PointChoice, resolve
from sait_deploy.artifacts.tower_info import CU_SEQLENS
from sait_deploy.errors import InvalidArgument, NotFinite
from sait_deploy.images.preprocess import ImageLike, preprocess
from sait_deploy.runtime.answers import Output, Prediction, RawOutput, Selection, StageTimes, check_arrived, predictions
from sait_deploy.tokens import most_images


class Runner(ABC):
    """A model ready to run; :func:`sait_deploy.load` returns one for an artifact.

    Args:
        source: an artifact, or the description of a model in memory.

    Attributes:
        runtime: the runtime's name in ``runtime.registry.RUNTIMES``, which a runtime's own class states.
        description: the artifact's manifest, or the description of the model in memory.
    """

    runtime: ClassVar[str]

    def __init__(self, source: Artifact | Described) -> None:
        self._artifact = source if isinstance(source, Artifact) else None
        self.description: Described = source.manifest if isinstance(source, Artifact) else source

    @property
    def artifact(self) -> Artifact:
        """The artifact that runs.

        Raises:
            InvalidArgument: a model in memory runs.
        """
        if self._artifact is None:
            raise InvalidArgument(f"{self.description.name} runs from memory and has no artifact", "export it first")
        return self._artifact

    @property
    def environment(self) -> dict[str, str]:
        """Versions and device behind this runner, name to value."""
        return {"runtime": self.runtime}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why answers may be off here though everything works, each in a line; none of most runners."""
        return ()

    @property
    def kind(self) -> str:
        """What two runners must have in common for their times to be compared, in words."""
        return self.runtime

    @property
    def precision(self) -> str:
        """Element type of the weights and of most activations, as they run."""
        return self.artifact.manifest.dtype.value

    @property
    def batch_range(self) -> tuple[int, int]:
        """The fewest and the most images of a request."""
        fixed = None if self._artifact is None else self._artifact.manifest.batch
        return (1, most_images(self.description.model.geometry)) if fixed is None else (fixed, fixed)

    @property
    def spared_seconds(self) -> float:
        """Seconds that this runner did not spend so far, as another had computed the same for the same batch."""
        return 0.0

    @abstractmethod
    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        """Runs the graph; the point is given to an adaptive form alone."""

    @abstractmethod
    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        """Returns the selection's tensors of a pruned form beside the logits."""

    @abstractmethod
    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], float | None]:
        """Returns a call that runs this batch on buffers bound beforehand."""

    def _stages(self, images: NDArray[np.float32], point: BatchPoint | None) -> StageTimes | None:
        """Runs a batch and returns where its time went; None for a runtime that cannot tell."""
        return None

    def run(
        self,
        images: NDArray[np.float32],
        *,
        mass: PerImage | None = None,
        min_keep: PerImage | None = None,
        max_keep: PerImage | None = None,
        point: str | None = None,
    ) -> Output:
        """Runs a preprocessed batch.

        An adaptive artifact runs at its default point, at the point named, or at that point with parts of it replaced,
        for all images or for each its own.

        Args:
            images: float32 [B, C, H, W] as :meth:`preprocess` returns it.
            mass: probability mass to reach, one value or one per image.
            min_keep: patch tokens to keep at least, likewise.
            max_keep: patch tokens to keep at most, likewise.
            point: name of a point in the manifest.

        Raises:
            InvalidArgument: images of another shape or dtype, or an empty batch; a point or limits that cannot be, or
                any of an artifact whose point is fixed.
            ModelError: an image's logits are not numbers.
        """
        return self.run_at(images, PointChoice(point, mass, min_keep, max_keep))

    def run_at(self, images: NDArray[np.float32], choice: PointChoice) -> Output:
        """Does what :meth:`run` does, with the operating point in one argument."""
        images = self._checked(images)
        raw = self._execute(images, self._resolved(images, choice))
        check_arrived(self.description, len(images), raw)
        return self._output(raw)

    def select(
        self,
        images: NDArray[np.float32],
        *,
        mass: PerImage | None = None,
        min_keep: PerImage | None = None,
        max_keep: PerImage | None = None,
        point: str | None = None,
    ) -> Selection:
        """Runs a preprocessed batch and returns importance and kept tokens too. Takes what :meth:`run` takes.

        Raises:
            InvalidArgument: as :meth:`run`, or the artifact is dense and selects nothing.
            ModelError: an image's importance or logits are not numbers.
        """
        return self.select_at(images, PointChoice(point, mass, min_keep, max_keep))

    def select_at(self, images: NDArray[np.float32], choice: PointChoice) -> Selection:
        """Does what :meth:`select` does, with the operating point in one argument."""
        images = self._checked(images)
        if self.description.form is Form.DENSE:
            raise InvalidArgument(f"{self.description.name} is dense: it selects no tokens", "use a pruned artifact")
        batch_point = self._resolved(images, choice)
        selection = self._execute_selection(images, batch_point)
        self._check_finite("importance scores", selection.importance)
        tower, prefix = self.description.model.tower, self.description.model.geometry.prefix_tokens
        ends = None if tower is None else np.cumsum(selection.keep.sum(axis=1) - tower.left_out(prefix))
        self._check_finite("logits" if tower is None else "tokens", selection.logits, ends)
        return selection

    def stages(self, images: NDArray[np.float32], choice: PointChoice = DEFAULT_CHOICE) -> StageTimes | None:
        """Runs a batch and returns where its time went; None for a runtime that cannot tell."""
        images = self._checked(images)
        return self._stages(images, self._resolved(images, choice))

    def bind(self, images: NDArray[np.float32], choice: PointChoice = DEFAULT_CHOICE) -> Callable[[], float | None]:
        """Returns a call that runs this batch on buffers bound beforehand, which ``--timing compute`` measures.

        Where the device has a clock, the call returns the seconds by that clock.
        """
        images = self._checked(images)
        return self._bound(images, self._resolved(images, choice))

    def _resolved(self, images: NDArray[np.float32], choice: PointChoice) -> BatchPoint | None:
        return resolve(self.description, len(images), choice)

    def preprocess(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float32]:
        """Turns paths, PIL images or uint8 arrays [H, W, C] into float32 [B, C, H, W], as the manifest says."""
        return preprocess(images, self.description.preprocessing)

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5, choice: PointChoice = DEFAULT_CHOICE
    ) -> list[Prediction]:
        """Classifies images.

        Raises:
            ImageError: one of them cannot be read.
            InvalidArgument: the model has no head to classify with, or the point cannot be.
        """
        return predictions(self.description, self.run_at(self.preprocess(images), choice), top)

    def _output(self, raw: RawOutput) -> Output:
        """Returns what a batch's caller gets of what the graph returned."""
        ends = None if self.description.model.tower is None else raw.further[CU_SEQLENS][1:]
        self._check_finite("logits" if ends is None else "tokens", raw.logits, ends)
        geometry = self.description.model.geometry
        if raw.counts is None:
            kept = np.full(len(raw.logits), geometry.patch_tokens, dtype=np.int32)
        else:
            kept = raw.counts - np.int32(geometry.prefix_tokens)
        return Output(raw.logits, kept, raw.features, raw.further)

    def _checked(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the images as runtimes take them: rows in order, and writable as torch wants them."""
        image = self.description.preprocessing.channels, *self.description.model.image_size
        shape, dtype = np.shape(images), getattr(images, "dtype", type(images))
        if dtype != np.float32 or len(shape) != 4 or shape[1:] != image or shape[0] == 0:
            raise InvalidArgument(
                f"images are {dtype} {list(shape)}, not float32 [B, {', '.join(map(str, image))}] with B >= 1",
                "use runner.preprocess(images)",
            )
        most = most_images(self.description.model.geometry)
        if shape[0] > most:
            raise InvalidArgument(f"a batch of {shape[0]} images has more tokens than int32 counts", f"at most {most}")
        fixed = None if self._artifact is None else self._artifact.manifest.batch
        if fixed is not None and shape[0] != fixed:
            raise InvalidArgument(
                f"{self.description.name} takes batches of {fixed} images, not {shape[0]}",
                "fill the batch, or export without --batch",
            )
        return np.require(images, requirements=["C", "W"])

    def _check_finite(
        self, what: str, values: NDArray[np.float32], ends: NDArray[np.signedinteger] | None = None
    ) -> None:
        """Refuses rows that are not numbers: one of each image, or of an image those before its number in ``ends``."""
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if not len(wrong):
            return
        image = int(wrong[0]) if ends is None else int(np.searchsorted(ends, wrong[0], side="right"))
        message = f"image {image} of the batch: its {what} are not finite numbers"
        if self._artifact is None or self.precision != Precision.FP16:
            raise NotFinite(message, image)
        again = "export with --precision fp32"
        if self.artifact.manifest.dtype is not Precision.FP16:
            again = "run it in another precision, for which TensorRT needs an engine: --precision bf16 or fp32"
        raise NotFinite(message, image, f"fp16 holds numbers up to 65,504 alone: {again}")
