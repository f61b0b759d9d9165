"""Where an evaluation's answers come from: a model in memory, in torch, or an artifact on a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, ModelInfo, WeightsInfo
from sait_deploy.artifacts.points import PointChoice, PointRequest, mass_point
from sait_deploy.errors import ArtifactError, MissingDependency, SaitError
from sait_deploy.evaluation.answerers import Answerer, Control, Identity
from sait_deploy.evaluation.results import Kind
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, TORCH
from sait_deploy.tokens import OperatingPoint, Score, default_prune_at

if TYPE_CHECKING:
    from sait_deploy.models.pruning import Pruning
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.models.weights import SparseTraining
    from sait_deploy.runtime.torch import TorchRunner

DENSITIES: Final = (Decimal("0.7"), Decimal("0.5"), Decimal("0.3"), Decimal("0.2"))
"""What a model is evaluated at where neither densities nor points are named, beside ``MASSES``."""

MASSES: Final = (0.9, 0.8)

DENSE: Final = Identity("dense", "dense", Kind.DENSE, None)
"""What all others are compared with."""


class Source(ABC):
    """What answers.

    Attributes:
        model: the model.
        weights: its weights.
        channels: of the images it reads.
        runtime: name of what runs it.
        precision: what it runs in.
        pruning: how importance is read off the attention, and the block pruned in; None of a dense artifact.
        threshold: multiple of uniform importance that tokens must hold as well, of an adaptive artifact that has one.
        density: of a density artifact, the only one it answers; None where any point can be asked, or none.
        default_densities: what it is asked where neither densities nor points are named, with ``default_points``.
        default_points: see there.
        training: how the weights were trained sparse; None where they were not, or where that is unknown.
        notes: what a reader must know of it.
    """

    model: ModelInfo
    weights: WeightsInfo
    channels: int
    runtime: str
    precision: str
    pruning: tuple[Score, int] | None
    threshold: float | None = None
    density: Decimal | None = None
    default_densities: tuple[Decimal, ...] = ()
    default_points: tuple[PointRequest, ...] = ()
    training: SparseTraining | None = None
    notes: list[str]

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Versions and device behind the answers, name to value."""

    @abstractmethod
    def dense(self) -> Answerer:
        """Returns the dense model."""

    @abstractmethod
    def at(self, identity: Identity) -> Answerer:
        """Returns the model at the identity's point."""

    @abstractmethod
    def in_torch(self) -> ModelSource:
        """Returns the model in torch, for what no artifact can be asked.

        Raises:
            SaitError: torch or the weights cannot be had.
        """


class ModelSource(Source):
    """A model in memory, run in torch: dense, at any point, with controls, and on smaller images.

    All of its runners share the model's weights, and those on images of its size the first blocks' work on each batch.
    Those of the same number of tokens are one.

    Args:
        loaded: the model.
        pruning: how importance is read off the attention, and the block pruned in.
        options: threads and device.

    Raises:
        ModelError: it cannot be pruned.
        InvalidArgument: the score or the block is not the model's.
        RuntimeUnavailable: torch cannot use the device.
    """

    runtime = TORCH
    precision = RunPrecision.FP32.value
    default_densities = DENSITIES
    default_points = tuple(map(mass_point, MASSES))

    def __init__(self, loaded: LoadedModel, pruning: tuple[Score, int], options: RunOptions) -> None:
        from sait_deploy.models.pruning import AdaptivePruning
        from sait_deploy.runtime.torch_shared import SharedBlocks

        self.model, self.weights, self.training = loaded.info, loaded.weights, loaded.training
        self.channels, self.pruning, self.notes = loaded.preprocessing.channels, pruning, []
        self._loaded, self._pruning, self._options = loaded, pruning, options
        self._shared = SharedBlocks(pruning[1])
        self._adaptive = self._runner(AdaptivePruning(*pruning))
        self._fixed: dict[int, TorchRunner] = {}

    @property
    def environment(self) -> dict[str, str]:
        """torch's version, threads and device."""
        import torch

        said = self._adaptive.environment
        return {"torch": said["torch"], "torch threads": str(torch.get_num_threads()), "device": said["device"]}

    def dense(self) -> Answerer:
        """Returns the model with nothing pruned."""
        return Answerer(DENSE, self._runner(None))

    def at(self, identity: Identity) -> Answerer:
        """Returns the model at the identity's point."""
        point = identity.point
        assert point is not None
        kept = _fixed_count(point)
        if kept is None:
            return Answerer(identity, self._adaptive, PointChoice.of(point))
        return Answerer(identity, self._keeping(kept))

    def in_torch(self) -> ModelSource:
        """Returns the model itself."""
        return self

    def control(self, identity: Identity) -> Answerer:
        """Returns the model with as many tokens as the identity's point keeps, chosen as its kind says."""
        assert identity.point is not None
        return Control(identity, self._keeping(identity.point.max_keep))

    def on_smaller_images(self, identity: Identity, image_size: tuple[int, int]) -> Answerer:
        """Returns the dense model on images of that height and width, multiples of the patch size."""
        from sait_deploy.models.resize import resized
        from sait_deploy.runtime.torch import ModelInMemory, TorchRunner

        smaller = ModelInMemory(resized(self._loaded, image_size), None)
        return Answerer(identity, TorchRunner(smaller, self._options))

    def _keeping(self, kept: int) -> TorchRunner:
        from sait_deploy.models.pruning import FixedPruning

        if kept not in self._fixed:
            self._fixed[kept] = self._runner(FixedPruning(*self._pruning, kept))
        return self._fixed[kept]

    def _runner(self, pruning: Pruning | None) -> TorchRunner:
        from sait_deploy.runtime.torch import ModelInMemory, TorchRunner

        return TorchRunner(ModelInMemory(self._loaded, pruning), self._options, self._shared)


