"""OpenVINO: an artifact's graph on a device, checked to run in the precision asked for."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.inliner import inline_local_functions

from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.graph import graph_of, lowering_errors, weights_folder
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import MissingDependency, RuntimeUnavailable
from sait_deploy.exporters.lower_openvino import LOWERING, lower_openvino, rounded_extents
from sait_deploy.runtime.answers import RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER, digest
from sait_deploy.runtime.graph_io import batch_of, feeds, with_selection
from sait_deploy.runtime.openvino_compiled import (
    Compiled,
    Target,
    compile_graph,
    matrix_products,
    open_compiled,
    reason,
)
from sait_deploy.runtime.openvino_sums import SATURATING, int8_sums
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import OPENVINO, find_runtime
from sait_deploy.system.processors import processors
from sait_deploy.system.telemetry import import_runtime

_HINTS: Final = {
    RunPrecision.FP32: "f32",
    RunPrecision.BF16: "bf16",
    RunPrecision.FP16: "f16",
    RunPrecision.INT8: "f32",
    RunPrecision.INT8_BF16: "bf16",
}
"""What OpenVINO is asked to compute in what is not quantised."""

_CAPABILITIES: Final = {
    RunPrecision.FP32: {"FP32"},
    RunPrecision.BF16: {"BF16"},
    RunPrecision.FP16: {"FP16"},
    RunPrecision.INT8: {"FP32", "INT8"},
    RunPrecision.INT8_BF16: {"BF16", "INT8"},
}
"""What a device says that it can compute in natively: a processor without bf16 would emulate it slowly."""

_INTEGERS: Final = frozenset({"i8", "u8"})


def require_openvino() -> Any:
    """Returns the openvino package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_runtime("openvino")
    except ImportError:
        raise MissingDependency("openvino", "running an artifact on OpenVINO", find_runtime(OPENVINO).extra) from None


@functools.cache
def shared_core() -> Any:
    """Returns the process's only OpenVINO core, which lives as long as the process.

    A core gives its thread another stack for signals, and its end gives back the stack from before, which may be that
    of a core that ended earlier: the next signal with a handler, such as an interrupt, would end the process.

    Raises:
        MissingDependency: OpenVINO is not installed.
    """
    return require_openvino().Core()


