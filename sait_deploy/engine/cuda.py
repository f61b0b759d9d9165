"""The few CUDA calls that engines need: memory, copies, a stream, events, graphs. No torch anywhere."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sait_deploy.errors import MissingDependency, RuntimeUnavailable, first_line

_NO_DRIVER: Final = "an NVIDIA GPU and its driver are needed; sait-deploy doctor says what is there"

_MEANINGS: Final = {
    2: ("the GPU's memory is full", "build the engine with a smaller --batch, or free some"),
    35: ("no NVIDIA driver, or one older than this CUDA needs", _NO_DRIVER),
    100: ("no NVIDIA GPU", _NO_DRIVER),
}
"""What the statuses that users meet mean, and what to do."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its name, and its architecture as in ``sm89``."""

    name: str
    target: str

    @property
    def architecture(self) -> int:
        """The architecture as a number, major times 10 plus minor."""
        return int(self.target.removeprefix("sm"))


@functools.cache
def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingDependency("cuda-bindings", "running an engine", extra="rtx") from None
    return runtime


def check(result: tuple[Any, ...]) -> Any:
    """Returns what a CUDA call returned in addition to its status.

    Raises:
        RuntimeUnavailable: the call failed.
    """
    status, *values = result
    if int(status) != 0:
        meaning, hint = _MEANINGS.get(int(status), ("a CUDA call failed", "report this, with what --debug shows"))
        raise RuntimeUnavailable(f"{meaning} ({status.name})", hint)
    return values[0] if len(values) == 1 else tuple(values) or None


def device() -> Device:
    """Returns the current GPU.

    Raises:
        RuntimeUnavailable: there is none, or no driver for it.
        MissingDependency: cuda-bindings is not installed.
    """
    cudart = _runtime()
    try:
        properties = check(cudart.cudaGetDeviceProperties(check(cudart.cudaGetDevice())))
    except RuntimeUnavailable as error:
        raise RuntimeUnavailable(f"no GPU can be used: {error.message}", _NO_DRIVER) from None
    except RuntimeError as error:  # the bindings raise their own kind where there is no driver library
        raise RuntimeUnavailable(f"no GPU can be used: {first_line(error)}", _NO_DRIVER) from None
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Device(name.rstrip("\0"), f"sm{properties.major}{properties.minor}")


def find_device() -> Device | None:
    """Returns the current GPU, or None where there is none that can be used."""
    with contextlib.suppress(RuntimeUnavailable, MissingDependency):
        return device()
    return None


class Stream:
    """A stream of its own, so that nothing else's work is waited for."""

    def __init__(self) -> None:
        self.handle = check(_runtime().cudaStreamCreateWithFlags(_runtime().cudaStreamNonBlocking))
        weakref.finalize(self, _runtime().cudaStreamDestroy, self.handle)

    def synchronize(self) -> None:
        """Waits for all work on the stream."""
        check(_runtime().cudaStreamSynchronize(self.handle))

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Starts a copy from host memory, pinned if it is to be asynchronous, to a device address."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        check(_runtime().cudaMemcpyAsync(target, source.ctypes.data, source.nbytes, kind, self.handle))

    def download(self, target: NDArray[Any], source: int) -> None:
        """Starts a copy from a device address to host memory."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(_runtime().cudaMemcpyAsync(target.ctypes.data, source, target.nbytes, kind, self.handle))

    @contextlib.contextmanager
    def captured(self) -> Iterator[Graph]:
        """Records what the block puts on the stream; the graph is ready when the block ends."""
        cudart, graph = _runtime(), Graph()
        check(cudart.cudaStreamBeginCapture(self.handle, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            yield graph
        except BaseException:
            _, abandoned = cudart.cudaStreamEndCapture(self.handle)
            if abandoned is not None:
                cudart.cudaGraphDestroy(abandoned)
            raise
        graph.instantiate(check(cudart.cudaStreamEndCapture(self.handle)))


class Graph:
    """Recorded work, launched as one."""

    def __init__(self) -> None:
        self._executable: Any = None

    def instantiate(self, recorded: Any) -> None:
        """Makes recorded work ready to launch."""
        self._executable = check(_runtime().cudaGraphInstantiate(recorded, 0))
        check(_runtime().cudaGraphDestroy(recorded))
        weakref.finalize(self, _runtime().cudaGraphExecDestroy, self._executable)

    def launch(self, stream: Stream) -> None:
        """Puts the work on a stream."""
        check(_runtime().cudaGraphLaunch(self._executable, stream.handle))


class CudaEvent:
    """A point on a stream, with its time."""

    def __init__(self) -> None:
        self.handle = check(_runtime().cudaEventCreate())
        weakref.finalize(self, _runtime().cudaEventDestroy, self.handle)

    def record(self, stream: Stream) -> None:
        """Marks the present end of a stream's work."""
        check(_runtime().cudaEventRecord(self.handle, stream.handle))

    def seconds_since(self, earlier: CudaEvent) -> float:
        """Returns the time between two events that the GPU has reached."""
        milliseconds: float = check(_runtime().cudaEventElapsedTime(earlier.handle, self.handle))
        return milliseconds / 1e3


class DeviceBuffer:
    """GPU memory of a fixed size in bytes, at ``address``."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address: int = int(check(_runtime().cudaMalloc(max(size, 1))))
        weakref.finalize(self, _runtime().cudaFree, self.address)


def pinned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Returns an array in page-locked host memory, which copies reach without a detour; it is not empty."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    address = int(check(_runtime().cudaHostAlloc(size, 0)))
    memory = (ctypes.c_byte * size).from_address(address)
    weakref.finalize(memory, _runtime().cudaFreeHost, address)
    array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
    return array
