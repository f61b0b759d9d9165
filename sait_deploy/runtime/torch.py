"""torch itself, eager, from the weights that the artifact was exported from: the reference to compare others with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifact import Artifact
from sait_deploy.errors import ArtifactError, MissingDependency, ModelError, RuntimeUnavailable
from sait_deploy.manifest import Manifest, WeightsSource
from sait_deploy.runtime.base import Runner, RunOptions, RuntimeName, Selection
from sait_deploy.runtime.onnxruntime import processors

try:
    import torch
except ImportError:
    raise MissingDependency("torch", "the torch runtime", extra="export") from None

if TYPE_CHECKING:
    from sait_deploy.models import PrunableViT


def rebuild(manifest: Manifest, weights: Path | None = None) -> PrunableViT:
    """Builds the model that an artifact was exported from, and proves that its weights are the same.

    Args:
        manifest: the artifact's.
        weights: a weights file, where the one the manifest names is not there any more.

    Raises:
        ModelError: the weights cannot be had.
        ArtifactError: they are not those of the artifact.
    """
    from sait_deploy.models import FixedPruning, PrunableViT
    from sait_deploy.zoo import WeightsRequest, load_model

    info, pruning = manifest.weights, manifest.pruning
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
    fixed = None if pruning is None else FixedPruning(pruning.score, pruning.prune_at, pruning.kept)
    return PrunableViT(default.vit, fixed, manifest.dtype)


def _named_size(manifest: Manifest) -> int | None:
    from sait_deploy import demo

    return None if manifest.model.name == demo.NAME else manifest.model.image_size[0]


class TorchRunner(Runner):
    """An artifact's model in torch."""

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact, RuntimeName.TORCH)
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
        return {"runtime": self.runtime.value, "torch": torch.__version__, "device": str(self._device)}

    @torch.inference_mode()
    def _execute(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        results = self._model(torch.from_numpy(images).to(self._device))
        return results[0].cpu().numpy(), results[1].cpu().numpy() if len(results) > 1 else None

    @torch.inference_mode()
    def _execute_selection(self, images: NDArray[np.float32]) -> Selection:
        traced = self._model.trace(torch.from_numpy(images).to(self._device))
        assert traced.importance is not None and traced.keep is not None
        return Selection(traced.logits.cpu().numpy(), traced.importance.cpu().numpy(), traced.keep.cpu().numpy())

    def bind(self, images: NDArray[np.float32]) -> Callable[[], None]:
        """Returns a call that runs this batch with its input already on the device."""
        batch = torch.from_numpy(self._checked(images)).to(self._device)

        @torch.inference_mode()
        def compute() -> None:
            self._model(batch)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

        return compute
