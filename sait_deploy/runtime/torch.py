"""torch itself, eager, from the weights that the artifact was exported from: the reference to compare others with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import FEATURES, Manifest, Outputs, WeightsSource
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import ArtifactError, MissingDependency, ModelError, RuntimeUnavailable
from sait_deploy.runtime.base import RawOutput, Runner, RunOptions, Selection
from sait_deploy.runtime.registry import TORCH, find_runtime
from sait_deploy.system.processors import processors

try:
    import torch
except ImportError:
    raise MissingDependency("torch", "the torch runtime", find_runtime(TORCH).extra) from None

if TYPE_CHECKING:
    from sait_deploy.models.prunable_vit import PrunableViT, Pruning


def trial() -> str:
    """Multiplies two matrices and names torch's version and GPU.

    Raises:
        RuntimeError: the product is wrong.
    """
    if not torch.equal(torch.ones(2, 2) @ torch.ones(2, 2), torch.full((2, 2), 2.0)):
        raise RuntimeError("a matrix product is wrong")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"torch {torch.__version__}, {device}"


def rebuild(manifest: Manifest, weights: Path | None = None) -> PrunableViT:
    """Builds the model that an artifact was exported from, and proves that its weights are the same.

    Args:
        manifest: the artifact's.
        weights: a weights file, where the one the manifest names is not there any more.

    Raises:
        ModelError: the weights cannot be had.
        ArtifactError: they are not those of the artifact.
    """
    from sait_deploy.models.prunable_vit import PrunableViT
    from sait_deploy.models.registry import WeightsRequest, load_model

    info = manifest.weights
    if weights is not None:
        request = WeightsRequest(WeightsSource.FILE, weights)
    elif info.source is WeightsSource.MEMORY:
        raise ModelError(f"{manifest.name} was exported from a model in memory", "save its weights and name the file")
    else:
        origin = Path(info.origin) if info.source is WeightsSource.FILE and info.origin else None
        request = WeightsRequest(info.source, origin)
    default = load_model(manifest.model.name, request, _named_size(manifest))
    if default.weights.sha256 != info.sha256:
        raise ArtifactError(
            f"weights {default.weights.sha256[:12]}… (SHA-256) are not those of {manifest.name}, {info.sha256[:12]}…",
            "name the weights file that it was exported from",
        )
    outputs = Outputs.LOGITS_AND_FEATURES if FEATURES in manifest.output_names else Outputs.LOGITS
    return PrunableViT(default.vit, _pruning(manifest), manifest.dtype, outputs)


def _pruning(manifest: Manifest) -> Pruning | None:
    from sait_deploy.models.prunable_vit import AdaptivePruning, FixedPruning

    info = manifest.pruning
    if info is None:
        return None
    if info.density is None:
        return AdaptivePruning(info.score, info.prune_at)
    return FixedPruning(info.score, info.prune_at, info.points[0].point.max_keep)


def _named_size(manifest: Manifest) -> int | None:
    from sait_deploy import demo

    return None if manifest.model.name == demo.NAME else manifest.model.image_size[0]


class TorchRunner(Runner):
    """An artifact's model in torch."""

    runtime = TORCH

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact)
        torch.set_num_threads(processors() if options.threads is None else options.threads)
        try:
            self._device = torch.device(options.device)
            self._model = rebuild(artifact.manifest, options.weights).to(self._device)
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0]
            raise RuntimeUnavailable(
                f"torch cannot use device {options.device!r}: {first}", "see: sait-deploy doctor"
            ) from None

    @property
    def environment(self) -> dict[str, str]:
        """torch's version and device."""
        return {"runtime": self.runtime, "torch": torch.__version__, "device": str(self._device)}

    @torch.inference_mode()
    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        traced = self._model.trace(*self._inputs(images, point))
        return RawOutput(_array(traced.logits), _optional(traced.counts), _optional(traced.features))

    @torch.inference_mode()
    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        traced = self._model.trace(*self._inputs(images, point))
        assert traced.importance is not None and traced.keep is not None
        return Selection(_array(traced.logits), _array(traced.importance), _array(traced.keep))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        inputs = self._inputs(images, point)

        @torch.inference_mode()
        def compute() -> None:
            self._model(*inputs)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

        return compute

    def _inputs(self, images: NDArray[np.float32], point: BatchPoint | None) -> tuple[torch.Tensor, ...]:
        arrays: tuple[NDArray[Any], ...] = (images,) if point is None else (images, point.mass, point.keep_limits)
        return tuple(torch.from_numpy(array).to(self._device) for array in arrays)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _optional(tensor: torch.Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else _array(tensor)
