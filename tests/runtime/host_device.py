"""A stand-in for a GPU: its memory is the host's, its streams do everything at once, its engines are ONNX Runtime.

What runs on it is the runner's own code: buffers, shapes, addresses, the seam, recordings. Addresses are checked
against what was allocated, so a copy or a tensor that leaves its buffer is an error and not a crash.
"""

from __future__ import annotations

import ctypes
import hashlib
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tests.runtime.host_refitter import HostRefitter, HostWeights

TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(float16)": np.float16}


class Status(IntEnum):
    """What every call returns first."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


OK = Status.cudaSuccess


class HostMemory:
    """Memory by address; everything read or written lies in one allocation."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        block = (ctypes.c_byte * size)()
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def array(self, address: int, shape: tuple[int, ...], dtype: type[Any]) -> NDArray[Any]:
        """Returns a view of what lies at an address."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = self.blocks[address]
        assert size <= len(block), f"{shape} of {dtype.__name__} does not fit into {len(block)} bytes"
        return np.frombuffer(block, dtype=dtype, count=int(np.prod(shape))).reshape(shape)


class HostCuda:
    """The calls of ``cuda.bindings.runtime`` that are used.

    Attributes:
        recording: what is being recorded; None where work is done at once.
        refused: of a recording's begin and end, the status that they return instead of their work.
        captures: recordings that were begun.
        launches: recordings that were replayed.
        destroyed: recordings that were let go.
    """

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self.memory, self.pinned = HostMemory(), HostMemory()
        self.recording: list[Any] | None = None
        self.refused: dict[str, Status] = {}
        self.destroyed: list[Any] = []
        self.captures, self.launches, self.clock = 0, 0, 0.0

    def do(self, work: Any) -> None:
        """Does what is put on a stream, or records it."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def cudaGetDevice(self) -> tuple[Status, int]:  # noqa: N802
        return OK, 0

    def cudaGetDeviceProperties(self, _: int) -> tuple[Status, Any]:  # noqa: N802
        return OK, SimpleNamespace(name=b"stand-in\0", major=8, minor=9)

    def cudaStreamCreateWithFlags(self, _: int) -> tuple[Status, int]:  # noqa: N802
        return OK, 7

    def cudaStreamSynchronize(self, _: int) -> tuple[Status]:  # noqa: N802
        assert self.recording is None, "a wait cannot be recorded"
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Status, int]:  # noqa: N802
        return OK, self.memory.allocate(size)

    def cudaHostAlloc(self, size: int, _: int) -> tuple[Status, int]:  # noqa: N802
        return OK, self.pinned.allocate(size)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, _: int) -> tuple[Status]:  # noqa: N802
        device = target if kind == "up" else source
        assert size <= len(self.memory.blocks[device]), "a copy leaves its buffer"
        self.do(lambda: ctypes.memmove(target, source, size))
        return (OK,)

    def cudaStreamBeginCapture(self, *_: int) -> tuple[Status]:  # noqa: N802
        self.captures += 1
        if "begin" in self.refused:
            return (self.refused["begin"],)
        self.recording = []
        return (OK,)

    def cudaStreamEndCapture(self, _: int) -> tuple[Status, Any]:  # noqa: N802
        recorded, self.recording = self.recording, None
        return (self.refused["end"], None) if "end" in self.refused else (OK, recorded)

    def cudaGraphDestroy(self, recorded: list[Any]) -> tuple[Status]:  # noqa: N802
        self.destroyed.append(recorded)
        return (OK,)

    def cudaGraphInstantiate(self, recorded: Any, _: int) -> tuple[Status, Any]:  # noqa: N802
        return OK, list(recorded)

    def cudaGraphLaunch(self, graph: Any, _: int) -> tuple[Status]:  # noqa: N802
        self.launches += 1
        for work in graph:
            work()
        return (OK,)

    def cudaEventCreate(self) -> tuple[Status, list[float]]:  # noqa: N802
        return OK, [0.0]

    def cudaEventRecord(self, event: list[float], _: int) -> tuple[Status]:  # noqa: N802
        self.clock += 1.0
        event[0] = self.clock
        return (OK,)

    def cudaEventElapsedTime(self, earlier: list[float], later: list[float]) -> tuple[Status, float]:  # noqa: N802
        return OK, later[0] - earlier[0]

    def __getattr__(self, name: str) -> Any:
        assert name in (
            "cudaFree",
            "cudaFreeHost",
            "cudaStreamDestroy",
            "cudaEventDestroy",
            "cudaGraphExecDestroy",
        )
        return lambda *_: (OK,)


