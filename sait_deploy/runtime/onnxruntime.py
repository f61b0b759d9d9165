"""ONNX Runtime, on CPU or CUDA."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import COUNTS, FEATURES
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import MissingDependency, RuntimeUnavailable
from sait_deploy.exporters.lower_cuda import fused_attention, lower_attention
from sait_deploy.runtime.base import RawOutput, Runner, RunOptions, RuntimeName, Selection
from sait_deploy.system.processors import processors

_PROVIDERS: Final = {
    RuntimeName.ONNXRUNTIME: "CPUExecutionProvider",
    RuntimeName.ONNXRUNTIME_CUDA: "CUDAExecutionProvider",
}


def require_onnxruntime() -> Any:
    """Returns the onnxruntime package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency("onnxruntime", "running an artifact", extra="cpu") from None
    return onnxruntime


def open_session(model: str | bytes, runtime: RuntimeName, threads: int | None, folder: str) -> Any:
    """Opens an inference session that runs on the provider asked for or not at all.

    Args:
        model: path of an ONNX file, or its bytes.
        runtime: one of ONNX Runtime's.
        threads: threads within one operator; None for all processors.
        folder: where external data lies, should the bytes refer to any.

    Raises:
        RuntimeUnavailable: the provider is missing or fell back to another.
    """
    ort = require_onnxruntime()
    provider = _PROVIDERS[runtime]
    if provider not in ort.get_available_providers():
        raise RuntimeUnavailable(
            f"this onnxruntime has no {provider}", "uninstall onnxruntime, then: pip install 'sait-deploy[gpu]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = processors() if threads is None else threads
    # Threads that spin after a run slow down whatever runs next on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        session = ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:
        raise _cannot_load(error) from error
    if session.get_providers()[0] != provider:
        raise RuntimeUnavailable(
            f"{provider} was asked for and {session.get_providers()[0]} came", "see: sait-deploy doctor"
        )
    return session


def _cannot_load(error: Exception) -> RuntimeUnavailable:
    first = str(error).splitlines()[0][:200]
    return RuntimeUnavailable(f"onnxruntime cannot load the model: {first}", "see: sait-deploy doctor")


def optimised(artifact: Artifact) -> onnx.ModelProto:
    """Returns the graph that ONNX Runtime runs on CPU, without its weights' values.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RuntimeUnavailable: it cannot load the model.
    """
    ort = require_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        try:
            ort.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            first = str(error).splitlines()[0][:200]
            raise RuntimeUnavailable(
                f"onnxruntime cannot load the model: {first}", "see: sait-deploy doctor"
            ) from error
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def model_for(artifact: Artifact, runtime: RuntimeName) -> onnx.ModelProto:
    """Returns the artifact's model as a runtime is to run it, its external data left where it lies."""
    model = onnx.load(str(artifact.model_path), load_external_data=False)
    return lower_attention(model) if runtime is RuntimeName.ONNXRUNTIME_CUDA else model


def model_with_selection(artifact: Artifact, runtime: RuntimeName) -> bytes:
    """Returns the artifact's model with importance and keep as further outputs."""
    pruning = artifact.manifest.pruning
    assert pruning is not None
    model = model_for(artifact, runtime)
    for name, element in ((pruning.importance, onnx.TensorProto.FLOAT), (pruning.keep, onnx.TensorProto.INT32)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, ["B", None]))
    serialised: bytes = model.SerializeToString()
    return serialised


class OnnxRuntimeRunner(Runner):
    """An artifact on ONNX Runtime."""

    def __init__(self, artifact: Artifact, runtime: RuntimeName, options: RunOptions) -> None:
        super().__init__(artifact, runtime)
        self._threads = options.threads
        self._attention: dict[str, int] = {}
        model: str | bytes = str(artifact.model_path)
        if runtime is RuntimeName.ONNXRUNTIME_CUDA:
            lowered = model_for(artifact, runtime)
            self._attention, model = fused_attention(lowered), lowered.SerializeToString()
        self._session = open_session(model, runtime, options.threads, str(artifact.path))
        self._outputs = list(artifact.manifest.output_names)

    @property
    def environment(self) -> dict[str, str]:
        """Versions and provider behind this runner."""
        found = {
            "runtime": self.runtime.value,
            "onnxruntime": require_onnxruntime().__version__,
            "provider": self._session.get_providers()[0],
        }
        if self.runtime is RuntimeName.ONNXRUNTIME_CUDA:
            fused = ", ".join(f"{count} {name}" for name, count in self._attention.items())
            found["fused attention"] = fused or "none"
        return found

    @cached_property
    def _selection_session(self) -> Any:
        path = str(self.artifact.path)
        return open_session(model_with_selection(self.artifact, self.runtime), self.runtime, self._threads, path)

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        found = dict(zip(self._outputs, _run(self._session, self._outputs, _feeds(images, point)), strict=True))
        return RawOutput(found[self._outputs[0]], found.get(COUNTS), found.get(FEATURES))

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        names = [self._outputs[0], pruning.importance, pruning.keep]
        return Selection(*_run(self._selection_session, names, _feeds(images, point)))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        device = "cuda" if self.runtime is RuntimeName.ONNXRUNTIME_CUDA else "cpu"
        binding = self._session.io_binding()
        for name, array in _feeds(images, point).items():
            binding.bind_ortvalue_input(name, require_onnxruntime().OrtValue.ortvalue_from_numpy(array, device, 0))
        for name in self._outputs:
            binding.bind_output(name, device)

        def compute() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return compute


def _run(session: Any, outputs: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        found: list[NDArray[Any]] = session.run(outputs, feeds)
    except Exception as error:
        first = str(error).splitlines()[0][:200]
        raise RuntimeUnavailable(
            f"onnxruntime could not run a batch of {len(feeds['images'])}: {first}",
            "try a smaller batch, or see: sait-deploy inspect --check",
        ) from error
    return found


def _feeds(images: NDArray[np.float32], point: BatchPoint | None) -> dict[str, NDArray[Any]]:
    return (
        {"images": images}
        if point is None
        else {"images": images, "mass": point.mass, "keep_limits": point.keep_limits}
    )
