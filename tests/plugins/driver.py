"""Loads PTX and launches it through the CUDA driver, as TensorRT's runtime does: no torch, no Triton."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


def absent() -> str:
    """Returns why nothing can be launched here, or nothing."""
    try:
        from cuda.bindings import driver

        (status,) = driver.cuInit(0)
    except (ImportError, RuntimeError, OSError) as error:
        return f"there is no CUDA driver: {error}"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"there is no CUDA device: {status.name}"
    return ""


def capability() -> int:
    """Returns the first device's compute capability, 89 for 8.9."""
    from cuda.bindings import driver

    device = _done(driver.cuDeviceGet(0))
    kinds = driver.CUdevice_attribute
    major = _done(driver.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _done(driver.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return int(10 * major + minor)


def launch(
    answer: dict[str, Any], run: dict[str, Any], inputs: Sequence[NDArray[Any]], fill: int
) -> list[NDArray[np.int32]]:
    """Launches what the host was told and returns the outputs, which held ``fill`` before."""
    from cuda.bindings import driver

    outputs = [np.full(shape, fill, dtype=np.int32) for shape in run["shapes"]]
    with _context():
        module = _done(driver.cuModuleLoadData(answer["ptx"].encode() + b"\0"))
        function = _done(driver.cuModuleGetFunction(module, answer["entry"].encode()))
        addresses = {}
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for index, array in enumerate(arrays):
                address = _done(driver.cuMemAlloc(array.nbytes))
                _done(driver.cuMemcpyHtoD(address, np.ascontiguousarray(array).ctypes.data, array.nbytes))
                addresses[f"{kind} {index}"] = address
        values = tuple(int(addresses.get(each, each)) for each in run["arguments"])
        types = tuple(ctypes.c_void_p if each in addresses else ctypes.c_int32 for each in run["arguments"])
        _done(driver.cuLaunchKernel(function, *run["grid"], *run["block"], run["shared"], 0, (values, types), 0))
        _done(driver.cuCtxSynchronize())
        for index, array in enumerate(outputs):
            _done(driver.cuMemcpyDtoH(array.ctypes.data, addresses[f"output {index}"], array.nbytes))
        for address in addresses.values():
            _done(driver.cuMemFree(address))
        _done(driver.cuModuleUnload(module))
    return outputs


@contextmanager
def _context() -> Iterator[None]:
    from cuda.bindings import driver

    device = _done(driver.cuDeviceGet(0))
    _done(driver.cuCtxPushCurrent(_done(driver.cuDevicePrimaryCtxRetain(device))))
    try:
        yield
    finally:
        _done(driver.cuCtxPopCurrent())
        _done(driver.cuDevicePrimaryCtxRelease(device))


def _done(result: tuple[Any, ...]) -> Any:
    """Returns what a call of the driver gives beside its status."""
    status, *values = result
    assert status == type(status)(0), status.name
    return values[0] if values else None
