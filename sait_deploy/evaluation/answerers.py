"""What answers in an evaluation: a runner at one operating point, or with kept tokens chosen by a control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.errors import NotFinite
from sait_deploy.evaluation.results import Kind
from sait_deploy.runtime.answers import Output
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import portions
from sait_deploy.tokens import OperatingPoint, dense_macs, pruned_macs

if TYPE_CHECKING:
    from sait_deploy.runtime.torch import TorchRunner

SEED: Final = 0
"""Of the random control."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answerer is in a report; see ``sait_deploy.evaluation.results.EvaluationRow``.

    Attributes:
        id: unique among the answerers of an evaluation.
        label: its name in tables.
        kind: what it stands for.
        point: the operating point; None where nothing is pruned.
    """

    id: str
    label: str
    kind: Kind
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class Answerer:
    """A runner at one operating point.

    Attributes:
        identity: what it is in the report.
        runner: what runs.
        choice: the operating point to ask for.
    """

    identity: Identity
    runner: Runner
    choice: PointChoice = DEFAULT_CHOICE

    def answer(self, images: NDArray[np.float32], first: int = 0) -> Output:
        """Answers a batch, in parts where the runtime takes no batch of that size.

        Args:
            images: float32 [B, C, H, W], preprocessed for this runner.
            first: number of the first of them among all images of the evaluation.

        Raises:
            NotFinite: an answer is not a number; the error has the image's number among all images.
        """
        parts = portions(len(images), len(images), self.runner.batch_range)
        whole = len(parts) == 1 and len(parts[0]) == len(images)
        outputs = [self._checked(images if whole else images[part], first + part) for part in parts]
        if whole:
            return outputs[0]
        logits = np.concatenate([output.logits for output in outputs])[: len(images)]
        return Output(logits, np.concatenate([output.kept for output in outputs])[: len(images)])

    def macs(self, kept: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the multiply-accumulates of images that keep so many patch tokens, int64 [n]."""
        description = self.runner.description
        geometry, prune_at = description.model.geometry, description.prune_at
        if prune_at is None:
            return np.full(len(kept), dense_macs(geometry), dtype=np.int64)
        counts, place = np.unique(kept, return_inverse=True)
        costs = [pruned_macs(geometry, prune_at, int(count)) for count in counts]
        return np.array(costs, dtype=np.int64)[place]

    def _checked(self, images: NDArray[np.float32], numbers: NDArray[np.intp]) -> Output:
        try:
            return self._run(images, numbers)
        except NotFinite as error:
            number = int(numbers[error.image])
            raise NotFinite(f"the answer to image {number} is not finite", number, error.hint) from error

    def _run(self, images: NDArray[np.float32], numbers: NDArray[np.intp]) -> Output:
        """Runs a batch of images, which have these numbers among all images."""
        return self.runner.run_at(images, self.choice)


@dataclass(frozen=True, slots=True)
class Control(Answerer):
    """A density's runner that keeps as many tokens, chosen otherwise: at random, or the least important ones.

    Attributes:
        identity: its kind says how tokens are chosen.
        runner: a runner in torch that keeps a fixed number of tokens.
        seed: of chance; with the image's number it decides what the image keeps.
    """

    runner: TorchRunner
    seed: int = SEED

    def _run(self, images: NDArray[np.float32], numbers: NDArray[np.intp]) -> Output:
        description = self.runner.description
        (point,) = description.operating_points.values()
        geometry, count = description.model.geometry, point.max_keep
        if self.identity.kind is Kind.RANDOM:
            chosen = [self._drawn(int(number), geometry.patch_tokens)[:count] for number in numbers]
        else:
            chosen = list(self.runner.importance(images).argsort(axis=1, kind="stable")[:, :count])
        keep = np.zeros((len(images), geometry.tokens), dtype=np.int32)
        keep[:, : geometry.prefix_tokens] = 1
        np.put_along_axis(keep, geometry.prefix_tokens + np.stack(chosen), 1, axis=1)
        return self.runner.run_keeping(images, keep)

    def _drawn(self, number: int, patch_tokens: int) -> NDArray[np.int64]:
        """Returns the patch tokens of an image in an order drawn by chance, int64 [N]."""
        return np.random.default_rng((self.seed, number)).permutation(patch_tokens)
