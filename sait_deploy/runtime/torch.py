"""torch itself, eager, from the weights that the artifact was exported from: the reference to compare others with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, Manifest, ModelInfo, block_features
from sait_deploy.artifacts.points import DEFAULT_CHOICE, DEFAULT_POINT, BatchPoint
from sait_deploy.artifacts.tower_info import CU_SEQLENS, POSITIONS, TOKENS
from sait_deploy.errors import MissingDependency, RuntimeUnavailable
from sait_deploy.exporters.names import KEEP
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.runtime.answers import Output, RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import TORCH, find_runtime
from sait_deploy.system.processors import processors
from sait_deploy.tokens import OperatingPoint

try:
    import torch
except ImportError:
    raise MissingDependency("torch", "the torch runtime", find_runtime(TORCH).extra) from None

from sait_deploy.runtime.exact_float32 import EXACT_FLOAT32

if TYPE_CHECKING:
    from sait_deploy.engine.trust import Consent
    from sait_deploy.models.prunable_vit import PrunableViT
    from sait_deploy.models.pruning import Pruning
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.models.traced import Traced
    from sait_deploy.runtime.torch_shared import SharedBlocks


_threads_in: int | None = None
"""The process whose threads torch computes with; None until a runner is made."""


def trial() -> str:
    """Multiplies two matrices and names torch's version and GPU.

    Raises:
        RuntimeError: the product is wrong.
    """
    if not torch.equal(torch.ones(2, 2) @ torch.ones(2, 2), torch.full((2, 2), 2.0)):
        raise RuntimeError("a matrix product is wrong")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"torch {torch.__version__}, {device}"


@dataclass(frozen=True, slots=True)
class ModelInMemory:
    """A model to run in torch without exporting it.

    Attributes:
        loaded: the model.
        pruning: how it keeps tokens; None where it keeps all. An adaptive one keeps all where no point is asked for.
    """

    loaded: LoadedModel
    pruning: Pruning | None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.info.name

    @property
    def form(self) -> Form:
        """The form that an export of it would have."""
        if self.pruning is None:
            return Form.DENSE
        return Form.ADAPTIVE if self._kept is None else Form.DENSITY

    @property
    def model(self) -> ModelInfo:
        """Sizes and classes."""
        return self.loaded.info

    @property
    def preprocessing(self) -> Preprocessing:
        """How its images are made."""
        return self.loaded.preprocessing

    @property
    def prune_at(self) -> int | None:
        """Block pruned in; None where nothing is pruned."""
        return None if self.pruning is None else self.pruning.prune_at

    @property
    def operating_points(self) -> dict[str, OperatingPoint]:
        """The point that it runs at where none is asked for; none where nothing is pruned."""
        if self.pruning is None:
            return {}
        least, most = (1, self.model.geometry.patch_tokens) if self._kept is None else (self._kept, self._kept)
        return {DEFAULT_POINT: OperatingPoint(1.0, least, most)}

    @property
    def _kept(self) -> int | None:
        """Patch tokens that every image keeps; None where each keeps its own number."""
        from sait_deploy.models.pruning import FixedPruning

        return self.pruning.kept if isinstance(self.pruning, FixedPruning) else None


def rebuild(
    manifest: Manifest, weights: Path | None = None, folder: Path | None = None, consent: Consent | None = None
) -> PrunableViT:
    """Builds an artifact's model in torch, pruned and in the precision that it was exported in.

    Args:
        manifest: the artifact's.
        weights: as ``models.original.original_model`` takes it.
        folder: likewise.
        consent: likewise.

    Raises:
        ModelError: the weights cannot be had.
        ArtifactError: they are not those of the artifact.
    """
    from sait_deploy.models.original import original_model
    from sait_deploy.models.prunable_vit import PrunableViT

    vit = original_model(manifest, weights, folder, consent).vit
    asked = manifest.asked_outputs, manifest.model.task, manifest.feature_blocks, manifest.model.tower
    return PrunableViT(vit, pruning_of(manifest), manifest.dtype, *asked)


def pruning_of(manifest: Manifest) -> Pruning | None:
    """Returns how an artifact's model keeps tokens; None where it keeps all."""
    from sait_deploy.models.pruning import AdaptivePruning, FixedPruning

    info = manifest.pruning
    if info is None:
        return None
    if info.density is None:
        return AdaptivePruning(info.score, info.prune_at, info.threshold)
    return FixedPruning(info.score, info.prune_at, info.points[0].point.max_keep)


