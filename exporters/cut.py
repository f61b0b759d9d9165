"""The cut: an adaptive graph becomes a stem and a trunk, with the seam between them in the host's hands.

TensorRT cannot read a shape off a device tensor inside an engine. The graph is cut at ``ReadExtents``: the host reads
``cu_seqlens`` and hands the trunk ``kept`` and ``lanes`` as prefix views of buffers that are there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.light import put_weights_back, without_weights
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, IMPORTANCE, KEPT, LANES, ROWS, TOKENS
from sait_deploy.plugins.read_extents.spec import SPEC as READ_EXTENTS
from sait_deploy.plugins.spec import DOMAIN


@dataclass(frozen=True, slots=True)
class Parts:
    """The two graphs of a cut.

    Attributes:
        stem: from the images to ``tokens`` [B*(P+N), D], ``rows``, ``cu_seqlens``, ``guard`` and ``counts``.
        trunk: from ``tokens``, ``cu_seqlens``, ``kept`` [T], ``lanes`` [W] and ``guard`` to the rest of the outputs.
    """

    stem: onnx.ModelProto
    trunk: onnx.ModelProto


def cut(model: onnx.ModelProto) -> Parts:
    """Cuts an adaptive graph at its seam; the model given is left as it is.

    Raises:
        ArtifactError: the graph has no seam, as its operators were inlined, or a tensor would cross that is none of the
            seam's.
    """
    with G_LOGGER.suppress():  # it prints warnings with the file's own names to stdout
        parts = _cut(without_weights(model))
    for part in (parts.stem, parts.trunk):
        put_weights_back(part, model)
    return parts


def _cut(model: onnx.ModelProto) -> Parts:
    graph = gs.import_onnx(model)
    seam = [node for node in graph.nodes if node.domain == DOMAIN and node.op == READ_EXTENTS.name]
    if len(seam) != 1:
        raise ArtifactError(
            f"the graph has {len(seam)} {READ_EXTENTS.name} nodes to cut at, not 1", "export it without --inline"
        )
    trunk_nodes = _descendants(seam[0])
    stem_nodes = [node for node in graph.nodes if id(node) not in trunk_nodes and node is not seam[0]]
    _sink(stem_nodes, trunk_nodes, set(map(id, seam[0].inputs)))
    later = [node for node in graph.nodes if id(node) in trunk_nodes]
    earlier = [node for node in stem_nodes if id(node) not in trunk_nodes]
    _copy_chains(later, earlier, graph.inputs)
    crossing = _crossing(earlier, later)
    names = _named(seam[0], crossing)
    return _parts(model, graph, earlier, later, names)


def _descendants(node: gs.Node) -> dict[int, gs.Node]:
    found: dict[int, gs.Node] = {}
    pending = [reader for output in node.outputs for reader in output.outputs]
    while pending:
        reader = pending.pop()
        if id(reader) not in found:
            found[id(reader)] = reader
            pending += [further for output in reader.outputs for further in output.outputs]
    return found


def _sink(nodes: Sequence[gs.Node], trunk: dict[int, gs.Node], seam: set[int]) -> None:
    """Moves nodes into the trunk that compute from the seam's tensors alone and are read by the trunk alone.

    Nodes are visited from the last to the first, so that a whole chain of them moves.
    """
    from_seam = set(seam)
    for node in nodes:
        read = [tensor for tensor in node.inputs if not isinstance(tensor, gs.Constant) and not tensor.is_empty()]
        if read and all(id(tensor) in from_seam for tensor in read):
            from_seam |= set(map(id, node.outputs))
    for node in reversed(nodes):
        readers = [reader for output in node.outputs for reader in output.outputs]
        own = all(id(tensor) in from_seam for tensor in node.outputs) and bool(node.outputs)
        if own and readers and all(id(reader) in trunk for reader in readers):
            trunk[id(node)] = node


def _copy_chains(later: list[gs.Node], earlier: list[gs.Node], inputs: Sequence[gs.Tensor]) -> None:
    """Gives the trunk its own copy of nodes that depend on weights and the size of the batch alone.

    The stem reads the size off one of the graph's inputs, the copy in the trunk reads it off ``guard``.
    """
    guard = next((output for node in earlier for output in node.outputs if _is_guard(output)), None)
    repeated: dict[int, gs.Node] = {}
    for node in earlier:
        known = all(isinstance(t, gs.Constant) or t.is_empty() or id(t) in repeated for t in node.inputs)
        if known or (guard is not None and _is_batch(node, inputs)):
            repeated |= {id(output): node for output in node.outputs}
    copied: dict[int, gs.Variable] = {}

    def copy(tensor: gs.Tensor) -> gs.Tensor:
        if id(tensor) not in repeated:
            return tensor
        if id(tensor) not in copied:
            node = repeated[id(tensor)]
            outputs = [gs.Variable(f"{o.name}_copy", dtype=o.dtype, shape=o.shape) for o in node.outputs]
            copied.update({id(old): new for old, new in zip(node.outputs, outputs, strict=True)})
            own = gs.Node(node.op, f"{node.name}_copy", dict(node.attrs), domain=node.domain)
            own.inputs = [guard] if _is_batch(node, inputs) else [copy(part) for part in node.inputs]
            own.outputs = outputs
            copies.append(own)
        return copied[id(tensor)]

    copies: list[gs.Node] = []
    for node in later:
        node.inputs = [copy(tensor) for tensor in node.inputs]
    later[:0] = copies


def _is_batch(node: gs.Node, inputs: Sequence[gs.Tensor]) -> bool:
    """Whether a node reads the first extent off one of the graph's inputs."""
    first = (node.attrs.get("start", 0), node.attrs.get("end")) == (0, 1)
    return node.op == "Shape" and first and any(node.inputs[0] is tensor for tensor in inputs)


