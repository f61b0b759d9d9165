"""torch on an NVIDIA GPU: compiled, packed, replayed from CUDA graphs; what other runtimes' speed is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.errors import InvalidArgument, MissingDependency, RuntimeUnavailable
from sait_deploy.runtime.answers import RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import TORCH_CUDA, find_runtime

try:
    import torch
except ImportError:
    raise MissingDependency("torch", "the torch-cuda runtime", find_runtime(TORCH_CUDA).extra) from None

if TYPE_CHECKING:
    from sait_deploy.models.flash_vit import FlashViT
    from sait_deploy.models.traced import Traced
    from sait_deploy.runtime.cuda_graphs import Execution
    from sait_deploy.runtime.torch_cuda_batch import BatchWork

_DTYPES: Final = {RunPrecision.BF16: torch.bfloat16, RunPrecision.FP16: torch.float16}
_OLDEST: Final = (8, 0)


def gpu() -> torch.device:
    """Returns the current CUDA device.

    Raises:
        RuntimeUnavailable: torch has none, or one that FLASH attention does not run on.
    """
    hint = "on other machines use --runtime torch; sait-deploy doctor says what is there"
    if not torch.cuda.is_available():
        raise RuntimeUnavailable(f"{TORCH_CUDA} needs an NVIDIA GPU, and torch {torch.__version__} finds none", hint)
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) < _OLDEST:
        name = torch.cuda.get_device_name()
        raise RuntimeUnavailable(f"{TORCH_CUDA} needs compute capability 8.0, and {name} has {major}.{minor}", hint)
    return torch.device("cuda", torch.cuda.current_device())


def trial() -> str:
    """Scores and attends on the GPU as the definitions do, and names it.

    Raises:
        RuntimeUnavailable: there is no GPU that it runs on.
        RuntimeError: an answer is wrong.
    """
    from sait_deploy.runtime.torch_cuda_trial import compare_with_definitions

    device = gpu()
    compare_with_definitions(device)
    return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"


def on_gpu() -> Execution:
    """Returns how work runs on this machine's GPU.

    Raises:
        RuntimeUnavailable: see :func:`gpu`.
    """
    from sait_deploy.runtime.cuda_graphs import OnGpu

    return OnGpu(gpu())


class TorchCudaRunner(Runner):
    """An artifact on an NVIDIA GPU, from the weights that it was exported from.

    A batch size has memory and recorded work of its own, which stay until the runner is dropped.

    Args:
        artifact: dense, of fixed density or adaptive.
        options: precision; where the weights are.
        execution: gives where and how the work runs.

    Raises:
        RuntimeUnavailable: there is no GPU that it runs on.
        ModelError: the artifact's weights cannot be had.
        ArtifactError: these weights are not those of the artifact.
        InvalidArgument: the artifact returns features, or its heads are of a size that cannot run so.
    """

    runtime = TORCH_CUDA

    def __init__(self, artifact: Artifact, options: RunOptions, execution: Callable[[], Execution] = on_gpu) -> None:
        super().__init__(artifact)
        from sait_deploy.runtime.torch_cuda_batch import CompiledParts

        self._execution = execution()
        refuse_tower(artifact.manifest, TORCH_CUDA)
        if artifact.manifest.returns_tokens:
            raise InvalidArgument(f"{TORCH_CUDA} returns no features, and {artifact.path.name} does", "use torch")
        self._runs_in = options.precision or find_runtime(TORCH_CUDA).precisions[artifact.manifest.dtype][0]
        vit = _model_of(artifact, options, _DTYPES[self._runs_in], self._execution.device)
        image = self.description.preprocessing.channels, *self.description.model.image_size
        self._parts = CompiledParts(vit, self._execution, image)
        self._work: dict[int, BatchWork] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Versions and device behind this runner, and how it attends."""
        device = self._execution.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        forms = {f"dense, batch {size}": str(work.dense) for size, work in self._work.items() if work.dense}
        known = {"runtime": self.runtime, "torch": torch.__version__, "device": name, "attention": self._attention}
        return known | forms

    @property
    def _attention(self) -> str:
        if self._execution.device.type != "cuda":
            return "its definition"
        return "FLASH" if self._parts.vit.pruned else "FLASH in the flat forms, torch's choice in timm's"

    @property
    def precision(self) -> str:
        """Element type of weights and activations."""
        return self._runs_in.value

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        traced = self._run(images, point)
        return RawOutput(_array(traced.logits), None if traced.counts is None else _array(traced.counts), None)

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        traced = self._run(images, point)
        assert traced.importance is not None and traced.keep is not None
        return Selection(_array(traced.logits), _array(traced.importance), _array(traced.keep))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], float | None]:
        work = self._work_of(images)
        there = [tensor.to(self._execution.device) for tensor in _tensors(images, point)]

        def compute() -> float | None:
            work.load(*there)  # other batches of the size share the memory that the work reads
            return self._execution.timed(work.run)

        return compute

    def _run(self, images: NDArray[np.float32], point: BatchPoint | None) -> Traced:
        work = self._work_of(images)
        work.load(*_tensors(images, point))
        return work.run()

    def _work_of(self, images: NDArray[np.float32]) -> BatchWork:
        from sait_deploy.runtime.torch_cuda_batch import BatchWork

        if len(images) not in self._work:
            self._work[len(images)] = BatchWork(self._parts, self._execution, images.shape)
        return self._work[len(images)]


def _model_of(artifact: Artifact, options: RunOptions, dtype: torch.dtype, device: torch.device) -> FlashViT:
    from sait_deploy.models.flash_vit import FlashViT
    from sait_deploy.models.original import original_model
    from sait_deploy.runtime.torch import pruning_of

    manifest = artifact.manifest
    vit = original_model(manifest, options.weights, artifact.path, options.consent).vit.to(device)
    return FlashViT(vit, pruning_of(manifest), dtype, manifest.model.task)


def _tensors(images: NDArray[np.float32], point: BatchPoint | None) -> list[torch.Tensor]:
    arrays: tuple[NDArray[Any], ...] = (images,) if point is None else (images, point.mass, point.keep_limits)
    return [torch.from_numpy(array) for array in arrays]


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy().copy()
    return array
