"""Turns an operator's spec and its body text into the ONNX objects that exporters and checkers want."""

from __future__ import annotations

from typing import Final

import onnx
import onnx.defs
import onnx.parser

from sait_deploy.plugins.spec import DOMAIN, DOMAIN_VERSION, ElementType, OperatorSpec, TensorSpec

_ACTIVATION_TYPES: Final = ("tensor(float)", "tensor(float16)")


def operator_schema(spec: OperatorSpec) -> onnx.defs.OpSchema:
    """Returns the schema under which a node of this operator is checked and traced."""
    schema = onnx.defs.OpSchema
    return schema(
        spec.name,
        DOMAIN,
        DOMAIN_VERSION,
        doc=spec.doc,
        inputs=[schema.FormalParameter(t.name, _type_string(t)) for t in spec.inputs],
        outputs=[schema.FormalParameter(t.name, _type_string(t)) for t in spec.outputs],
        type_constraints=[(ElementType.ACTIVATION.value, list(_ACTIVATION_TYPES), "float32 or float16")]
        if any(t.element_type is ElementType.ACTIVATION for t in spec.inputs)
        else [],
        attributes=[
            schema.Attribute(a.name, getattr(schema.AttrType, a.kind.value), "", required=True) for a in spec.attributes
        ],
    )


def _type_string(tensor: TensorSpec) -> str:
    kind = tensor.element_type
    return kind.value if kind is ElementType.ACTIVATION else f"tensor({kind})"


def operator_function(spec: OperatorSpec, body: str, opset: int) -> onnx.FunctionProto:
    """Returns the operator as a model-local function.

    Args:
        spec: the operator.
        body: its nodes in ONNX text form, between braces; attributes are read as ``@name``.
        opset: the version of the standard operators that the model around it imports; a function that imports
            another one is rejected by ``onnx.checker``.
    """
    attributes = ", ".join(attribute.name for attribute in spec.attributes)
    inputs = ", ".join(t.name for t in spec.inputs)
    outputs = ", ".join(t.name for t in spec.outputs)
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{spec.name} {f'<{attributes}>' if attributes else ''} ({inputs}) => ({outputs}) {{\n{body}\n}}"
    )
    function = onnx.parser.parse_function(text)
    function.doc_string = spec.doc
    return function
