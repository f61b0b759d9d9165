"""A graph's structure, checked before a runtime sees it: its operators, its size, its tensors and where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from sait_deploy.artifacts.codec import shown
from sait_deploy.artifacts.graph_operators import unknown_operators
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ArtifactError

if TYPE_CHECKING:
    import onnx

    from sait_deploy.artifacts.manifest import Manifest, TensorInfo

_MOST_NODES: Final = 200_000
"""Nodes of a graph at most, its functions taken in: models of a thousand blocks have fewer."""

_BYTES: Final = {Precision.FP32: 4, Precision.FP16: 2, Precision.INT8: 1}
"""Bytes that a parameter takes at least, in each precision."""

_MORE: Final = 4 << 20
"""Bytes of parameters that may be in no file, beside as many as are: of layers that a graph has no use for."""

_MOST_NUMBERS: Final = 1 << 31
"""Numbers of a tensor that a graph's constants may ask for."""

_SIZED_BY: Final = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Range": (1,),
    "OneHot": (1,),
    "Resize": (3,),
}
"""Operators that make a tensor of a size that one of their inputs says: which input."""

_Key: TypeAlias = tuple[str, str]


def check_graph(model: onnx.ModelProto, manifest: Manifest, folder: Path) -> None:
    """Checks an artifact's graph without expanding it, and without reading weights beside it.

    Args:
        model: the graph, its external data not loaded.
        manifest: the artifact's.
        folder: where weights beside the graph lie.

    Raises:
        ArtifactError: the graph has what no artifact's graph has, or is not the one that the manifest describes.
    """
    for problem in _problems(model, manifest, folder):
        raise ArtifactError(f"the graph of {manifest.name} cannot be used: {problem}", "export again")


def _problems(model: onnx.ModelProto, manifest: Manifest, folder: Path) -> Iterator[str]:
    functions = {(f.domain, f.name): f for f in model.functions}
    if len(functions) != len(model.functions):
        yield "two of its functions have one name"
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if len(opsets) != len(model.opset_import) or not all(0 < version < 1000 for version in opsets.values()):
        yield f"its operator sets are {shown(opsets)}"
    if model.training_info or model.graph.sparse_initializer:
        yield "it has training information or sparse tensors"
    geometry = manifest.model.geometry
    yield from unknown_operators(model.graph.node, functions, opsets, geometry)
    for function in functions.values():
        own = {entry.domain: entry.version for entry in function.opset_import}
        yield from unknown_operators(function.node, functions, own, geometry)
        yield from _names(function.node, list(function.input), function.name)
    nodes = _expanded(model, functions)
    if nodes is None or nodes > _MOST_NODES:
        yield "its functions call each other" if nodes is None else f"its functions make {shown(nodes)} nodes of it"
    known = [value.name for value in model.graph.input] + [tensor.name for tensor in model.graph.initializer]
    yield from _names(model.graph.node, known, "the graph")
    yield from _tensors(model, manifest, folder)
    yield from _sizes(model)
    made = {name for node in model.graph.node for name in node.output}
    selection = () if manifest.pruning is None else (manifest.pruning.importance, manifest.pruning.keep)
    if not made.issuperset(selection):
        yield f"it makes no {shown(next(name for name in selection if name not in made))}"
    if not made.issuperset(manifest.output_names):
        yield "it makes not all of its outputs"
    yield from _boundary("input", model.graph.input, manifest.inputs)
    yield from _boundary("output", model.graph.output, manifest.outputs)


def _expanded(model: onnx.ModelProto, functions: Mapping[_Key, onnx.FunctionProto]) -> int | None:
    """Returns how many nodes there are once functions are taken in; None where one calls itself in the end."""
    sizes: dict[_Key, int] = {}
    waiting: set[_Key] = set()

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(sizes.get((node.domain, node.op_type), 1) for node in nodes)

    pending = list(functions)
    while pending:
        key = pending[-1]
        inner = {(node.domain, node.op_type) for node in functions[key].node} & functions.keys()
        missing = [other for other in inner if other not in sizes]
        if key in sizes or not missing:
            sizes.setdefault(key, size(functions[key].node))
            waiting.discard(pending.pop())
        elif key in waiting:
            return None
        else:
            waiting.add(key)
            pending += missing
    return size(model.graph.node)


def _names(nodes: Iterable[onnx.NodeProto], known: list[str], where: str) -> Iterator[str]:
    """Yields values that two things make, and values that are read before they are made."""
    made = set(known)
    if len(made) != len(known):
        twice = next(name for name in known if known.count(name) > 1)
        yield f"{shown(twice)} is made twice in {where}"
    for node in nodes:
        unknown = next((name for name in node.input if name and name not in made), None)
        if unknown is not None:
            yield f"{node.op_type} in {where} reads {shown(unknown)}, which nothing before it makes"
        for name in filter(None, node.output):
            if name in made:
                yield f"{shown(name)} is made twice in {where}"
            made.add(name)