class HostTensorRT:
    """The part of a TensorRT package that loads and runs engines; each plan stands for an ONNX file.

    Args:
        version: what engines must have been built with.
        cuda: where tensors lie.
        plans: plan file to the ONNX file that it was built from.

    Attributes:
        runnable: such a file to one that computes the same in operators that ONNX Runtime has, where they are two.
    """

    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    Weights = HostWeights
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(NONE="none", LAZY="lazy", EAGER="eager")

    def __init__(self, version: str, cuda: HostCuda, plans: dict[Path, Path]) -> None:
        self.__version__ = version
        self.cuda = cuda
        self.contexts: list[HostContext] = []
        self.runnable: dict[Path, Path] = {}
        self.refuses_kernels = self.without_weights = self.refuses_contexts = self.cannot_start = False
        self._models = {hashlib.sha256(plan.read_bytes()).digest(): model for plan, model in plans.items()}

    class ILogger:
        ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        if self.cannot_start:
            logger.log("error", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: HostEngine(self, plan, logger))

    def Refitter(self, engine: HostEngine, logger: Any) -> HostRefitter:  # noqa: N802
        return HostRefitter(engine, logger)

    def graph_of(self, plan: bytes) -> Path:
        """Returns the ONNX file that stands for a plan."""
        return self._models[hashlib.sha256(plan).digest()]


class HostEngine:
    """An engine: the graph that stands for its plan, or, of a plan without weights, the one that it is given.

    Attributes:
        graph: what it runs; None where its weights are missing.
        built_of: what it runs with its weights.
    """

    def __init__(self, package: HostTensorRT, plan: bytes, logger: Any) -> None:
        self._package, self.built_of, self._logger = package, package.graph_of(plan), logger
        self.graph = None if package.without_weights else self.built_of

    def create_runtime_config(self) -> HostConfig:
        return HostConfig(self._package)

    def create_execution_context(self, config: Any = None) -> HostContext | None:
        assert self.graph is not None, "the engine has no weights"
        if self._package.refuses_contexts:
            self._logger.log("error", "Requested amount of GPU memory\n could not be allocated.")
            self._logger.log("error", "a consequence of it")
            return None
        session = ort.InferenceSession(str(self._package.runnable.get(self.graph, self.graph)))
        self._package.contexts.append(HostContext(session, self._package.cuda, config, self._logger))
        return self._package.contexts[-1]


class HostConfig(SimpleNamespace):
    """A runtime configuration of TensorRT for RTX: what is set, and a cache of kernels."""

    def __init__(self, package: HostTensorRT) -> None:
        super().__init__()
        self.package = package

    def create_runtime_cache(self) -> HostKernels:
        return HostKernels(self.package)

    def set_runtime_cache(self, cache: HostKernels) -> bool:
        self.cache = cache
        return True


class HostKernels:
    """Kernels as batch sizes: what a context ran is compiled."""

    def __init__(self, package: HostTensorRT) -> None:
        self.package = package
        self.known: set[int] = set()

    def deserialize(self, data: bytes) -> bool:
        if self.package.refuses_kernels:
            return False
        self.known = {int(extent) for extent in np.frombuffer(data, np.int32)}
        return True

    def serialize(self) -> bytes:
        return np.array(sorted(self.known), np.int32).tobytes()


class HostContext:
    """An execution context: shapes and addresses in, results at addresses out.

    As with TensorRT's, a recording of its work holds until the context has seen other shapes, even if these come back.

    Attributes:
        shapes: of the inputs, as last set.
        addresses: of every tensor, as last set.
        profile: the one that is in use.
        switches: profiles that were asked for, refused ones too.
        refuses: what the context answers no to: ``profile``, or ``recording`` its work.
    """

    def __init__(self, session: Any, cuda: HostCuda, config: Any, logger: Any) -> None:
        self.session, self.cuda, self.config, self._logger = session, cuda, config, logger
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.profile = self._changes = 0
        self.switches: list[int] = []
        self.refuses = ""

    def set_optimization_profile_async(self, index: int, _: int) -> bool:
        self.switches.append(index)
        if self.refuses == "profile":
            self._logger.log("error", f"Profile {index} is in use by another context.")
            return False
        self.profile, self._changes = index, self._changes + 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._changes += self.shapes.get(name) != shape
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, _: int) -> bool:
        if self.refuses == "recording" and self.cuda.recording is not None:
            return False
        changes, addresses = self._changes, dict(self.addresses)

        def work() -> None:
            assert changes == self._changes, "replayed after the context had seen other shapes"
            self._execute(self.shapes, addresses)

        self.cuda.do(work)
        return True

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        memory = self.cuda.memory
        if self.config is not None and self.config.dynamic_shapes_kernel_specialization_strategy != "none":
            self.config.cache.known.update(shape[0] for shape in shapes.values())
        feeds = {
            x.name: memory.array(addresses[x.name], shapes[x.name], TYPES[x.type]) for x in self.session.get_inputs()
        }
        names = [output.name for output in self.session.get_outputs()]
        for name, value in zip(names, self.session.run(names, feeds), strict=True):
            memory.array(addresses[name], value.shape, value.dtype.type)[...] = value
