"""ONNX Runtime on the CPU, and what its runs on other devices have in common with it."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of, graph_source, weights_folder
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import MissingDependency, RuntimeUnavailable, first_line
from sait_deploy.runtime.answers import RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.graph_io import batch_of, feeds, with_selection
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime
from sait_deploy.system.memory import trim
from sait_deploy.system.processors import processors
from sait_deploy.system.scratch import scratch_folder
from sait_deploy.system.telemetry import import_runtime

_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name of the setting that says where weights lie of a graph given as bytes."""

_TOO_OLD: Final = {
    "opsets": re.compile(r"Opset (?P<has>\d+) is under development.*is till opset (?P<most>\d+)", re.DOTALL),
    "ONNX's IR": re.compile(r"Unsupported model IR version: (?P<has>\d+), max supported IR version: (?P<most>\d+)"),
}
"""What ONNX Runtime says of a model that is newer than itself, by what it is that is newer."""

CPU: Final = "CPUExecutionProvider"
"""What ONNX Runtime calls itself on the processor."""

CUDA: Final = "CUDAExecutionProvider"
"""What ONNX Runtime calls an NVIDIA GPU."""

_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    # 19 is FLASH (1), memory-efficient (2) and unfused attention (16): without it dense takes cuDNN's, which packed
    # attention has not, and fp32 takes none below 256 tokens. TF32 would round fp32 products to 10 bits.
    CUDA: {"sdpa_kernel": "19", "use_tf32": "0"},
}
"""Settings of providers."""


class AnotherVersionMay(RuntimeUnavailable):
    """This onnxruntime lacks what the model asks for, and another version may have it."""


def require_onnxruntime(runtime: str = ONNXRUNTIME) -> Any:
    """Returns the onnxruntime package.

    Raises:
        MissingDependency: it is not installed; the hint names the extra of the runtime.
    """
    try:
        return import_runtime("onnxruntime")
    except ImportError:
        raise MissingDependency("onnxruntime", "running an artifact", find_runtime(runtime).extra) from None


def open_session(model: str | bytes, provider: str, threads: int | None, folder: str) -> Any:
    """Opens an inference session that runs on the provider asked for or not at all.

    Args:
        model: path of an ONNX file, or its bytes.
        provider: ONNX Runtime's name of the device.
        threads: threads within one operator; None for all processors.
        folder: where external data lies, should the bytes refer to any.

    Raises:
        RuntimeUnavailable: the provider is missing or fell back to another.
    """
    ort = require_onnxruntime()
    if provider not in ort.get_available_providers():
        raise RuntimeUnavailable(
            f"this onnxruntime has no {provider}", "uninstall onnxruntime, then: pip install 'sait-deploy[gpu]'"
        )
    missing = _preloaded(ort) if provider == CUDA else ""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = processors() if threads is None else threads
    # Threads that spin after a run slow down whatever runs next on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern takes one block for all intermediate tensors, beside those of the run in which it was learnt.
    options.enable_mem_pattern = provider != CPU
    if isinstance(model, bytes):
        options.add_session_config_entry(_WEIGHTS_FOLDER, folder)
    try:
        session = ort.InferenceSession(model, options, providers=[(provider, dict(_OPTIONS.get(provider, {})))])
    except Exception as error:
        raise _cannot_load(error) from error
    if session.get_providers()[0] != provider:
        raise RuntimeUnavailable(
            f"{provider} was asked for and {session.get_providers()[0]} came", missing or "see: sait-deploy doctor"
        )
    trim()  # up to the weights' size was freed in packing them, and stays in the process otherwise
    return session


