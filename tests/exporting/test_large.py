"""Weights in a file beside the graph, as models of more than 2 GB have them, in everything that reads a graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.bench.options import Also, BenchOptions
from sait_deploy.bench.run import bench
from sait_deploy.engine.lowering import lower_parts
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, SelectionForm
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime import load
from tests.exported import POINTS
from tests.tiny import HALF

LARGE: Final = "SAIT_DEPLOY_TEST_LARGE"
FP16: Final = LowerOptions(EnginePrecision.FP16, AttentionForm.FUSED, SelectionForm.FUNCTION)


def check_runs(artifact: Artifact, runtime: str) -> None:
    opened = open_artifact(artifact.path)
    assert "model.onnx.data" in opened.manifest.files
    golden, runner = opened.golden(), load(opened, runtime)
    np.testing.assert_allclose(runner.run(golden.images).logits, golden.logits, rtol=1e-3, atol=1e-3)
    if opened.manifest.pruning is not None:
        np.testing.assert_array_equal(runner.select(golden.images).keep.sum(axis=1), golden.counts)


def test_whatever_reads_a_graph_reads_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sait_deploy.exporters.finish.LARGEST_PROTOBUF", 10_000)
    model = load_model("test_vit", WeightsRequest(WeightsSource.RANDOM), 96)
    artifacts = export_model(model, ExportOptions((HALF,), POINTS, output=tmp_path / "artifacts"))
    for artifact in artifacts:
        for runtime in ("onnxruntime", "openvino", "torch"):
            check_runs(artifact, runtime)
        folder = tmp_path / artifact.path.name
        folder.mkdir()
        for part in lower_parts(artifact, FP16, folder).values():
            assert part.path.with_name(f"{part.path.name}.data").stat().st_size > part.path.stat().st_size
    found = bench(artifacts[:2], BenchOptions((1,), duration=0.01, warmup=1, also=frozenset({Also.MEMORY})))
    assert not found.refusals and found.memory is not None and len(found.memory) == 2


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get(LARGE) != "1",
    reason=f"a model of 2.5 GB takes minutes, 16 GiB of memory and 8 GB of disk: set {LARGE}=1 to run it",
)
def test_a_model_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    model = load_model("vit_huge_patch14_224", WeightsRequest(WeightsSource.RANDOM))
    artifacts = export_model(model, ExportOptions((HALF,), output=tmp_path / "artifacts"))
    del model
    for artifact in artifacts:
        assert artifact.model_path.with_name("model.onnx.data").stat().st_size > 2**31
        assert artifact.model_path.stat().st_size < 2**26
        check_runs(artifact, "onnxruntime")
    parts = lower_parts(artifacts[-1], FP16, tmp_path)
    assert sum(part.path.with_name(f"{part.path.name}.data").stat().st_size for part in parts.values()) > 2**30
