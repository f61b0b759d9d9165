"""Weights of an engine that was built without: read off its lowered graph, put in under the names that it asks for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sait_deploy.artifacts.files import check_place, write_whole
from sait_deploy.engine.builder import type_name
from sait_deploy.engine.folder import Engine
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.system.scratch import scratch_folder

_NAMES: Final = {"float8_e4m3fn": "fp8"}
"""What the package calls element types that NumPy's extension calls otherwise."""


class WeightsRefused(Exception):
    """An engine and weights do not fit each other; the text says why in one line."""


def weights_of(graph: Path) -> dict[str, NDArray[Any]]:
    """Returns a lowered graph's weights and constants under the names that TensorRT's parser gives them.

    Arrays are contiguous; large ones are mapped from the file, which has to stay as long as they are used.
    """
    model = ir.load(graph)
    values = [*model.graph.initializers.values()]
    values += [node.outputs[0] for node in model.graph if node.op_type == "Constant" and not node.domain]
    found = {}
    for value in values:
        tensor = ir.convenience.get_const_tensor(value)
        assert value.name is not None and tensor is not None
        array = tensor.numpy()
        found[value.name] = np.ascontiguousarray(array).reshape(array.shape)  # which made vectors of scalars
    return found


def write_weights(engine: Engine, folder: Path) -> list[Path]:
    """Writes what each part of an engine has to be given, for programs that put it in themselves.

    Args:
        engine: one that was built without weights.
        folder: made where it is not there.

    Returns:
        The files: NumPy archives of bytes, each named by element type and name, such as ``float16 vit.head.bias``.

    Raises:
        InvalidArgument: the engine has its weights.
        ArtifactError: they are lowered otherwise here than where the engine was built.
        StorageError: the folder is none, or cannot be written.
    """
    from sait_deploy.engine.lowering import lower_parts, lowering_of

    manifest = engine.manifest
    check_place(folder)
    if not manifest.stripped:
        raise InvalidArgument(f"engine {manifest.name} has its weights", "load it as it is")
    written = []
    with scratch_folder() as graphs:
        for name, part in lower_parts(engine.artifact, lowering_of(manifest), graphs).items():
            weights = weights_of(part.path)
            try:
                check_digest(weights, (manifest.weights or {}).get(name))
            except WeightsRefused as error:
                raise ArtifactError(f"the {name} of engine {manifest.name}: {error}", "build it again") from None
            arrays: dict[str, Any] = {f"{_type_of(array)} {key}": _bytes(array) for key, array in weights.items()}
            written.append(folder / f"{name}.npz")
            archive = io.BytesIO()
            np.savez(archive, **arrays)
            write_whole(written[-1], archive.getbuffer())
    return written


def digest_of(weights: Mapping[str, NDArray[Any]]) -> str:
    """Returns the SHA-256 of weights: names, element types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(_bytes(array).data)
    return digest.hexdigest()


def check_digest(weights: Mapping[str, NDArray[Any]], built_with: str | None) -> None:
    """Checks that weights are those that an engine was built with: TensorRT chose kernels for these very numbers.

    Args:
        weights: by name.
        built_with: their digest; None of an engine whose manifest does not tell.

    Raises:
        WeightsRefused: they are others.
    """
    if built_with is not None and digest_of(weights) != built_with:
        raise WeightsRefused("the graph is lowered otherwise here than where the engine was built")


def put_weights_in(
    trt: Any, engine: Any, weights: Mapping[str, NDArray[Any]], logger: Any, reason: Callable[[], str]
) -> None:
    """Puts weights into an engine: all that it asks for, and no others.

    Args:
        trt: the package of the TensorRT that loaded it.
        engine: of that package.
        weights: by name.
        logger: of that package.
        reason: returns why TensorRT refused something, in one line.

    Raises:
        WeightsRefused: the engine asks for others, or for some of another size or type.
    """
    try:
        refitter = trt.Refitter(engine, logger)
    except TypeError:  # so the bindings say that there is none
        raise WeightsRefused(reason()) from None
    wanted = [name for name in refitter.get_all_weights() if name]
    if lacking := [name for name in wanted if name not in weights]:
        raise WeightsRefused(f"it asks for {_listed(lacking)}, which the lowered graph lacks")
    for name in wanted:
        prototype, array = refitter.get_weights_prototype(name), weights[name]
        takes = prototype.size, type_name(prototype.dtype)
        if takes != (array.size, _type_of(array)):
            raise WeightsRefused(
                f"it takes {name!r} as {takes[0]} numbers of {takes[1]}, "
                f"and the lowered graph has {array.size} of {array.dtype.name}"
            )
        # By address, as the package knows NumPy's own element types alone. Arrays outlive the call that reads them.
        if not refitter.set_named_weights(name, trt.Weights(prototype.dtype, array.ctypes.data, array.size)):
            raise WeightsRefused(f"TensorRT refuses {name!r} ({reason()})")
    if missing := refitter.get_missing_weights():
        raise WeightsRefused(f"it misses {_listed([name or 'one without a name' for name in missing])} besides")
    if not refitter.refit_cuda_engine():
        raise WeightsRefused(reason())


def _type_of(array: NDArray[Any]) -> str:
    return _NAMES.get(array.dtype.name, array.dtype.name)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _listed(names: Sequence[str]) -> str:
    """Returns the first name, and how many follow."""
    more = len(names) - 1
    return f"{names[0]!r}" + (f" and {more} more" if more else "")
