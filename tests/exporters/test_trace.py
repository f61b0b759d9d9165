"""Tracing: one graph for every batch, the project's operators as nodes, and nothing printed."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.exporters.trace import TRACED_BATCH, trace
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.tokens import Score
from tests.exporters.graphs import DEPTH, OPSET, PRUNING, SELECTION, finished, kinds, nodes, run, vit_named
from tests.tiny import family, images_for, random_batch, relative_difference, small_vit

BATCHES = (1, 2, 3, 5, 16)


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("pruning", [None, PRUNING])
def test_inputs_and_outputs(pruning: FixedPruning | None) -> None:
    graph = finished(pruning=pruning).graph
    (images,) = graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shape(images) == ["batch", 3, 32, 32]
    found = {output.name: (output.type.tensor_type.elem_type, shape(output)) for output in graph.output}
    expected: dict[str, tuple[int, list[int | str]]] = {"logits": (onnx.TensorProto.FLOAT, ["batch", 10])}
    if pruning is not None:
        expected["counts"] = (onnx.TensorProto.INT32, ["batch"])
    assert found == expected


@pytest.mark.parametrize("pruning", [None, PRUNING])
@pytest.mark.parametrize("name", ["plain", "siglip", "dinov2-registers-swiglu"])
def test_any_batch_gives_what_torch_gives(name: str, pruning: FixedPruning | None) -> None:
    vit, model = vit_named(name), finished(name, pruning)
    module = PrunableViT(vit, pruning)
    assert TRACED_BATCH not in (1, 3, 5, 16)
    for batch in BATCHES:
        images = images_for(vit, batch, seed=batch)
        found = run(model, images.numpy())
        with torch.no_grad():
            traced = module.trace(images)
        assert relative_difference(torch.from_numpy(found["logits"]), traced.logits) < 1e-4, batch
        if traced.counts is not None:
            assert found["counts"].tolist() == traced.counts.tolist()


def test_an_image_need_not_be_square() -> None:
    images = images_for(family("wide-image"), 3)
    found = run(finished("wide-image"), images.numpy())
    with torch.no_grad():
        logits, _ = PrunableViT(family("wide-image"), PRUNING)(images)
    assert relative_difference(torch.from_numpy(found["logits"]), logits) < 1e-4


@pytest.mark.parametrize("pruning", [PRUNING, FixedPruning(Score.CLS, 0, 5)])
def test_the_selection_of_the_graph_is_that_of_torch(pruning: FixedPruning) -> None:
    images = images_for(vit_named("plain"), 5)
    found = run(finished(pruning=pruning), images.numpy(), SELECTION)
    with torch.no_grad():
        traced = PrunableViT(vit_named("plain"), pruning).trace(images)
    assert traced.importance is not None and traced.keep is not None
    np.testing.assert_allclose(found["importance"], traced.importance.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["keep"], traced.keep.numpy())


def test_half_precision_has_float32_at_its_boundary() -> None:
    model = finished(precision=Precision.FP16)
    images = images_for(vit_named("plain"), 3)
    found = run(model, images.numpy(), SELECTION)
    assert {name: array.dtype for name, array in found.items()} == {
        "logits": np.float32,
        "counts": np.int32,
        "importance": np.float32,
        "keep": np.int32,
    }
    with torch.no_grad():
        reference = PrunableViT(vit_named("plain"), PRUNING).trace(images, keep=torch.from_numpy(found["keep"]))
    assert relative_difference(torch.from_numpy(found["logits"]), reference.logits) < 2e-2
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer if ".fc1." in tensor.name}
    assert set(weights.values()) == {onnx.TensorProto.FLOAT16}


def test_operators_are_nodes_with_their_attributes() -> None:
    for name in ("plain", "dinov2-registers-swiglu", "siglip"):
        model = finished(name)
        (select,), (pack,) = nodes(model, "MassTokenSelect"), nodes(model, "PackRows")
        assert select.domain == pack.domain == "ai.sait"
        attributes = {attribute.name: attribute.i for attribute in select.attribute}
        assert attributes == {"prefix": vit_named(name).num_prefix_tokens}
        assert len(select.input) == 3 and len(select.output) == 2
        assert list(pack.input) == list(select.output)
        assert not pack.attribute


@pytest.mark.parametrize("pruning", [None, PRUNING])
@pytest.mark.parametrize("name", ["plain", "dinov2-registers-swiglu", "siglip"])
def test_every_block_attends_by_one_node(name: str, pruning: FixedPruning | None) -> None:
    model, vit = finished(name, pruning), vit_named(name)
    found = nodes(model, "UniformAttention")
    assert len(found) == len(vit.blocks)
    for node, block in zip(found, vit.blocks, strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == pytest.approx({"num_heads": block.attn.num_heads, "scale": block.attn.scale})
        assert len(node.input) == 3 and len(node.output) == 2
    used = [name for node in model.graph.node for name in node.input]
    read = [node for node in found if node.output[1] in used]
    assert read == ([] if pruning is None else [found[pruning.prune_at]])
    stem = len(found) if pruning is None else pruning.prune_at + 1
    plans = [tuple(node.input[1:]) for node in found]
    assert len(set(plans[:stem])) == 1
    assert len(set(plans[stem:])) == (stem < len(found))
    assert not set(plans[:stem]) & set(plans[stem:])


def test_gelu_is_one_node_from_opset_20_on() -> None:
    assert kinds(finished(opset=20))["Gelu"] == DEPTH
    assert kinds(finished(opset=18))["Gelu"] == 0


def test_tracing_prints_nothing_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    vit = small_vit(depth=1)
    weights = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(PrunableViT(vit, FixedPruning(Score.MEAN, 0, 4)), (3, 32, 32), ["logits", "counts"], OPSET)
    assert capfd.readouterr() == ("", "")
    assert [logger.level for logger in loggers] == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vit.state_dict().items())
    assert all(parameter.grad is None for parameter in vit.parameters())


class Untraceable(nn.Module):
    """Asks for a value while it is traced."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images * int(images.sum().item() > 3),) if images.sum() > 0 else (images,)


def test_a_failure_is_raised_and_puts_loggers_back() -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with pytest.raises(Exception, match=r"."):
        trace(Untraceable(), (3, 8, 8), ["out"], OPSET)
    assert logger.level == before


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    model, images = finished(), random_batch((4, 3, 32, 32))
    together = run(model, images)["logits"]
    alone = np.concatenate([run(model, images[i : i + 1])["logits"] for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