def _preloaded(ort: Any) -> str:
    """Loads CUDA's libraries from NVIDIA's packages, where pip puts them and no loader looks.

    Returns:
        What could not be loaded, in ONNX Runtime's words; empty where everything was.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    return next((line.strip() for line in said.getvalue().splitlines() if "ailed" in line), "")


def _cannot_load(error: Exception) -> RuntimeUnavailable:
    text = str(error)
    for what, pattern in _TOO_OLD.items():
        if found := pattern.search(text):
            version = require_onnxruntime().__version__
            return AnotherVersionMay(
                f"onnxruntime {version} is too old for the model: it knows {what} up to {found['most']}, "
                f"the model has {found['has']}",
                "install a newer onnxruntime, or export with a smaller --opset",
            )
    kind = AnotherVersionMay if type(error).__name__ == "NotImplemented" else RuntimeUnavailable
    return kind(f"onnxruntime cannot load the model: {first_line(error)[:200]}", "see: sait-deploy doctor")


def optimised(artifact: Artifact) -> onnx.ModelProto:
    """Returns the graph that ONNX Runtime runs on CPU, without its weights' values.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RuntimeUnavailable: it cannot load the model; AnotherVersionMay where another version may.
    """
    ort = require_onnxruntime()
    with scratch_folder() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(folder / "model.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        source = graph_source(artifact)
        if isinstance(source, bytes):
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights_folder(artifact)))
        try:
            ort.InferenceSession(source, options, providers=[CPU])
        except Exception as error:
            raise _cannot_load(error) from error
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def trial() -> str:
    """Selects tokens on the processor as the reference does."""
    return selection_trial(CPU)


def selection_trial(provider: str) -> str:
    """Selects tokens on a device, and returns a line on what ran.

    Raises:
        ModuleNotFoundError: this onnxruntime does not know the device.
        RuntimeError: another device ran it, or the selection differs from the reference.
    """
    from sait_deploy.runtime.trials import try_selection

    onnxruntime = import_runtime("onnxruntime")
    if provider not in onnxruntime.get_available_providers():
        raise ModuleNotFoundError(f"onnxruntime {onnxruntime.__version__} has no {provider}")

    def run(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = open_session(model, provider, None, "").run(None, dict(feeds))
        return found

    try_selection(run)
    return f"onnxruntime {onnxruntime.__version__}, selection as the reference"


class OnnxRuntimeRunner(Runner):
    """An artifact on ONNX Runtime's CPU provider; a runner on another device is a subclass.

    Attributes:
        provider: ONNX Runtime's name of the device.
        device: where inputs and outputs lie that are bound beforehand.
    """

    runtime = ONNXRUNTIME
    provider: ClassVar[str] = CPU
    device: ClassVar[str] = "cpu"

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact)
        require_onnxruntime(self.runtime)
        self._threads = options.threads
        self._session = self._open(self._model())
        self._outputs = list(artifact.manifest.output_names)

    @property
    def environment(self) -> dict[str, str]:
        """Versions and provider behind this runner."""
        return {
            "runtime": self.runtime,
            "onnxruntime": require_onnxruntime().__version__,
            "provider": self._session.get_providers()[0],
        }

    def _open(self, model: str | bytes) -> Any:
        return open_session(model, self.provider, self._threads, str(weights_folder(self.artifact)))

    def _model(self) -> str | bytes:
        """Returns what to run: the artifact's own file, or a graph's bytes."""
        return graph_source(self.artifact)

    def _graph(self) -> onnx.ModelProto:
        """Returns the artifact's graph as it runs on this device."""
        return graph_of(self.artifact)

    @cached_property
    def _selection_session(self) -> Any:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        return self._open(with_selection(self._graph(), pruning).SerializeToString())

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        found = _run(self._session, self._outputs, feeds(images, point))
        return RawOutput.of(dict(zip(self._outputs, found, strict=True)), self.description)

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        names = [self._outputs[0], pruning.importance, pruning.keep]
        return Selection(*_run(self._selection_session, names, feeds(images, point)))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        binding = self._session.io_binding()
        for name, array in feeds(images, point).items():
            value = require_onnxruntime().OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device)

        def compute() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return compute


class OnnxRuntimePart:
    """One graph of an artifact cut at its seam, on the processor (``runtime.parts.Part``)."""

    def __init__(self, artifact: Artifact, options: RunOptions, graph: onnx.ModelProto, name: str) -> None:
        folder = str(weights_folder(artifact))
        self._session = open_session(graph.SerializeToString(), CPU, options.threads, folder)
        self._outputs = [output.name for output in graph.graph.output]

    def run_part(self, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on its inputs by name, and returns its outputs by name."""
        return dict(zip(self._outputs, _run(self._session, self._outputs, given), strict=True))

    def extents(self, images: int, rows: int, longest: int) -> tuple[int, int]:
        """Returns the numbers of packed rows and lanes to run a batch with: those that it has."""
        return rows, longest


def _run(session: Any, outputs: list[str], given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        found: list[NDArray[Any]] = session.run(outputs, given)
    except Exception as error:
        raise RuntimeUnavailable(
            f"onnxruntime could not run a batch of {batch_of(given)}: {first_line(error)[:200]}",
            "try a smaller batch, or see: sait-deploy inspect --check",
        ) from error
    return found
