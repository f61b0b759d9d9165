"""What runners answer: the types of answers, the check of what a graph returned, and classes made of logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import COUNTS, FEATURES, Task
from sait_deploy.artifacts.points import Described
from sait_deploy.artifacts.tower_info import CU_SEQLENS, POSITIONS
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.exporters.names import KEEP


@dataclass(frozen=True, slots=True)
class Output:
    """The answer to a batch.

    Attributes:
        logits: float32 [B, classes]; embeddings [B, D] of unit length of a model that embeds; features [B, D] as they
            are of others without a head; tokens [T, D] of an image tower, end to end.
        kept: int32 [B], patch tokens that each image kept.
        features: float32 [B, P+N, D], the last block's tokens, where the artifact was exported with them. Kept tokens
            went through all blocks; a dropped token is what it was when it was dropped.
        further: the graph's other outputs by their names: ``block3_features``, the same of block 3, and beside it of a
            pruned graph ``keep``, int32 [B, P+N], 1 where a token was kept; of an image tower what its properties say.
    """

    logits: NDArray[np.float32]
    kept: NDArray[np.int32]
    features: NDArray[np.float32] | None = None
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def tokens(self) -> NDArray[np.float32]:
        """The tokens of an image tower, float32 [T, D], end to end."""
        _ = self.cu_seqlens
        return self.logits

    @property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """Where each image's tokens begin, int32 [B+1]: image b has those from cu_seqlens[b] to before the next."""
        return self._of_tower(CU_SEQLENS)

    @property
    def positions(self) -> NDArray[np.int32]:
        """The number of each token's patch, row by row, int32 [T]; of prefix tokens -P to -1."""
        return self._of_tower(POSITIONS)

    def _of_tower(self, name: str) -> NDArray[np.int32]:
        if name not in self.further:
            raise InvalidArgument("only an image tower answers tokens", "read logits, or export with --task tokens")
        return self.further[name]


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a graph returns: logits, kept tokens with the prefix where it prunes, features where it has them, others.

    Of an image tower the logits are tokens, end to end.
    """

    logits: NDArray[np.float32]
    counts: NDArray[np.int32] | None
    features: NDArray[np.float32] | None
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, NDArray[Any]], description: Described) -> Self:
        """Returns a graph's outputs, given by their names in the graph's order: its answer is the first."""
        answer, *names = found
        if (tower := description.model.tower) is None:
            further = {name: found[name] for name in names if name not in (COUNTS, FEATURES)}
            return cls(found[answer], found.get(COUNTS), found.get(FEATURES), further)
        # Behind the last image's tokens there may be rows that the runtime added.
        cu_seqlens = found[CU_SEQLENS]
        total, left_out = int(cu_seqlens[-1]), tower.left_out(description.model.geometry.prefix_tokens)
        counts = (np.diff(cu_seqlens) + left_out).astype(np.int32)
        further = {CU_SEQLENS: cu_seqlens, POSITIONS: found[POSITIONS][:total]}
        return cls(found[answer][:total], counts, None, further)


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer to a batch, with the selection's input and output.

    Attributes:
        logits: float32 [B, classes].
        importance: float32 [B, N], rows summing to 1.
        keep: int32 [B, P+N], 1 where a token was kept, prefix tokens first.
    """

    logits: NDArray[np.float32]
    importance: NDArray[np.float32]
    keep: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where the time of one request went, seconds.

    Attributes:
        enqueue: what the host takes to start the work between the copies, without what it waits for the device. Where
            this is as long as ``compute``, the device waits for the host.
        upload: the copy to the device, by the device's clock.
        compute: the work between the copies, by the device's clock.
        download: the copy to the host, by the device's clock.
    """

    enqueue: float
    upload: float
    compute: float
    download: float


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


def check_arrived(description: Described, images: int, raw: RawOutput) -> None:
    """Checks that what a graph returned for so many images is of the shapes and types that its model gives.

    Raises:
        ArtifactError: it is not, or the tokens counted are fewer or more than there can be.
    """
    model, further = description.model, raw.further.items()
    tokens = (images, model.geometry.tokens, model.geometry.width)
    rows = images if model.tower is None else int(raw.further[CU_SEQLENS][-1])
    integers = {KEEP: tokens[:2], CU_SEQLENS: (images + 1,), POSITIONS: (rows,)}
    wanted = (
        ("logits", raw.logits, np.float32, (rows, model.answer_width)),
        ("counts", raw.counts, np.int32, (images,)),
        ("features", raw.features, np.float32, tokens),
        *((name, found, np.float32, tokens) for name, found in further if name not in integers),
        *((name, raw.further.get(name), np.int32, shape) for name, shape in integers.items()),
    )
    for name, found, dtype, shape in wanted:
        if found is None:
            continue
        if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
            what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise ArtifactError(
                f"{description.name} answers {images} images with {name} {what}, "
                f"not {np.dtype(dtype).name} {list(shape)}",
                "export again",
            )
    prefix, most = model.geometry.prefix_tokens, model.geometry.tokens
    if raw.counts is not None and not ((raw.counts >= prefix) & (raw.counts <= most)).all():
        raise ArtifactError(
            f"{description.name} says that it kept {raw.counts.min()} to {raw.counts.max()} of {most} tokens",
            "export again",
        )


def predictions(description: Described, output: Output, top: int) -> list[Prediction]:
    """Turns a batch's output into its likeliest classes.

    Raises:
        InvalidArgument: the model has no head to classify with, or fewer than one class is asked for.
    """
    if not isinstance(top, Integral) or isinstance(top, bool) or top < 1:
        raise InvalidArgument(f"top {top!r} is no number of classes", "give 1 or more")
    model = description.model
    if model.classes == 0:
        answers = {Task.EMBED: "embeddings", Task.TOKENS: "tokens"}
        what = answers.get(model.task, "features")
        raise InvalidArgument(f"{description.name} is headless: it returns {what}", "use run()")
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
