"""What graphs may be: whatever export and quantize write, and nothing that hangs or outgrows a machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph_check import check_graph
from sait_deploy.artifacts.graph_operators import COMMON, COMMON_FROM
from sait_deploy.errors import ArtifactError
from sait_deploy.runtime.onnxruntime_cuda import lowered
from tests.exported import TinyExport
from tests.hostile.graphs import EDITS, ONLY_RUN
from tests.hostile.nodes import NODES, UNLOWERED

_LEFT_TO_RUNTIMES = (*ONLY_RUN, "attribute-of-another-kind")


def checked(artifact: Artifact, model: onnx.ModelProto) -> None:
    check_graph(model, artifact.manifest, artifact.path)


def test_exported_graphs_pass(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.dense, tiny.half, tiny_adaptive):
        checked(artifact, onnx.load(str(artifact.model_path)))


def test_common_operators_are_those_of_the_standard_that_exports_write(
    tiny: TinyExport, tiny_adaptive: Artifact
) -> None:
    for name in COMMON:
        assert onnx.defs.has(name, max_inclusive_version=COMMON_FROM, domain="")
    for artifact in (tiny.dense, tiny.half, tiny_adaptive):
        model = onnx.load(str(artifact.model_path))
        nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
        assert {node.op_type for node in nodes if node.domain == ""} <= COMMON


@pytest.mark.parametrize("name", sorted(EDITS | NODES))
def test_a_graph_that_no_export_makes_is_refused(name: str, tiny_adaptive: Artifact) -> None:
    model = onnx.load(str(tiny_adaptive.model_path))
    (EDITS | NODES)[name](model)
    if name in _LEFT_TO_RUNTIMES:
        checked(tiny_adaptive, model)
        return
    with pytest.raises(ArtifactError, match="cannot be used"):
        checked(tiny_adaptive, model)


@pytest.mark.parametrize("name", sorted(UNLOWERED))
def test_what_lowerings_alone_read_is_left_to_them(name: str, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_adaptive.model_path))
    UNLOWERED[name](model)
    checked(tiny_adaptive, model)
    copied = Artifact(Path(shutil.copytree(tiny_adaptive.path, tmp_path / "copy")), tiny_adaptive.manifest)
    onnx.save(model, str(copied.model_path))
    if name.endswith("-name") or name.endswith("-names"):
        assert lowered(copied).graph.node
        return
    with pytest.raises(ArtifactError, match="is not one that exports write"):
        lowered(copied)