class ArtifactSource(Source):
    """An artifact on a runtime, and its dense baseline, which is looked for beside it.

    Args:
        artifact: the artifact; where a precision is asked for, its int8 or its float one may answer in its place.
        runtime: what runs it.
        options: threads, device and precision; where the weights are, for what takes torch.

    Raises:
        SaitError: the runtime cannot run the artifact, or of a density artifact the baseline.
    """

    def __init__(self, artifact: Artifact, runtime: str, options: RunOptions) -> None:
        artifact = artifact_for(artifact, runtime, options.precision)
        manifest, pruning = artifact.manifest, artifact.manifest.pruning
        self.model, self.weights, self.notes = manifest.model, manifest.weights, []
        self.channels = manifest.preprocessing.channels
        self.pruning = None if pruning is None else (pruning.score, pruning.prune_at)
        self.threshold = None if pruning is None else pruning.threshold
        if pruning is not None and pruning.density is not None:
            self.density = Decimal(pruning.density)
        elif pruning is not None:
            points = manifest.operating_points.items()
            self.default_points = tuple(PointRequest.of(name, point) for name, point in points)
        # The device is named in the words of the runtime that answers, which need not be torch's.
        self._torch_device = options.device if runtime == TORCH else DEFAULT_DEVICE
        self._artifact, self._options = artifact, options
        self._runner = load(artifact, runtime, self._options)
        self.runtime, self.precision = self._runner.runtime, self._runner.precision
        self._dense = self._dense_answerer(runtime)

    def _dense_answerer(self, runtime: str) -> Answerer:
        """Returns the baseline; where an adaptive artifact's cannot be had, the artifact that keeps all tokens."""
        form = self._artifact.manifest.form
        if form is Form.DENSE:
            return Answerer(DENSE, self._runner)
        try:
            return Answerer(DENSE, load(baseline_of(self._artifact), runtime, self._options))
        except SaitError as error:
            if form is Form.DENSITY:
                raise
            patches = self.model.geometry.patch_tokens
            self.notes.append(
                f"dense is the adaptive artifact with all tokens to keep at least, which drops none: {error.message}"
            )
            return Answerer(DENSE, self._runner, PointChoice(mass=1.0, min_keep=patches, max_keep=patches))

    @property
    def environment(self) -> dict[str, str]:
        """What the runner says of itself."""
        return {name: value for name, value in self._runner.environment.items() if name != "runtime"}

    def dense(self) -> Answerer:
        """Returns the dense model."""
        return self._dense

    def at(self, identity: Identity) -> Answerer:
        """Returns an adaptive artifact at the identity's point, and any other as it is."""
        if self._artifact.manifest.form is not Form.ADAPTIVE or identity.point is None:
            return Answerer(identity, self._runner)
        return Answerer(identity, self._runner, PointChoice.of(identity.point))

    def in_torch(self) -> ModelSource:
        """Returns the model that the artifact was exported from, in float32.

        Raises:
            MissingDependency: torch is not installed.
            ModelError: the weights cannot be had.
            ArtifactError: they are others now.
        """
        manifest = self._artifact.manifest
        try:
            from sait_deploy.models.original import original_model

            given = self._options
            loaded = original_model(manifest, given.weights, self._artifact.path, given.consent)
        except ImportError:
            raise MissingDependency("torch", "a control or a lower resolution", extra="export") from None
        self.notes.append(f"controls and lower resolutions ran in torch, in float32, and all else on {self.runtime}")
        pruning = self.pruning or (Score.MEAN, default_prune_at(self.model.geometry.depth))
        options = replace(self._options, precision=None, device=self._torch_device)
        return ModelSource(replace(loaded, preprocessing=manifest.preprocessing), pruning, options)


def baseline_of(artifact: Artifact) -> Artifact:
    """Opens the dense artifact of the same weights, which lies in the same folder.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    manifest = artifact.manifest
    place = None if manifest.baseline is None else Workspace(artifact.path.parent).find(manifest.baseline)
    if place is None:
        raise ArtifactError(
            f"the dense baseline {manifest.baseline} of {artifact.path.name} is not beside it", "export it with --dense"
        )
    return open_artifact(place)


def _fixed_count(point: OperatingPoint) -> int | None:
    """Returns the patch tokens that every image keeps at a point, or None where it depends on the image."""
    return point.max_keep if point.mass >= 1 or point.min_keep == point.max_keep else None