def _tensors(model: onnx.ModelProto, manifest: Manifest, folder: Path) -> Iterator[str]:
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    lengths = {name: (folder / name).stat().st_size for name in manifest.files if (folder / name).is_file()}
    held, said = sum(lengths.values()), manifest.model.parameters
    if said * _BYTES[manifest.dtype] > 2 * held + _MORE:
        yield f"its manifest says {shown(said)} parameters, and its files hold {held} bytes"
    for tensor in _get_all_tensors(model):
        widths = _elements().get(tensor.data_type)
        if widths is None or min(tensor.dims, default=0) < 0 or tensor.HasField("segment"):
            yield f"{shown(tensor.name)} has elements of type {tensor.data_type} and sizes {shown(list(tensor.dims))}"
            continue
        bits, field = widths
        numbers = math.prod(tensor.dims)
        if uses_external_data(tensor):
            yield from _place(tensor, (numbers * bits + 7) // 8, lengths)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != (numbers * bits + 7) // 8:
                yield f"{shown(tensor.name)} has {len(tensor.raw_data)} bytes for {shown(numbers)} numbers"
        elif len(getattr(tensor, field)) not in (numbers, (numbers * bits + 7) // 8):
            yield f"{shown(tensor.name)} has {len(getattr(tensor, field))} values for {shown(numbers)} numbers"


def _place(tensor: onnx.TensorProto, size: int, lengths: Mapping[str, int]) -> Iterator[str]:
    """Yields what is wrong with where a tensor lies beside the graph."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name, offset, length = (entries.get(key) for key in ("location", "offset", "length"))
    if name is None or name not in lengths:
        yield f"it keeps weights in {shown(name)}, which its manifest does not list"
        return
    if not all(
        value is None or (value.isascii() and value.isdigit() and len(value) < 20) for value in (offset, length)
    ):
        yield f"{shown(tensor.name)} lies at {shown(offset)}, {shown(length)} bytes long"
        return
    begins, held = int(offset or 0), int(length) if length is not None else size
    if held != size or begins + held > lengths[name]:
        yield f"{shown(tensor.name)} takes {size} bytes; {held} from {begins} on are not all in {name}"


def _elements() -> dict[int, tuple[int, str]]:
    """Returns element types to their bits, and to the field that holds values which are no bytes."""
    from onnx import TensorProto

    of = "int32_data"
    return {
        TensorProto.FLOAT: (32, "float_data"),
        TensorProto.DOUBLE: (64, "double_data"),
        TensorProto.FLOAT16: (16, of),
        TensorProto.BFLOAT16: (16, of),
        TensorProto.INT8: (8, of),
        TensorProto.UINT8: (8, of),
        TensorProto.INT16: (16, of),
        TensorProto.UINT16: (16, of),
        TensorProto.INT32: (32, of),
        TensorProto.BOOL: (8, of),
        TensorProto.INT64: (64, "int64_data"),
        TensorProto.UINT32: (32, "uint64_data"),
        TensorProto.UINT64: (64, "uint64_data"),
    }


def _sizes(model: onnx.ModelProto) -> Iterator[str]:
    """Yields tensors that constants of the graph ask for, and that no machine holds."""
    import onnx

    small = {tensor.name: tensor for tensor in model.graph.initializer if math.prod(tensor.dims) <= 8}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            small[node.output[0]] = node.attribute[0].t
        for place in _SIZED_BY.get(node.op_type, ()):
            tensor = small.get(node.input[place]) if place < len(node.input) else None
            if tensor is None or tensor.external_data:
                continue
            sizes = [int(size) for size in onnx.numpy_helper.to_array(tensor).ravel().tolist() if size > 1]
            if math.prod(sizes) > _MOST_NUMBERS:
                yield f"{node.op_type} makes a tensor of {shown(math.prod(sizes))} numbers"


def _boundary(what: str, found: Iterable[onnx.ValueInfoProto], said: tuple[TensorInfo, ...]) -> Iterator[str]:
    """Yields what differs between the graph's inputs or outputs and those of the manifest."""
    import onnx

    values = list(found)
    if [value.name for value in values] != [tensor.name for tensor in said]:
        yield f"its {what}s are {shown([v.name for v in values])}; its manifest says {[t.name for t in said]}"
        return
    for value, tensor in zip(values, said, strict=True):
        kind = value.type.tensor_type
        known = kind.elem_type in onnx.helper.get_all_tensor_dtypes()
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if known and kind.elem_type else "nothing"
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        agree = len(sizes) == len(tensor.shape) and all(
            size is None or isinstance(wanted, str) or size == wanted
            for size, wanted in zip(sizes, tensor.shape, strict=True)
        )
        if dtype != tensor.dtype or (kind.HasField("shape") and not agree):
            expected = f"{tensor.dtype} {list(tensor.shape)}"
            yield f"{what} {value.name} is {dtype} {shown(sizes)}; its manifest says {expected}"