def trial() -> str:
    """Selects tokens on the processor as the reference does, and returns what it can compute in."""
    from sait_deploy.runtime.trials import try_selection

    openvino = require_openvino()
    core = shared_core()

    def run(model: bytes, given: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        graph = core.read_model(inline_local_functions(onnx.load_from_string(model)).SerializeToString())
        return list(core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(dict(given)).values())

    try_selection(run)
    able = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    precisions = ", ".join(precision for precision, needed in _CAPABILITIES.items() if needed <= able)
    version = openvino.__version__.partition("-")[0]  # behind it stand a build and its branch
    return f"openvino {version}, selection as the reference, {precisions}, int8 sums {int8_sums(core, 'CPU')}"


class OpenVinoRunner(Runner):
    """An artifact on a device of OpenVINO's, the processor unless another is asked for.

    Each thread that runs it has buffers of its own, so threads may share a runner.
    """

    runtime = OPENVINO

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact)
        self._openvino = require_openvino()
        self._core = shared_core()
        self._device = options.device.upper()
        self._check_device()
        self._precision = options.precision or RunPrecision(artifact.manifest.dtype)
        self._check_able()
        self._threads = processors() if options.threads is None else options.threads
        opened = self._open()
        self._compiled, self._origin = opened.model, opened.origin
        self._check_ran()
        self._outputs = list(artifact.manifest.output_names)
        self._own = threading.local()

    @property
    def environment(self) -> dict[str, str]:
        """Versions and device behind this runner, what its products ran in, and where the compiled model is from."""
        products = ", ".join(f"{count} {element}" for element, count in sorted(self._products.items()))
        sums = {} if self._int8_sums is None else {"int8 sums": self._int8_sums}
        return {
            "runtime": self.runtime,
            "openvino": self._openvino.__version__,
            "device": f"{self._device}, {self._core.get_property(self._device, 'FULL_DEVICE_NAME').strip()}",
            "precision": self.precision,
            "matrix products": products or "not said by the device",
            **sums,
            "compiled model": self._origin,
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """That int8 sums saturate, where they do."""
        return (f"OpenVINO adds int8 {SATURATING}",) if self._int8_sums == SATURATING else ()

    @property
    def _int8_sums(self) -> str | None:
        """How products are added that run in int8; None where none do."""
        return int8_sums(self._core, self._device) if _INTEGERS & set(self._products) else None

    @property
    def kind(self) -> str:
        """What two runners must have in common for their times to be compared, in words."""
        return f"{self.runtime} on {self._device} in {self.precision}"

    @property
    def precision(self) -> str:
        """Precision that the runner was checked to run in."""
        return self._precision.value

    def _check_device(self) -> None:
        available = list(self._core.available_devices)
        if not {self._device, f"{self._device}.0"} & set(available):
            raise RuntimeUnavailable(
                f"OpenVINO has no device {self._device} here", f"it has {', '.join(available)}; a GPU needs its driver"
            )

    def _check_able(self) -> None:
        able = set(self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES"))
        if not _CAPABILITIES[self._precision] <= able:
            raise self._unable(able)

    def _unable(self, able: set[str]) -> RuntimeUnavailable:
        held = find_runtime(OPENVINO).precisions[self.artifact.manifest.dtype]
        others = [p for p in held if _CAPABILITIES[p] <= able and p is not self._precision]
        return RuntimeUnavailable(
            f"{self._device} computes nothing in {self._precision} itself, and OpenVINO would use another precision",
            f"ask for the precision {' or '.join(others)}" if others else "use another --runtime",
        )

    def _check_ran(self) -> None:
        """Refuses a compiled model that computes in another precision than asked for, which OpenVINO does not say."""
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        floats = set(self._products) - _INTEGERS
        quantised = self._precision in (RunPrecision.INT8, RunPrecision.INT8_BF16)
        wanted = _HINTS[self._precision]
        if hint.get_type_name() != wanted or floats - {wanted} or quantised == (floats == set(self._products)):
            found = ", ".join(sorted(self._products)) or hint.get_type_name()
            raise RuntimeUnavailable(
                f"{self._precision} was asked for, and OpenVINO computes in {found} on {self._device}",
                "ask for another precision, or use another --runtime",
            )

    @functools.cached_property
    def _products(self) -> dict[str, int]:
        return matrix_products(self._compiled)

    @property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[self._precision], "PERFORMANCE_HINT": "LATENCY"}
        if self._device.startswith("CPU"):
            settings |= {"INFERENCE_NUM_THREADS": self._threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        return settings

    def _open(self) -> Compiled:
        """Returns the compiled model: the one kept beside the artifact, or a new one, which is kept."""
        target = Target(self._core, self._device, self._settings)

        def make() -> Any:
            return compile_graph(target, self._graph(), weights_folder(self.artifact))

        return open_compiled(target, self.artifact.path / COMPILED_FOLDER, self._key(), make)

    def _key(self) -> str:
        """Returns what a compiled model depends on, as the beginning of a file's name."""
        files = {name: value for name, value in self.artifact.manifest.files.items() if name.startswith(MODEL_FILE)}
        device = self._core.get_property(self._device, "FULL_DEVICE_NAME")
        what = [files, LOWERING, self._openvino.__version__, self._device, device, self._settings]
        return f"openvino-{self._precision}-{digest(json.dumps(what, sort_keys=True).encode())}"

    def _graph(self) -> onnx.ModelProto:
        """Returns the graph to compile, its weights beside it left where they lie."""
        graph = self._lowered(graph_of(self.artifact))
        pruning = self.artifact.manifest.pruning
        return graph if pruning is None else with_selection(graph, pruning)

    def _lowered(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        manifest, width = self.artifact.manifest, self.description.model.geometry.attention_width
        score = None if manifest.pruning is None else manifest.pruning.score
        with lowering_errors(self.artifact):
            return lower_openvino(graph, width, manifest.returns_tokens, score)

    def _run(self, given: Mapping[str, NDArray[Any]]) -> Callable[[str], NDArray[Any]]:
        """Runs on this thread's own buffers and returns what copies an output by its name."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request = self._own.request
        try:
            request.infer(given, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise RuntimeUnavailable(
                f"openvino could not run a batch of {batch_of(given)}: {reason(error)}",
                "try a smaller batch, or see: sait-deploy inspect --check",
            ) from error
        return lambda name: np.array(request.get_tensor(name).data)

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        output = self._run(feeds(images, point))
        return RawOutput.of({name: output(name) for name in self._outputs}, self.description)

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        output = self._run(feeds(images, point))
        selection = Selection(*map(output, (self._outputs[0], pruning.importance, pruning.keep)))
        if self.description.model.tower is None:
            return selection
        # Packed rows are rounded up: those behind the last image's are no tokens.
        whole = RawOutput.of({name: output(name) for name in self._outputs}, self.description)
        return dataclasses.replace(selection, logits=whole.logits)

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        request, given = self._compiled.create_infer_request(), feeds(images, point)

        def compute() -> None:
            request.infer(given, share_inputs=True, share_outputs=True)

        return compute


class OpenVinoPart(OpenVinoRunner):
    """One graph of an artifact cut at its seam, compiled and checked as the whole is (``runtime.parts.Part``)."""

    def __init__(self, artifact: Artifact, options: RunOptions, graph: onnx.ModelProto, name: str) -> None:
        self._part, self._name = graph, name
        self._names = [output.name for output in graph.graph.output]
        super().__init__(artifact, options)

    def _key(self) -> str:
        return f"{super()._key()}-{self._name}"

    def _graph(self) -> onnx.ModelProto:
        return self._lowered(self._part)

    def run_part(self, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on its inputs by name, and returns its outputs by name."""
        output = self._run(given)
        return {name: output(name) for name in self._names}

    def extents(self, images: int, rows: int, longest: int) -> tuple[int, int]:
        """Returns the numbers of packed rows and lanes to run a batch with: few different ones, as in the whole."""
        if self.artifact.manifest.returns_tokens:
            return rows, longest
        return rounded_extents(images, rows, longest)