class TorchRunner(Runner):
    """A model in torch: an artifact's, from the weights that it was exported from, or one in memory.

    Args:
        source: the artifact, or the model.
        options: threads and device; where the weights of an artifact are.
        shared: blocks that it shares with other runners of the same model; None where it runs all of its own.

    Raises:
        ModelError: the model cannot be pruned, or the artifact's weights cannot be had.
        ArtifactError: these weights are not those of the artifact.
        InvalidArgument: the pruning does not fit the model.
        RuntimeUnavailable: torch cannot use the device, or the process was forked from one where torch computed.
    """

    runtime = TORCH

    def __init__(
        self, source: Artifact | ModelInMemory, options: RunOptions, shared: SharedBlocks | None = None
    ) -> None:
        from sait_deploy.models.devices import using_device

        super().__init__(source)
        self._shared = shared
        self._answered: tuple[NDArray[np.float32], torch.Tensor] | None = None
        torch.set_num_threads(processors() if options.threads is None else options.threads)
        _claim_threads()
        with using_device(options.device) as self._device:
            self._model = _model_of(source, options).to(self._device)

    @property
    def environment(self) -> dict[str, str]:
        """torch's version and device."""
        return {"runtime": self.runtime, "torch": torch.__version__, "device": str(self._device)}

    @property
    def spared_seconds(self) -> float:
        """Seconds that runners which share their first blocks with this one have saved so far, this one among them."""
        return 0.0 if self._shared is None else self._shared.spared_seconds

    def importance(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns how important the patch tokens of a preprocessed batch are, float32 [B, N].

        A batch is not run again where it is the very array that was run last.

        Raises:
            InvalidArgument: nothing is pruned, so no importance is computed.
        """
        if self._answered is None or self._answered[0] is not images:
            return self.select_at(images, DEFAULT_CHOICE).importance
        return _array(self._answered[1])

    @torch.inference_mode()
    def run_keeping(self, images: NDArray[np.float32], keep: NDArray[np.int32]) -> Output:
        """Runs a preprocessed batch with the kept tokens given, in place of those that selection would keep.

        Args:
            images: float32 [B, C, H, W].
            keep: int32 [B, P+N], 1 where a token is kept; a form of fixed density wants as many in each image as that.

        Raises:
            InvalidArgument: nothing is pruned, or another number of tokens is kept.
            NotFinite: an image's logits are not numbers.
        """
        images = self._checked(images)
        return self._output(self._traced(images, self._inputs(images, None), torch.from_numpy(keep).to(self._device)))

    @torch.inference_mode()
    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        return self._traced(images, self._inputs(images, point))

    @torch.inference_mode()
    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        traced = self._trace(images, self._inputs(images, point))
        assert traced.importance is not None and traced.keep is not None
        return Selection(_array(traced.logits), _array(traced.importance), _array(traced.keep))

    def _traced(
        self, images: NDArray[np.float32], inputs: tuple[torch.Tensor, ...], keep: torch.Tensor | None = None
    ) -> RawOutput:
        """Runs the model and remembers the importance that it computed."""
        traced = self._trace(images, inputs, keep)
        if traced.importance is not None:
            self._answered = images, traced.importance
        if traced.cu_seqlens is not None and traced.positions is not None:
            found = {TOKENS: traced.logits, CU_SEQLENS: traced.cu_seqlens, POSITIONS: traced.positions}
            return RawOutput.of({name: _array(tensor) for name, tensor in found.items()}, self.description)
        names = map(block_features, self._model.blocks)
        further = {name: _array(tensor) for name, tensor in zip(names, traced.blocks, strict=True)}
        if further and traced.keep is not None:
            further[KEEP] = _array(traced.keep)
        return RawOutput(_array(traced.logits), _optional(traced.counts), _optional(traced.features), further)

    def _trace(
        self, images: NDArray[np.float32], inputs: tuple[torch.Tensor, ...], keep: torch.Tensor | None = None
    ) -> Traced:
        with EXACT_FLOAT32:  # it is what others are compared with
            if self._shared is None:
                return self._model.trace(*inputs, keep=keep)
            return self._shared.trace(self._model, images, inputs, keep)

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        inputs = self._inputs(images, point)

        @torch.inference_mode()
        def compute() -> None:
            with EXACT_FLOAT32:
                self._model(*inputs)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

        return compute

    def _inputs(self, images: NDArray[np.float32], point: BatchPoint | None) -> tuple[torch.Tensor, ...]:
        _claim_threads()
        arrays: tuple[NDArray[Any], ...] = (images,) if point is None else (images, point.mass, point.keep_limits)
        return tuple(torch.from_numpy(array).to(self._device) for array in arrays)


def _claim_threads() -> None:
    """Refuses a process that was forked after torch computed: it would wait for threads that only its parent has."""
    global _threads_in  # noqa: PLW0603 - a process has one set of torch's threads
    if torch.get_num_threads() == 1:
        return
    if _threads_in not in (None, os.getpid()):
        raise RuntimeUnavailable(
            "torch computed before this process was forked, and its threads are not in it",
            "start processes by multiprocessing's spawn, or load with one thread: RunOptions(threads=1)",
        )
    _threads_in = os.getpid()


def _model_of(source: Artifact | ModelInMemory, options: RunOptions) -> PrunableViT:
    from sait_deploy.models.prunable_vit import PrunableViT

    if isinstance(source, Artifact):
        return rebuild(source.manifest, options.weights, source.path, options.consent)
    return PrunableViT(source.loaded.vit, source.pruning, task=source.model.task, tower=source.model.tower)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _optional(tensor: torch.Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else _array(tensor)
