"""What this machine can do at most, measured: matrix products on each runtime in each precision, and memory.

On processors the products are an artifact of nothing else, which the runtime's own runner runs: on its threads, in the
precision that it was checked to run in. On a GPU, and for what runs no graph, torch multiplies and copies.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.manifest import Form, Manifest, Precision, TensorInfo
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.machine_results import ProductRate
from sait_deploy.runtime import load
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import TORCH, find_runtime, is_default_device
from sait_deploy.system.processors import processors
from sait_deploy.system.scratch import scratch_folder

_SIDE: Final = 512
"""Pixels of the image whose numbers are the rows: 3 · 512 · 512 = 1024 · 768."""

_ROWS, _WIDTH, _PRODUCTS = 1024, 768, 4
_OPERATIONS: Final = 2 * _ROWS * _WIDTH * _WIDTH * _PRODUCTS
_SCALE: Final = 4 / 127
"""Of quantised rows, which are about normal."""

_QUANTISED: Final = (RunPrecision.INT8, RunPrecision.INT8_BF16)
_LEAST_BYTES: Final = 256 << 20
"""Of each of the two arrays that are copied: caches of processors are smaller."""

_LEAST_DEVICE_BYTES: Final = 1 << 30
"""The same on a GPU: its caches are smaller by far, and a copy takes longer than its start."""

_SECONDS, _FEWEST_RUNS = 2.0, 5


def product_rate(like: Manifest, group: GroupPlan, precision: RunPrecision, threads: int | None) -> ProductRate:
    """Measures how fast large matrices are multiplied where a runtime runs.

    A runtime of processors multiplies matrices of 1,024 rows and 768 columns, four in a row. For others torch
    multiplies two (:func:`sait_deploy.bench.device_rates.products`).

    Args:
        like: manifest of a dense artifact.
        group: says which runtime, and on what device.
        precision: what to multiply in.
        threads: threads within one operator; None for all processors.

    Raises:
        InvalidArgument: the runtime runs no graph in that precision, or on a device that torch is not timed on.
        MissingDependency, RuntimeUnavailable: it does not work here.
    """
    runtime = group.runtime
    if _in_torch(runtime):
        from sait_deploy.bench import device_rates

        execution = device_rates.execution_of(runtime, group.device)
        operations, multiply = device_rates.products(execution, precision)
        rate, device = operations / _fastest(multiply), device_rates.device_name(execution)
        return ProductRate(runtime, precision, rate, device, TORCH)
    device = "" if is_default_device(group.device) else group.device
    with scratch_folder() as place:
        folder = place / "matrix-products"
        folder.mkdir()
        artifact = _products_artifact(like, folder, Precision.INT8 if precision in _QUANTISED else Precision.FP32)
        runner = load(artifact, runtime, dataclasses.replace(group.running(threads), precision=precision))
        images = np.random.default_rng(0).standard_normal((1, 3, _SIDE, _SIDE), dtype=np.float32)
        call = runner.bind(images)
        return ProductRate(runtime, precision, _OPERATIONS / _fastest(call), device)


def device_memory_rate(group: GroupPlan) -> float | None:
    """Measures bytes per second, read and written, of a copy within the memory of the GPU that a group runs on.

    Args:
        group: says which runtime, and on what device.

    Returns:
        The rate; None of a group on processors, or on a device that torch does not reach.

    Raises:
        MissingDependency, RuntimeUnavailable: torch does not work there.
    """
    if not _in_torch(group.runtime):
        return None
    from sait_deploy.bench import device_rates

    execution = device_rates.execution_of(group.runtime, group.device)
    if not device_rates.device_name(execution):
        return None
    copied, copy = device_rates.copy(execution, _LEAST_DEVICE_BYTES)
    return copied / _fastest(copy)


def _in_torch(runtime: str) -> bool:
    """Returns whether torch is timed in a runtime's place."""
    entry = find_runtime(runtime)
    return entry.on_gpu or entry.from_weights


def _products_artifact(like: Manifest, folder: Path, dtype: Precision) -> Artifact:
    """Writes a dense artifact whose graph is matrix products alone."""
    graph = folder / MODEL_FILE
    onnx.save(_products(like.opset, dtype), str(graph))
    model = dataclasses.replace(like.model, image_size=(_SIDE, _SIDE))
    manifest = dataclasses.replace(
        like,
        id="matrix-products",
        name="matrix products",
        form=Form.DENSE,
        pruning=None,
        dtype=dtype,
        model=model,
        outputs=(TensorInfo("logits", "float32", ("B", _WIDTH)),),
        files={MODEL_FILE: sha256_of(graph)},
    )
    return Artifact(folder, manifest)


def _products(opset: int, dtype: Precision) -> onnx.ModelProto:
    draw = np.random.default_rng(1)
    constants: dict[str, NDArray[np.generic]] = {"shape": np.array([_ROWS, _WIDTH], np.int64)}
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["rows0"])]
    for index in range(_PRODUCTS):
        rows, weight = f"rows{index}", f"weight{index}"
        values = draw.standard_normal((_WIDTH, _WIDTH), dtype=np.float32) / np.float32(_WIDTH**0.5)
        if dtype is Precision.INT8:
            rows = _quantised(nodes, constants, rows)
            weight = _quantised_weight(nodes, constants, weight, values)
        else:
            constants[weight] = values
        nodes.append(helper.make_node("MatMul", [rows, weight], [f"rows{index + 1}"]))
    constants["axes"] = np.array([0], np.int64)
    nodes.append(helper.make_node("ReduceMean", [f"rows{_PRODUCTS}", "axes"], ["logits"], keepdims=1))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, _WIDTH])
    initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "products", [images], [logits], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _quantised(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], rows: str) -> str:
    """Rounds rows to int8 with one scale, as ``quantize`` does, and returns the name of what comes of it."""
    constants |= {"scale": np.array(_SCALE, np.float32), "zero": np.array(0, np.int8)}
    nodes.append(helper.make_node("QuantizeLinear", [rows, "scale", "zero"], [f"{rows}_int8"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{rows}_int8", "scale", "zero"], [f"{rows}_back"]))
    return f"{rows}_back"


def _quantised_weight(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], name: str, values: NDArray[np.float32]
) -> str:
    """Rounds a weight to int8 with a scale for each column, and returns the name of what comes of it."""
    scales = np.abs(values).max(axis=0) / 127
    constants |= {f"{name}_scale": scales, f"{name}_zero": np.zeros(_WIDTH, np.int8)}
    constants[f"{name}_int8"] = np.rint(values / scales).astype(np.int8)
    parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
    nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}_back"], axis=1))
    return f"{name}_back"


def memory_rate(threads: int | None) -> float:
    """Measures bytes per second, read and written, of a copy between two arrays far larger than the caches.

    Args:
        threads: how many copy, each its own part; None for as many as there are processors.
    """
    count = processors() if threads is None else threads
    source = np.ones(_LEAST_BYTES // 8, np.float64)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, count), np.array_split(source, count), strict=True))
    with ThreadPoolExecutor(count) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(*part), parts))  # NumPy copies without the interpreter's lock

        return 2 * source.nbytes / _fastest(copy)


def _fastest(call: Callable[[], float | None]) -> float:
    """Returns the seconds of the fastest of several runs: what the machine can do, whatever else runs on it."""
    call()
    found: list[float] = []
    started = time.perf_counter()
    while len(found) < _FEWEST_RUNS or time.perf_counter() - started < _SECONDS:
        before = time.perf_counter()
        own = call()
        found.append(time.perf_counter() - before if own is None else own)
    return min(found)
