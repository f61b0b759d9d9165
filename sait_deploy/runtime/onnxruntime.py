"""ONNX Runtime, on CPU or CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifact import Artifact
from sait_deploy.errors import MissingDependency, RuntimeUnavailable
from sait_deploy.runtime.base import Runner, RunOptions, RuntimeName, Selection

_PROVIDERS: Final = {
    RuntimeName.ONNXRUNTIME: "CPUExecutionProvider",
    RuntimeName.ONNXRUNTIME_CUDA: "CUDAExecutionProvider",
}


def processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    options.log_severity_level = 3
    options.intra_op_num_threads = processors() if threads is None else threads
    # Threads that spin after a run slow down whatever runs next on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        session = ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:
        first = str(error).splitlines()[0][:200]
        raise RuntimeUnavailable(f"onnxruntime cannot load the model: {first}", "see: sait-deploy doctor") from error
    if session.get_providers()[0] != provider:
        raise RuntimeUnavailable(
            f"{provider} was asked for and {session.get_providers()[0]} came", "see: sait-deploy doctor"
        )
    return session


def model_with_selection(artifact: Artifact) -> bytes:
    """Returns the artifact's ONNX file with importance and keep as further outputs."""
    pruning = artifact.manifest.pruning
    assert pruning is not None
    model = onnx.load(str(artifact.model_path), load_external_data=False)
    for name, element in ((pruning.importance, onnx.TensorProto.FLOAT), (pruning.keep, onnx.TensorProto.INT32)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, ["B", None]))
    serialised: bytes = model.SerializeToString()
    return serialised


class OnnxRuntimeRunner(Runner):
    """An artifact on ONNX Runtime."""

    def __init__(self, artifact: Artifact, runtime: RuntimeName, options: RunOptions) -> None:
        super().__init__(artifact, runtime)
        self._threads = options.threads
        self._session = open_session(str(artifact.model_path), runtime, options.threads, str(artifact.path))
        self._outputs = [output.name for output in artifact.manifest.outputs]

    @property
    def environment(self) -> dict[str, str]:
        """Versions and provider behind this runner."""
        return {
            "runtime": self.runtime.value,
            "onnxruntime": require_onnxruntime().__version__,
            "provider": self._session.get_providers()[0],
        }

    @cached_property
    def _selection_session(self) -> Any:
        path = str(self.artifact.path)
        return open_session(model_with_selection(self.artifact), self.runtime, self._threads, path)

    def _execute(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        results = self._session.run(self._outputs, {"images": images})
        return results[0], results[1] if len(results) > 1 else None

    def _execute_selection(self, images: NDArray[np.float32]) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        names = [self._outputs[0], pruning.importance, pruning.keep]
        return Selection(*self._selection_session.run(names, {"images": images}))

    def bind(self, images: NDArray[np.float32]) -> Callable[[], None]:
        """Returns a call that runs this batch with its input and outputs bound on the device."""
        images = self._checked(images)
        device = "cuda" if self.runtime is RuntimeName.ONNXRUNTIME_CUDA else "cpu"
        binding = self._session.io_binding()
        value = require_onnxruntime().OrtValue.ortvalue_from_numpy(images, device, 0)
        binding.bind_ortvalue_input("images", value)
        for name in self._outputs:
            binding.bind_output(name, device)

        def compute() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return compute
