"""Graphs compiled by OpenVINO, kept beside their artifact, and what a compiled model says of itself."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data
from onnx.inliner import inline_local_functions

from sait_deploy.errors import RuntimeUnavailable, StorageError
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER, keep_file, kept_files
from sait_deploy.system.interrupts import deferred
from sait_deploy.system.locks import held, is_left_over
from sait_deploy.system.memory import trim
from sait_deploy.system.scratch import scratch_folder
from sait_deploy.system.telemetry import import_runtime

_BESIDE: Final = ".openvino-"
"""How the name of a graph begins that lies beside its artifact's weights for a while."""

_PRODUCTS: Final = frozenset({"FullyConnected", "MatMul", "Convolution"})
"""OpenVINO's names of the layers on a CPU that multiply matrices."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a graph is compiled for: a device of a core's, and the properties to compile it with."""

    core: Any
    device: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled model, and where it is from, in words."""

    model: Any
    origin: str


def open_compiled(target: Target, folder: Path, key: str, make: Callable[[], Any]) -> Compiled:
    """Returns the compiled model kept in a folder, or a new one, which is kept there where that can be.

    Args:
        target: what it is compiled for.
        folder: where compiled models are kept.
        key: what the model depends on, as the beginning of its file's name.
        make: compiles a new one.
    """
    for data in kept_files(folder, key):
        # The compiled model reads its weights from a tensor; from bytes it would read them into further memory.
        tensor = import_runtime("openvino").Tensor(np.frombuffer(data, np.uint8), shared_memory=False)
        del data
        with contextlib.suppress(RuntimeError):
            model = target.core.import_model(tensor, target.device, target.settings)
            return Compiled(model, "kept from an earlier run")
    compiled = make()
    trim()  # what compiling freed
    try:
        keep_file(folder, key, compiled.export_model().getvalue())
        return Compiled(compiled, f"made and kept in {COMPILED_FOLDER}")
    except (RuntimeError, StorageError) as error:
        why = error.message if isinstance(error, StorageError) else reason(error)
        return Compiled(compiled, f"made and not kept: {why}")


def compile_graph(target: Target, graph: onnx.ModelProto, weights: Path) -> Any:
    """Compiles a graph.

    Args:
        target: what for.
        graph: with or without its weights.
        weights: folder where weights lie that are not in it.

    Raises:
        RuntimeUnavailable: OpenVINO cannot compile it.
    """
    try:
        with _readable(graph, weights) as source:
            model = target.core.read_model(source)
            return target.core.compile_model(model, target.device, target.settings)
    except Exception as error:  # OpenVINO's errors are RuntimeErrors, of the inliner's there is no public class
        raise RuntimeUnavailable(
            f"openvino cannot compile the model: {reason(error)}", "see: sait-deploy doctor"
        ) from error


@contextlib.contextmanager
def _readable(model: onnx.ModelProto, folder: Path) -> Iterator[str | bytes]:
    """Yields a graph as OpenVINO reads it, functions inlined: its bytes, or the name of a file beside its weights.

    OpenVINO reads weights from the folder of the graph's file alone, and follows no links out of it.

    Args:
        model: the graph.
        folder: where weights lie that are not in it; where nothing can be written there, they are copied for a while.
    """
    inlined = inline_local_functions(model)
    outside = {ExternalDataInfo(one).location for one in _get_all_tensors(inlined) if uses_external_data(one)}
    serialised: bytes = inlined.SerializeToString()
    if not outside:
        yield serialised
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_beside(folder))
        except OSError:
            place = stack.enter_context(scratch_folder())
            for name in outside:
                shutil.copyfile(folder / name, place / name)
            file = stack.enter_context(tempfile.NamedTemporaryFile(dir=place, suffix=".onnx"))
        file.write(serialised)
        file.flush()
        yield file.name


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[IO[bytes]]:
    """Yields a file among others that is removed again, and removes those that a kill left."""
    for left in folder.glob(f"{_BESIDE}*"):
        if is_left_over(left):
            left.unlink(missing_ok=True)
    with deferred():
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=_BESIDE, suffix=".onnx")  # noqa: SIM115 - closed below
    with file, held(Path(file.name)):
        yield file


def matrix_products(compiled: Any) -> dict[str, int]:
    """Returns element type to how many matrix products of a compiled model run in it; empty where a device hides it."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        said = {name: node.get_rt_info()[name].astype(str) for name in ("layerType", "runtimePrecision")}
        if said["layerType"] in _PRODUCTS:
            counts[said["runtimePrecision"]] = counts.get(said["runtimePrecision"], 0) + 1
    return counts


def reason(error: Exception) -> str:
    """Returns in one line what OpenVINO's message says is wrong, without the lines that say where in its own code."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '")))[:200]
