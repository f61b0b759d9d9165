"""What exporters are given: function bodies, schemas, and torch operators that can be traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import pytest
import torch
from onnx import TensorProto, helper

from sait_deploy.plugins import OPERATORS, Operator
from sait_deploy.plugins.mass_token_select.reference import mass_token_select as select_in_numpy
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.onnx_form import operator_function, operator_schema
from sait_deploy.plugins.pack_rows.reference import pack_rows as pack_in_numpy
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.plugins.spec import TORCH_NAMESPACE, OperatorSpec
from tests.plugins.forms import DOMAIN, ONNX_FORMS, Form, assert_same_bits, model_of, pack_node, runner, select_node
from tests.plugins.packing_forms import (
    PACK_PLAN,
    PACKED_ATTENTION,
    READ_EXTENTS,
    UNIFORM_ATTENTION,
    Activation,
    operator_model,
)

OPSETS = range(18, 25)
PATCHES = 5
SELECT_SPEC, PACK_SPEC = OPERATORS["MassTokenSelect"].spec, OPERATORS["PackRows"].spec
SPECS = [operator.spec for operator in OPERATORS.values()]


def _feeds() -> dict[str, Any]:
    importance = np.array([[0.1, 0.4, 0.1, 0.3, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2], [0, 0, 0, 0, 1]], dtype=np.float32)
    limits = np.array([[1, 5], [0, 2], [3, 5]], dtype=np.int32)
    return {"importance": importance, "mass": np.array([0.6, 0.9, 0.5], dtype=np.float32), "keep_limits": limits}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("form", ONNX_FORMS)
def test_both_operators_run_in_one_model_at_every_opset(form: Form, opset: int) -> None:
    model = model_of([select_node(prefix=2), pack_node()], opset)
    keep, counts = select_in_numpy(**_feeds(), prefix=2)
    wanted = (keep, counts, *pack_in_numpy(keep, counts))
    names = ("keep", "counts", "rows", "cu_seqlens")
    for name, got, want in zip(names, runner(form, model)(_feeds()), wanted, strict=True):
        assert_same_bits(f"{name}, {form}, opset {opset}", got, want)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_parts_of_an_operators_folder_agree(name: str) -> None:
    operator = OPERATORS[name]
    schema, spec = operator.torch_operator._opoverload._schema, operator.spec
    assert (spec.name, schema.name.partition("::")[0]) == (name, TORCH_NAMESPACE)
    assert [argument.name for argument in schema.arguments] == [part.name for part in (*spec.inputs, *spec.attributes)]
    assert len(schema.returns) == len(spec.outputs)
    assert operator.reference.__module__ == f"{operator.package}.reference"


def test_the_static_operators_can_be_tensorrt_plugins() -> None:
    plugins = {name for name, operator in OPERATORS.items() if operator.has_tensorrt_plugin}
    assert {"MassTokenSelect", "PackRows"} <= plugins and "PackedAttention" not in plugins


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_function_body_uses_standard_operators_alone(name: str, opset: int) -> None:
    function = OPERATORS[name].function(opset)
    assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", opset)]
    assert {node.domain for node in function.node} <= {"", "ai.onnx"}
    for node in function.node:
        assert onnx.defs.has(node.op_type, ""), node.op_type


def test_a_function_for_another_opset_than_its_model_is_rejected() -> None:
    with pytest.raises(onnx.checker.ValidationError):
        model_of([pack_node()], opset=20, functions=[OPERATORS["PackRows"].function(21)])


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_each_node_of_a_model_has_its_own_prefix(form: Form) -> None:
    nodes = [select_node(("keep_a", "counts_a"), prefix=1), select_node(("keep_b", "counts_b"), prefix=4)]
    keep_a, counts_a, keep_b, counts_b = runner(form, model_of(nodes))(_feeds())
    assert (keep_a.shape[1], keep_b.shape[1]) == (1 + PATCHES, 4 + PATCHES)
    assert np.array_equal(keep_a[:, 1:], keep_b[:, 4:])
    assert np.array_equal(counts_b - counts_a, [3, 3, 3])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_attribute_is_required(name: str) -> None:
    """Not every tool applies a function's default, so there is none: schema and function both ask for the attribute."""
    schema, function = operator_schema(OPERATORS[name].spec), OPERATORS[name].function(20)
    assert all(attribute.required for attribute in schema.attributes.values())
    assert sorted(function.attribute) == sorted(schema.attributes)
    assert not function.attribute_proto


_PLAN = [("slots", "tensor(int32)"), ("unslots", "tensor(int32)"), ("mask", "tensor(bool)")]
_HEADS = [("num_heads", "INT"), ("scale", "FLOAT")]


