"""Where an evaluation's answers come from: a model in torch, or an artifact on a runtime."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import TYPE_CHECKING

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, Manifest, ModelInfo, Precision, WeightsInfo
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice, PointRequest
from sait_deploy.errors import ArtifactError, MissingDependency, RuntimeUnavailable, SaitError
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.subjects import Identity, RunnerSubject, Subject
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.registry import TORCH
from sait_deploy.tokens import Score, default_prune_at

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from sait_deploy.evaluation.controls import TorchFamily
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.models.weights import SparseTraining

DENSE = Identity("dense", "dense", Kind.DENSE, None)
"""What all others are compared with."""


class Source(ABC):
    """What answers.

    Args:
        model: the model.
        weights: its weights.
        density: of a density artifact, the only one it answers; None where any point can be asked, or none.
    """

    def __init__(self, model: ModelInfo, weights: WeightsInfo, density: Decimal | None) -> None:
        self.model = model
        self.weights = weights
        self.density = density
        self.training: SparseTraining | None = None
        """How the weights were trained sparse; None where they were not, or nobody knows."""
        self.notes: list[str] = []

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Name of what runs it."""

    @property
    @abstractmethod
    def pruning(self) -> tuple[Score, int] | None:
        """How importance is read off the attention, and the block pruned in; None of a dense artifact."""

    @property
    @abstractmethod
    def named_points(self) -> tuple[PointRequest, ...]:
        """The points that it has itself, where any can be asked."""

    @abstractmethod
    def dense(self) -> Subject:
        """Returns the dense model."""

    @abstractmethod
    def at(self, identity: Identity) -> Subject:
        """Returns the model at the identity's point."""

    @abstractmethod
    def family(self) -> TorchFamily:
        """Returns the model in torch, for what no artifact can be asked.

        Raises:
            SaitError: torch or the weights cannot be had.
        """

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Returns versions and device behind the answers, name to value."""


class TorchSource(Source):
    """A model in torch.

    Args:
        loaded: the model.
        score: how importance is read off the attention.
        prune_at: block pruned in.
        options: threads and device.

    Raises:
        ModelError: it cannot be pruned.
        InvalidArgument: the score or the block is not the model's.
        RuntimeUnavailable: torch cannot use the device.
    """

    def __init__(self, loaded: LoadedModel, score: Score, prune_at: int, options: RunOptions) -> None:
        super().__init__(loaded.info, loaded.weights, None)
        self.training = loaded.training
        self._pruning = score, prune_at
        self._family = _family(loaded.vit, self._pruning, loaded.preprocessing, options)

    @property
    def runtime(self) -> str:
        """Name of what runs it."""
        return TORCH

    @property
    def pruning(self) -> tuple[Score, int]:
        """How importance is read off the attention, and the block pruned in."""
        return self._pruning

    @property
    def named_points(self) -> tuple[PointRequest, ...]:
        """None: a model names no points."""
        return ()

    def dense(self) -> Subject:
        """Returns the dense model."""
        from sait_deploy.evaluation.controls import DenseTorch

        return DenseTorch(DENSE, self._family)

    def at(self, identity: Identity) -> Subject:
        """Returns the model at the identity's point."""
        from sait_deploy.evaluation.controls import TorchSubject

        return TorchSubject(identity, self._family)

    def family(self) -> TorchFamily:
        """Returns the model itself."""
        return self._family

    def environment(self) -> dict[str, str]:
        """Returns torch's version, threads and device."""
        import torch

        return {
            "torch": torch.__version__,
            "torch threads": str(torch.get_num_threads()),
            "device": str(self._family.device),
        }


