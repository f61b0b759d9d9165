"""What torch does at most where a group runs: products of large matrices, and copies within a GPU's memory.

It stands in for runtimes that run no graph as it is, and for all that run on an NVIDIA GPU: what a GPU can do is the
same for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from sait_deploy.errors import InvalidArgument, MissingDependency, RuntimeUnavailable, first_line
from sait_deploy.runtime.precision import QUANTISED, RunPrecision
from sait_deploy.runtime.registry import find_runtime

try:
    import torch
except ImportError:
    raise MissingDependency("torch", "timing what a GPU can do", "export") from None

from sait_deploy.runtime.cuda_graphs import Execution, OnGpu, OnHost
from sait_deploy.runtime.exact_float32 import EXACT_FLOAT32

Call = Callable[[], float | None]
"""Work that returns its seconds by the device's clock, None where there is none."""

_SIDE, _SIDE_ON_HOST = 8192, 512
_DTYPES: Final = {
    RunPrecision.FP32: torch.float32,
    RunPrecision.BF16: torch.bfloat16,
    RunPrecision.FP16: torch.float16,
    **dict.fromkeys(QUANTISED, torch.int8),
}


def execution_of(runtime: str, device: str) -> Execution:
    """Returns where a runtime runs, in torch.

    Args:
        runtime: its name.
        device: the device that it was asked to run on.

    Raises:
        RuntimeUnavailable: torch finds no GPU, and the runtime runs on one.
        InvalidArgument: the device is neither a processor nor an NVIDIA GPU.
    """
    on_gpu = find_runtime(runtime).on_gpu
    if on_gpu and not torch.cuda.is_available():
        raise RuntimeUnavailable(f"torch {torch.__version__} finds no NVIDIA GPU", "install a torch built for CUDA")
    place = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device(device.lower())
    if place.type not in ("cpu", "cuda"):
        raise InvalidArgument(f"torch is timed on cpu and on cuda, not on {device!r}", "use one of these")
    return OnHost() if place.type == "cpu" else OnGpu(place)


def device_name(execution: Execution) -> str:
    """Returns a GPU's name; nothing for the processors."""
    return torch.cuda.get_device_name(execution.device) if execution.device.type == "cuda" else ""


def products(execution: Execution, precision: RunPrecision) -> tuple[int, Call]:
    """Returns a product of random square matrices, of 8,192 rows on a GPU: its operations, and the call that runs it.

    Raises:
        RuntimeUnavailable: the device does not multiply so.
    """
    side = _SIDE_ON_HOST if execution.device.type == "cpu" else _SIDE
    dtype = _DTYPES[precision]
    with _working(execution):
        left, right = (torch.randn(side, side, device=execution.device) for _ in range(2))
        if dtype is torch.int8:
            a, b = ((32 * given).clamp(-127, 127).to(dtype) for given in (left, right))
            sums = torch.empty(side, side, dtype=torch.int32, device=execution.device)
            # On a GPU the second matrix has to lie by columns.
            call = _recorded(execution, lambda: torch._int_mm(a, b.t(), out=sums))
        else:
            left, right = left.to(dtype), right.to(dtype)
            found = torch.empty_like(left)
            call = _recorded(execution, lambda: torch.mm(left, right, out=found))
        return 2 * side**3, call


def copy(execution: Execution, least_bytes: int) -> tuple[int, Call]:
    """Returns a copy between two arrays in a device's memory: the bytes read and written, and the call that copies.

    Raises:
        RuntimeUnavailable: the arrays do not fit.
    """
    with _working(execution):
        source = torch.randn(least_bytes // 4, device=execution.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes, _recorded(execution, lambda: target.copy_(source))


def _recorded(execution: Execution, compute: Callable[[], torch.Tensor]) -> Call:
    replay = execution.record(compute).replay

    def call() -> float | None:
        with _working(execution):
            return execution.timed(replay)

    return call


@contextlib.contextmanager
def _working(execution: Execution) -> Iterator[None]:
    """Makes the device torch's current one, float32 exact, and what the device refuses an error of ours."""
    device = execution.device
    try:
        with EXACT_FLOAT32, torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            yield
    except RuntimeError as error:
        raise RuntimeUnavailable(f"torch cannot work on {device}: {first_line(error)}") from None
