"""Work recorded as CUDA graphs and replayed on the same memory; and the same steps without a GPU, to check them."""

from __future__ import annotations

import functools
import statistics
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import torch
from torch import Tensor

Outputs = TypeVar("Outputs")
Compute = TypeVar("Compute", bound=Callable[..., Any])

_WARM_UP: Final = 3
"""Runs before recording: compilation, library handles and workspaces stay out of a graph."""

_MOST_COMPILATIONS: Final = 256
"""Of one function. torch counts them over all models of a process, and gives up at 8 unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Recorded(Generic[Outputs]):
    """Work that can be done again on the memory that it was recorded on.

    Attributes:
        outputs: tensors, in named tuples or alone, which every replay fills anew.
        replay: puts the work on the current stream.
    """

    outputs: Outputs
    replay: Callable[[], None]


def compiled_by_size(
    compute: Compute, mode: str = "default", backend: str | Callable[..., Any] = "inductor"
) -> Compute:
    """Returns a function that is compiled for every size of its arguments by itself, but for axes marked as dynamic.

    Left to itself torch compiles the second batch size for all further ones, in code that knows none of them.

    Args:
        compute: the function; a part of it that cannot be compiled is an error.
        mode: of ``torch.compile``.
        backend: likewise.
    """
    made = torch.compile(compute, fullgraph=True, dynamic=False, mode=mode, backend=backend)

    @functools.wraps(compute)
    def call(*arguments: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=_MOST_COMPILATIONS):
            return made(*arguments)

    return cast("Compute", call)


class Execution(ABC):
    """Where and how work is compiled, recorded and timed.

    Attributes:
        device: where it runs.
    """

    device: torch.device

    @abstractmethod
    def compiled(self, compute: Compute, mode: str = "default") -> Compute:
        """Returns a function compiled, in a mode of ``torch.compile``."""

    @abstractmethod
    def record(self, compute: Callable[[], Outputs]) -> Recorded[Outputs]:
        """Records what a function does; it is run before, and its outputs are those of its last run."""

    @abstractmethod
    def timed(self, call: Callable[[], Any]) -> float | None:
        """Runs a call to its end and returns its seconds by the device's clock, None where there is none."""


class OnGpu(Execution):
    """On a CUDA device: compiled by ``torch.compile``, recorded as CUDA graphs in one pool of memory.

    The pool is that of a graph which lives, as torch records in none whose graphs have gone while their outputs stay.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]

    def compiled(self, compute: Compute, mode: str = "default") -> Compute:
        """Compiles without graphs of torch's own: ``record`` makes them."""
        return compiled_by_size(compute, mode)

    def record(self, compute: Callable[[], Outputs]) -> Recorded[Outputs]:
        """Warms up on a stream of its own, as recording does, and records."""
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                compute()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        living = next(iter(self._graphs), None)  # held, so that its pool lasts through the recording
        with torch.cuda.graph(graph, pool=None if living is None else living.pool()):
            outputs = compute()
        self._graphs.add(graph)
        graph.replay()
        return Recorded(outputs, graph.replay)

    def timed(self, call: Callable[[], Any]) -> float | None:
        """Times by events on the current stream, what the device waits for the host included."""
        start, end = self._events
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


class OnHost(Execution):
    """On the processor, where nothing is compiled or recorded: for checking what would be."""

    device = torch.device("cpu")

    def compiled(self, compute: Compute, mode: str = "default") -> Compute:
        """Returns the function as it is."""
        return compute

    def record(self, compute: Callable[[], Outputs]) -> Recorded[Outputs]:
        """Returns a replay that runs the function again and writes into the same outputs, as a graph does."""
        outputs = compute()

        def replay() -> None:
            for old, new in zip(tensors_of(outputs), tensors_of(compute()), strict=True):
                old.copy_(new)

        return Recorded(outputs, replay)

    def timed(self, call: Callable[[], Any]) -> float | None:
        """Runs the call."""
        call()
        return None


def tensors_of(value: object) -> Iterator[Tensor]:
    """Yields the tensors of nested tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from tensors_of(one)


def medians(execution: Execution, calls: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Times calls in turn.

    Args:
        execution: where they run.
        calls: name to call.
        runs: of each.

    Returns:
        Name to median seconds, by the device's clock, or the processor's where it has none.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            started = time.perf_counter()
            seconds = execution.timed(call)
            taken[name].append(time.perf_counter() - started if seconds is None else seconds)
    return {name: statistics.median(found) for name, found in taken.items()}
