"""A traced graph → the file of an artifact: functions attached, names given, metadata written."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from sait_deploy import __version__
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.light import LARGEST_PROTOBUF
from sait_deploy.exporters.names import IMPORTANCE, KEEP
from sait_deploy.exporters.older_opset import TRACED, lower_to_oldest
from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.mass_token_select.spec import SPEC as MASS_TOKEN_SELECT
from sait_deploy.plugins.spec import DOMAIN, DOMAIN_VERSION
from sait_deploy.system.option_values import check_options

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Where torch writes the modules that a node is in: a list in Python's own spelling, the node's own name last."""

_BLOCK: Final = re.compile(r"blocks\.\d+")
_BEFORE_BLOCKS: Final = "embedding"


class OperatorForm(StrEnum):
    """How ``ai.sait`` operators stand in the file."""

    FUNCTION = "function"
    """A node each, its standard operators as a model-local function."""

    INLINE = "inline"
    """Their standard operators in place, for runtimes without model-local functions."""


@dataclass(frozen=True, slots=True)
class FinishOptions:
    """How a graph is finished."""

    opset: int
    operators: OperatorForm
    metadata: Mapping[str, str]

    def __post_init__(self) -> None:
        check_options(self)


def finish(model: ir.Model, options: FinishOptions) -> ir.Model:
    """Attaches or inlines the operators' functions, names the selection's tensors and writes metadata, in place.

    Raises:
        InvalidArgument: an operator of the graph has no form at the opset.
    """
    _name_selection(model)
    attach_functions(model, max(options.opset, TRACED))
    if options.operators is OperatorForm.INLINE and model.functions:
        InlinePass()(model)
        # ONNX Runtime's symbolic shape inference reads no constant whose value is not a tensor.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        model.opset_imports.pop(DOMAIN, None)
    if options.opset < TRACED:
        lower_to_oldest(model)
    model.metadata_props.update(options.metadata)
    model.producer_name, model.producer_version = "sait-deploy", __version__
    _name_nodes(model)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    return model


def _name_nodes(model: ir.Model) -> None:
    """Names each node after its module, ``blocks.3.mlp.fc1/Gemm_97``, or where it is of none after its block.

    Profilers and error messages of runtimes show these names.
    """
    block = _BEFORE_BLOCKS
    for number, node in enumerate(model.graph):
        told = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))[:-1]
        scopes = [scope for scope in told if scope and not scope.startswith("_")]
        module = scopes[-1].removeprefix("vit.") if scopes else ""
        if module:
            found = _BLOCK.search(module)
            block = found[0] if found else module
        node.name = f"{module or block}/{node.op_type}_{number}"


def save(model: ir.Model, path: Path) -> list[str]:
    """Writes a model and returns the names of the files written, the ONNX file first."""
    size = sum(t.const_value.nbytes for t in model.graph.initializers.values() if t.const_value is not None)
    if size <= LARGEST_PROTOBUF:
        ir.save(model, path)
        return [path.name]
    weights = path.name + ".data"
    ir.save(model, path, external_data=weights)
    return [path.name, weights]


def attach_functions(model: ir.Model, opset: int, native: Collection[str] = ()) -> None:
    """Gives a model the function of each ``ai.sait`` operator it uses, in the element type it uses it with.

    Args:
        model: changed in place.
        opset: its version of the standard operators.
        native: operators that the runtime has itself, which get no function.

    Raises:
        ArtifactError: the model uses an operator that this version does not have.
    """
    used = {node.op_type: node.inputs[0] for node in model.graph if node.domain == DOMAIN}
    for name, first in sorted(used.items()):
        if name in native:
            continue
        if name not in OPERATORS:
            raise ArtifactError(
                f"the graph uses {DOMAIN}.{name}, which this version does not have", "install a newer sait-deploy"
            )
        body = OPERATORS[name].function(opset)
        assert first is not None and first.dtype is not None
        _fix_types(body, first.dtype)
        function = ir.serde.deserialize_function(body)
        model.functions[function.identifier()] = function
    if used:
        model.opset_imports[DOMAIN] = DOMAIN_VERSION


def _fix_types(function: onnx.FunctionProto, dtype: ir.DataType) -> None:
    """Turns casts to another tensor's type into casts to the model's type, which runtimes fold when they load."""
    for node in function.node:
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            del node.input[1]
            node.attribute.append(onnx.helper.make_attribute("to", int(dtype)))


def _name_selection(model: ir.Model) -> None:
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == MASS_TOKEN_SELECT.name:
            importance = node.inputs[0]
            assert importance is not None
            importance.name = IMPORTANCE
            node.outputs[0].name = KEEP
