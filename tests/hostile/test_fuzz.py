"""Manifests and graphs that hypothesis changes anywhere are refused by an error of ours, or mean what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.graph_check import check_graph
from sait_deploy.artifacts.manifest_document import as_dict, from_json
from sait_deploy.errors import ArtifactError
from tests.hostile.mutations import changed_documents, changed_graphs
from tests.hostile.world import ADAPTIVE

FUZZED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def said(value: Any) -> Any:
    """What of a document says something: empty parts do not, numbers are numbers, half a surrogate pair is unknown."""
    if isinstance(value, dict):
        return {key: said(inner) for key, inner in value.items() if inner not in (None, [], (), {})}
    if isinstance(value, list | tuple):
        return [said(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_manifests(world: Path) -> None:
    right = json.loads((world / ADAPTIVE / "manifest.json").read_text(encoding="utf-8"))

    @FUZZED
    @given(changed_documents(right))
    def refused_or_as_it_says(document: dict[str, object]) -> None:
        try:
            manifest = from_json(json.dumps(document))
        except ArtifactError:
            return
        assert said(as_dict(manifest)) == said(document)

    refused_or_as_it_says()


def test_graphs(world: Path) -> None:
    manifest = from_json((world / ADAPTIVE / "manifest.json").read_text(encoding="utf-8"))
    right = onnx.load(str(world / ADAPTIVE / "model.onnx"))

    @FUZZED
    @given(changed_graphs(right))
    def refused_or_of_the_same_inputs(model: onnx.ModelProto) -> None:
        read = onnx.load_model_from_string(model.SerializeToString())
        try:
            check_graph(read, manifest, world / ADAPTIVE)
        except ArtifactError:
            return
        assert [value.name for value in read.graph.output] == list(manifest.output_names)

    refused_or_of_the_same_inputs()


def test_truncated_graphs(world: Path) -> None:
    """Bytes cut off, turned over or put elsewhere."""
    from sait_deploy.artifacts.folder import Artifact, _check_graph

    artifact = Artifact(world / ADAPTIVE, from_json((world / ADAPTIVE / "manifest.json").read_text(encoding="utf-8")))
    right = artifact.model_path.read_bytes()

    @FUZZED
    @given(st.integers(0, len(right)), st.integers(0, 300), st.binary(max_size=4))
    def refused_or_right(start: int, length: int, instead: bytes) -> None:
        try:
            _check_graph(artifact, right[:start] + instead + right[start + length :])
        except ArtifactError:
            return

    refused_or_right()