class ArtifactSource(Source):
    """An artifact on a runtime, and its dense baseline, which is looked for beside it.

    Args:
        artifact: the artifact.
        runtime: what runs it.
        options: threads and device; where the weights are, for what takes torch.

    Raises:
        SaitError: the runtime cannot run the artifact, or of a density artifact the baseline.
    """

    def __init__(self, artifact: Artifact, runtime: str, options: RunOptions) -> None:
        manifest = artifact.manifest
        density = None if manifest.pruning is None else manifest.pruning.density
        super().__init__(manifest.model, manifest.weights, None if density is None else Decimal(density))
        self._manifest = manifest
        self._options = options
        self._runner = load(artifact, runtime, options)
        self._dense, self._dense_choice = self._runner, DEFAULT_CHOICE
        if manifest.form is Form.DENSITY:
            self._dense = load(baseline_of(artifact), runtime, options)
        elif manifest.form is Form.ADAPTIVE:
            self._dense, self._dense_choice = self._baseline(artifact, runtime)

    def _baseline(self, artifact: Artifact, runtime: str) -> tuple[Runner, PointChoice]:
        """Returns the baseline, or where it cannot be had the artifact itself at the point that prunes nothing."""
        try:
            return load(baseline_of(artifact), runtime, self._options), DEFAULT_CHOICE
        except SaitError as error:
            patches = self.model.geometry.patch_tokens
            self.notes.append(f"dense is the adaptive artifact at mass 1, which drops no token: {error.message}")
            return self._runner, PointChoice(mass=1.0, min_keep=patches, max_keep=patches)

    @property
    def runtime(self) -> str:
        """Name of what runs it."""
        return self._runner.runtime

    @property
    def pruning(self) -> tuple[Score, int] | None:
        """How importance is read off the attention, and the block pruned in; None of a dense artifact."""
        info = self._manifest.pruning
        return None if info is None else (info.score, info.prune_at)

    @property
    def named_points(self) -> tuple[PointRequest, ...]:
        """The points in an adaptive artifact's manifest."""
        info = self._manifest.pruning
        if info is None or self.density is not None:
            return ()
        points = ((one.name, one.point) for one in info.points)
        return tuple(PointRequest(name, point.mass, point.min_keep, point.max_keep) for name, point in points)

    def dense(self) -> Subject:
        """Returns the dense model."""
        return RunnerSubject(DENSE, self._dense, self._dense_choice)

    def at(self, identity: Identity) -> Subject:
        """Returns an adaptive artifact at the identity's point, and any other as it is."""
        point = identity.point
        if self._manifest.form is not Form.ADAPTIVE or point is None:
            return RunnerSubject(identity, self._runner)
        choice = PointChoice(mass=point.mass, min_keep=point.min_keep, max_keep=point.max_keep)
        return RunnerSubject(identity, self._runner, choice)

    def family(self) -> TorchFamily:
        """Returns the model that the artifact was exported from, in float32.

        Raises:
            MissingDependency: torch is not installed.
            ModelError: the weights cannot be had.
            ArtifactError: they are others now.
        """
        try:
            from sait_deploy.runtime.torch import rebuild

            whole = rebuild(dataclasses.replace(self._manifest, dtype=Precision.FP32), self._options.weights)
        except ImportError:
            raise MissingDependency("timm", "a control or a lower resolution", extra="export") from None
        self.notes.append(f"controls and lower resolutions ran in torch, in float32, and all else on {self.runtime}")
        pruning = self.pruning or (Score.MEAN, default_prune_at(self.model.geometry.depth))
        return _family(whole.vit, pruning, self._manifest.preprocessing, self._options)

    def environment(self) -> dict[str, str]:
        """Returns what the runner says of itself."""
        return {name: value for name, value in self._runner.environment.items() if name != "runtime"}


def baseline_of(artifact: Artifact) -> Artifact:
    """Opens the dense artifact of the same weights, which lies in the same folder.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    manifest: Manifest = artifact.manifest
    place = None if manifest.baseline is None else Workspace(artifact.path.parent).find(manifest.baseline)
    if place is None:
        raise ArtifactError(
            f"the dense baseline {manifest.baseline} of {artifact.path.name} is not beside it", "export it with --dense"
        )
    return open_artifact(place)


def _family(
    vit: VisionTransformer, pruning: tuple[Score, int], preprocessing: Preprocessing, options: RunOptions
) -> TorchFamily:
    import torch

    from sait_deploy.evaluation.controls import TorchFamily

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        return TorchFamily(vit, *pruning, preprocessing, options.device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise RuntimeUnavailable(
            f"torch cannot use device {options.device!r}: {first}", "see: sait-deploy doctor"
        ) from None
