"""What answers in an evaluation, and an artifact's runner as such."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.runtimes import portions
from sait_deploy.evaluation.results import Kind
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.runtime.base import Runner
from sait_deploy.tokens import Geometry, OperatingPoint, dense_macs, pruned_macs


@dataclass(frozen=True, slots=True)
class Identity:
    """What a subject is in a report; see ``sait_deploy.evaluation.results.Row``.

    Attributes:
        id: unique among the subjects of an evaluation.
        label: its name in tables.
        kind: what it stands for.
        point: the operating point; None where nothing is pruned.
    """

    id: str
    label: str
    kind: Kind
    point: OperatingPoint | None


class Subject(ABC):
    """Something to ask for answers.

    Args:
        identity: what it is.
        geometry: sizes of its model, those of the smaller one at a lower resolution.
        preprocessing: how its images are made.
        prune_at: block pruned in; None where nothing is pruned.
        classes: of its model; 0 of a headless one.
    """

    def __init__(
        self, identity: Identity, geometry: Geometry, preprocessing: Preprocessing, prune_at: int | None, classes: int
    ) -> None:
        self.identity = identity
        self.geometry = geometry
        self.preprocessing = preprocessing
        self.prune_at = prune_at
        self.classes = classes

    @property
    def id(self) -> str:
        """Unique among the subjects of an evaluation."""
        return self.identity.id

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.identity.label

    @property
    def kind(self) -> Kind:
        """What it stands for."""
        return self.identity.kind

    @property
    def point(self) -> OperatingPoint | None:
        """The operating point; None where nothing is pruned."""
        return self.identity.point

    @abstractmethod
    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch.

        Args:
            images: float32 [B, 3, H, W] by this subject's preprocessing.
            first: number of the first of them among all images: chance is drawn by image.

        Returns:
            Logits float32 [B, C], or features [B, D] of a headless model, and patch tokens kept int32 [B].
        """

    def macs(self, kept: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the multiply-accumulates of images that keep so many patch tokens, int64 [n]."""
        if self.prune_at is None:
            return np.full(len(kept), dense_macs(self.geometry), dtype=np.int64)
        counts, place = np.unique(kept, return_inverse=True)
        costs = [pruned_macs(self.geometry, self.prune_at, int(count)) for count in counts]
        return np.array(costs, dtype=np.int64)[place]


class RunnerSubject(Subject):
    """An artifact on a runtime, at a point of an adaptive one or as it is.

    Args:
        identity: what it is.
        runner: the artifact ready to run.
        choice: what to ask of an adaptive artifact.
    """

    def __init__(self, identity: Identity, runner: Runner, choice: PointChoice = DEFAULT_CHOICE) -> None:
        manifest = runner.artifact.manifest
        prune_at = None if manifest.pruning is None else manifest.pruning.prune_at
        super().__init__(identity, manifest.model.geometry, manifest.preprocessing, prune_at, manifest.model.classes)
        self.runner = runner
        self.choice = choice

    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch, in parts where the runtime takes no batch of that size."""
        parts = portions(len(images), len(images), self.runner.batch_range)
        if len(parts) == 1 and len(parts[0]) == len(images):
            output = self.runner.run_at(images, self.choice)
            return output.logits, output.kept
        outputs = [self.runner.run_at(images[numbers], self.choice) for numbers in parts]
        logits = np.concatenate([output.logits for output in outputs])
        return logits[: len(images)], np.concatenate([output.kept for output in outputs])[: len(images)]
