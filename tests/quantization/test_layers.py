"""Which linear layers of a graph are found, which of them importance is read from, and what names match."""

from __future__ import annotations

import onnx
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.names import IMPORTANCE
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.quantization.layers import LinearLayer, linear_layers, named_layers, read_by
from sait_deploy.tokens import Score
from tests.exported import graph_of
from tests.exporters.graphs import finished

PARTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def layers_of(*names: str) -> tuple[LinearLayer, ...]:
    return tuple(LinearLayer(name, f"node_{name}", "x") for name in names)


def test_every_linear_layer_of_the_blocks_and_no_other(floats: list[Artifact]) -> None:
    for artifact in floats:
        depth = artifact.manifest.model.geometry.depth
        found = [layer.name for layer in linear_layers(graph_of(artifact))]
        assert found == [f"blocks.{block}.{part}" for block in range(depth) for part in PARTS]


@pytest.mark.parametrize("operators", OperatorForm)
@pytest.mark.parametrize("name", ["vit", "qk-norm", "beit3-inner-norms", "average-no-class-token"])
def test_importance_is_read_from_one_projection(name: str, operators: OperatorForm) -> None:
    model = finished(name, AdaptivePruning(Score.MEAN, 1), operators=operators)
    layers = linear_layers(model)
    assert [layer.name for layer in read_by(model, IMPORTANCE, layers)] == ["blocks.1.attn.qkv"]


def test_a_graph_without_blocks_is_refused() -> None:
    with pytest.raises(ArtifactError, match="no linear layer in a block"):
        linear_layers(onnx.ModelProto())


def test_names_and_patterns() -> None:
    layers = layers_of("blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.mlp.fc1", "blocks.10.mlp.fc1")
    assert named_layers(layers, ("blocks.1.*",)) == layers[2:3]
    assert named_layers(layers, ("*.fc1", "blocks.0.attn.qkv")) == layers
    assert named_layers(layers, ()) == ()
    with pytest.raises(InvalidArgument, match=r"called 'blocks\.2\.\*'") as caught:
        named_layers(layers, ("*.fc1", "blocks.2.*"))
    assert "blocks.0.attn.qkv" in caught.value.hint