def _crossing(earlier: Iterable[gs.Node], later: Iterable[gs.Node]) -> list[gs.Tensor]:
    made = {id(output) for node in earlier for output in node.outputs}
    crossing = {id(tensor): tensor for node in later for tensor in node.inputs if id(tensor) in made}
    return list(crossing.values())


def _named(seam: gs.Node, crossing: Sequence[gs.Tensor]) -> dict[int, str]:
    """Returns the seam's name of each crossing tensor, by the tensor's identity.

    Raises:
        ArtifactError: a tensor has no place in the seam.
    """
    rows, cu_seqlens = seam.inputs
    names = {id(rows): ROWS, id(cu_seqlens): CU_SEQLENS}
    for tensor in crossing:
        if id(tensor) in names:
            continue
        if _is_guard(tensor):
            name = GUARD
        elif _is_gathered(tensor, seam.outputs[0]):
            name = TOKENS
        else:
            readers = ", ".join(f"{node.op} {node.name}" for node in tensor.outputs)
            raise ArtifactError(
                f"{tensor.name!r}, read by {readers}, would cross the seam, and has no place there",
                "export the model with this version of sait-deploy",
            )
        if name in names.values():
            raise ArtifactError(f"{tensor.name!r} would cross the seam as a second {name!r}", "export the model again")
        names[id(tensor)] = name
    return names


def _is_guard(tensor: gs.Tensor) -> bool:
    """Whether a tensor is importance times a constant."""
    product = tensor.inputs[0]
    parts = [maker for factor in product.inputs for maker in factor.inputs]
    return product.op == "Mul" and any(maker.op == "Slice" and maker.inputs[0].name == IMPORTANCE for maker in parts)


def _is_gathered(tensor: gs.Tensor, kept: gs.Tensor) -> bool:
    """Whether rows of a tensor are looked up by ``kept``, as it is or in another shape or type."""
    for reader in tensor.outputs:
        if reader.op != "Gather" or reader.inputs[0] is not tensor:
            continue
        index = reader.inputs[1]
        while index is not kept and index.inputs and index.inputs[0].op in ("Reshape", "Cast"):
            index = index.inputs[0].inputs[0]
        if index is kept:
            return True
    return False


def _parts(
    model: onnx.ModelProto, graph: gs.Graph, earlier: list[gs.Node], later: list[gs.Node], names: dict[int, str]
) -> Parts:
    tensors = {id(tensor): tensor for node in [*earlier, *later] for tensor in [*node.inputs, *node.outputs]}
    for identity, name in names.items():
        tensors[identity].name = name
    seam = next(node for node in graph.nodes if node.domain == DOMAIN and node.op == READ_EXTENTS.name)
    kept, lanes = seam.outputs
    kept.name, lanes.name = KEPT, LANES
    made = {id(output) for node in later for output in node.outputs}
    crossing = [tensors[identity] for identity in names]
    read = {id(tensor) for node in later for tensor in node.inputs}
    shapes = _seam_shapes(crossing, kept, lanes)
    for tensor, (dtype, shape) in shapes:
        tensor.dtype, tensor.shape = dtype, shape
    stem = _model(
        model, graph, earlier, graph.inputs, [*crossing, *(o for o in graph.outputs if id(o) not in made)], "stem"
    )
    kept.inputs.clear()
    lanes.inputs.clear()
    entering = [tensor for tensor in [*crossing, kept, lanes] if id(tensor) in read]
    for tensor in crossing:
        tensor.inputs.clear()
    trunk = _model(model, graph, later, entering, [o for o in graph.outputs if id(o) in made], "trunk")
    return Parts(stem, trunk)


def _seam_shapes(
    crossing: Sequence[gs.Tensor], kept: gs.Tensor, lanes: gs.Tensor
) -> list[tuple[gs.Tensor, tuple[type, list[str | int]]]]:
    """Returns types and shapes for the seam's tensors, in place of those with the whole graph's symbols."""
    shapes: dict[str, tuple[type, list[str | int]]] = {
        ROWS: (np.int32, ["batch_tokens"]),
        CU_SEQLENS: (np.int32, ["batch_and_1"]),
        GUARD: (np.float32, ["batch", 1]),
        KEPT: (np.int32, ["kept_tokens"]),
        LANES: (np.int32, ["longest"]),
    }
    found = []
    for tensor in [*crossing, kept, lanes]:
        found.append((tensor, shapes.get(tensor.name, (tensor.dtype, ["batch_tokens", (tensor.shape or [None])[-1]]))))
    return found


def _model(
    model: onnx.ModelProto,
    graph: gs.Graph,
    nodes: list[gs.Node],
    inputs: Sequence[gs.Tensor],
    outputs: Sequence[gs.Tensor],
    name: str,
) -> onnx.ModelProto:
    part = gs.Graph(
        nodes=nodes,
        inputs=list(inputs),
        outputs=list(outputs),
        name=name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        functions=graph.functions,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        ir_version=model.ir_version,
    )
    part.cleanup(remove_unused_graph_inputs=False)
    made: onnx.ModelProto = gs.export_onnx(part)
    used = {node.op_type for node in made.graph.node if node.domain == DOMAIN}
    functions = [function for function in made.functions if function.name in used]
    del made.functions[:]
    made.functions.extend(functions)
    made.metadata_props.extend(model.metadata_props)
    return made