@pytest.mark.parametrize(
    ("spec", "name", "inputs", "outputs", "attributes"),
    [
        (
            SELECT_SPEC,
            "MassTokenSelect",
            [("importance", "tensor(float)"), ("mass", "tensor(float)"), ("keep_limits", "tensor(int32)")],
            [("keep", "tensor(int32)"), ("counts", "tensor(int32)")],
            [("prefix", "INT")],
        ),
        (
            PACK_SPEC,
            "PackRows",
            [("keep", "tensor(int32)"), ("counts", "tensor(int32)")],
            [("rows", "tensor(int32)"), ("cu_seqlens", "tensor(int32)")],
            [],
        ),
        (
            READ_EXTENTS.spec,
            "ReadExtents",
            [("rows", "tensor(int32)"), ("cu_seqlens", "tensor(int32)")],
            [("kept", "tensor(int32)"), ("lanes", "tensor(int32)")],
            [],
        ),
        (
            PACK_PLAN.spec,
            "PackPlan",
            [("kept", "tensor(int32)"), ("cu_seqlens", "tensor(int32)"), ("lanes", "tensor(int32)")],
            _PLAN,
            [],
        ),
        (PACKED_ATTENTION.spec, "PackedAttention", [("qkv", "T"), *_PLAN], [("output", "T")], _HEADS),
        (
            UNIFORM_ATTENTION.spec,
            "UniformAttention",
            [("qkv", "T"), *_PLAN[:2]],
            [("output", "T"), ("weights", "tensor(float)")],
            _HEADS,
        ),
    ],
    ids=list(OPERATORS),
)
def test_schema_and_function_have_the_specified_interface(
    spec: OperatorSpec,
    name: str,
    inputs: list[tuple[str, str]],
    outputs: list[tuple[str, str]],
    attributes: list[tuple[str, str]],
) -> None:
    schema = operator_schema(spec)
    assert (schema.domain, schema.name, schema.since_version) == ("ai.sait", name, 1)
    assert [(formal.name, formal.type_str) for formal in schema.inputs] == inputs
    assert [(formal.name, formal.type_str) for formal in schema.outputs] == outputs
    kinds = {attribute: getattr(onnx.defs.OpSchema.AttrType, kind) for attribute, kind in attributes}
    assert {attribute.name: attribute.type for attribute in schema.attributes.values()} == kinds
    constrained = {entry.type_param_str: set(entry.allowed_type_strs) for entry in schema.type_constraints}
    activations = {"T": {"tensor(float)", "tensor(float16)"}}
    assert constrained == (activations if ("qkv", "T") in inputs else {})
    assert [(attribute.name, attribute.kind) for attribute in spec.attributes] == attributes
    function = OPERATORS[name].function(20)
    assert (function.domain, function.name) == ("ai.sait", name)
    assert list(function.input) == [formal for formal, _ in inputs]
    assert list(function.output) == [formal for formal, _ in outputs]
    assert list(function.attribute) == [attribute for attribute, _ in attributes]
    assert function.doc_string == schema.doc


@pytest.fixture
def registered_schemas() -> Iterator[None]:
    for spec in SPECS:
        onnx.defs.register_schema(operator_schema(spec))
    yield
    for spec in SPECS:
        onnx.defs.deregister_schema(spec.name, 1, DOMAIN)


@pytest.mark.usefixtures("registered_schemas")
def test_with_its_schema_registered_a_misspelt_node_is_rejected() -> None:
    model_of([select_node(prefix=1), pack_node()])
    for misspelt in (select_node(prefixes=1), select_node(prefix="1")):
        with pytest.raises(onnx.checker.ValidationError):
            model_of([misspelt])
    two_inputs = helper.make_node("MassTokenSelect", ["importance", "mass"], ["keep", "counts"], domain=DOMAIN)
    with pytest.raises(onnx.checker.ValidationError):
        model_of([two_inputs])


@pytest.mark.usefixtures("registered_schemas")
@pytest.mark.parametrize("operator", [PACKED_ATTENTION, UNIFORM_ATTENTION], ids=lambda operator: operator.spec.name)
def test_with_its_schema_registered_an_attention_takes_float_and_float16_alone(operator: Operator) -> None:
    for activation in Activation:
        operator_model(operator, [(2, 0.5)], activation)
    for kind in (TensorProto.DOUBLE, TensorProto.INT32, TensorProto.BFLOAT16):
        model = operator_model(operator, [(2, 0.5)])
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.elem_type = kind
        with pytest.raises(onnx.shape_inference.InferenceError, match="qkv"):
            onnx.checker.check_model(model, full_check=True)
    for attributes in ((2, 1), (2.0, 0.5)):
        with pytest.raises(onnx.checker.ValidationError):
            operator_model(operator, [attributes])


def test_a_body_that_is_no_onnx_text_is_rejected() -> None:
    with pytest.raises(onnx.parser.ParseError):
        operator_function(PACK_SPEC, "rows = = Identity (keep)", 20)


def _tensors() -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in _feeds().values())


@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_torch_accepts_the_selection_as_an_operator(prefix: int, requires_grad: bool) -> None:
    importance, mass, keep_limits = _tensors()
    arguments = (importance.requires_grad_(requires_grad), mass, keep_limits, prefix)
    results = torch.library.opcheck(mass_token_select, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_torch_accepts_the_packing_as_an_operator() -> None:
    results = torch.library.opcheck(pack_rows, mass_token_select(*_tensors(), 1))
    assert set(results.values()) == {"SUCCESS"}
