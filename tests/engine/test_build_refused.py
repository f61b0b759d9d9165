"""The build stage: what cannot be built is refused in a line, and the artifact stays as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import pytest
from onnx import numpy_helper

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.options import BatchRange, FusionChoice, PluginChoice, Portability
from sait_deploy.errors import ArtifactError, EngineError, InvalidArgument, SaitError
from sait_deploy.exporters.names import AttentionForm, EnginePrecision
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export
from tests.engine.cases import ONE_TARGET, asked, check_what_it_says, files_of
from tests.exported import TinyExport, copied, graph_of, with_graph
from tests.tiny import small_vit

pytestmark = pytest.mark.usefixtures("version")
BF16, FP16, FP32 = EnginePrecision.BF16, EnginePrecision.FP16, EnginePrecision.FP32
UNFUSED = FusionChoice.ALLOWED_UNFUSED


def refused(artifact: Artifact, kind: type[SaitError], **changes: Any) -> SaitError:
    before = files_of(artifact.path)
    with pytest.raises(kind) as caught:
        build_engine(artifact, asked(**changes))
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.hint
    assert files_of(artifact.path) == before
    return caught.value


def test_attention_without_a_fused_kernel_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    """Heads of 8."""
    (artifact,) = export(small_vit(depth=1, num_heads=4), ExportOptions(output=tmp_path), name="m")
    error = refused(artifact, EngineError)
    assert "no fused kernel" in error.message
    assert "--allow-unfused" in error.hint
    engine = build_engine(artifact, asked(fusion=UNFUSED))
    assert (engine.manifest.attention.form, engine.manifest.attention.fused) == (AttentionForm.DECOMPOSED, 0)


@pytest.mark.parametrize("form", ["dense", "adaptive"])
def test_an_artifact_whose_operators_were_inlined(request: pytest.FixtureRequest, form: str) -> None:
    artifact: Artifact = request.getfixturevalue(form)
    artifact = with_graph(artifact, onnx.inliner.inline_local_functions(graph_of(artifact)))
    assert "--inline" in refused(artifact, ArtifactError).hint


def test_a_weight_too_large_for_half_precision(dense: Artifact) -> None:
    model = graph_of(dense)
    weight = next(tensor for tensor in model.graph.initializer if "fc1.weight" in tensor.name)
    array = numpy_helper.to_array(weight).copy()
    array.flat[3] = 1e6
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    error = refused(with_graph(dense, model), ArtifactError)
    assert "fc1.weight" in error.message and "1e+06" in error.message
    assert "bf16" in error.hint


def with_patches(artifact: Artifact, patches: int) -> Artifact:
    model = artifact.manifest.model
    geometry = dataclasses.replace(model.geometry, patch_tokens=patches)
    manifest = dataclasses.replace(artifact.manifest, model=dataclasses.replace(model, geometry=geometry))
    return Artifact(artifact.path, manifest)


@pytest.mark.parametrize("plugin", PluginChoice)
def test_more_patch_tokens_than_topk_sorts(adaptive: Artifact, plugin: PluginChoice) -> None:
    error = refused(with_patches(adaptive, 3841), InvalidArgument, plugin=plugin)
    assert "3841 patch tokens" in error.message and "3840" in error.message
    assert "--imgsz" in error.hint


def test_a_dense_artifact_selects_nothing_and_may_have_any_number_of_tokens(dense: Artifact) -> None:
    assert build_engine(with_patches(dense, 5000), asked(batch=BatchRange(1, 1, 1))).manifest.selection is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": BatchRange(1, 8, 2**31 - 1)}, "more tokens than int32 counts"),
        ({"portability": frozenset({Portability.VERSIONS})}, "--version-compatible"),
        ({"portability": frozenset({Portability.HARDWARE})}, "--hardware-compatible"),
        ({"timing_cache": Path("cache")}, "--timing-cache"),
    ],
)
def test_what_the_builder_or_the_model_rules_out(adaptive: Artifact, changes: dict[str, Any], message: str) -> None:
    assert message in refused(adaptive, InvalidArgument, **changes).message


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dense", "density", "adaptive"])
def test_an_artifact_in_half_precision_builds_in_half_precision_alone(
    tiny_fp16: TinyExport, tiny_adaptive_fp16: Artifact, tmp_path: Path, form: str
) -> None:
    source = {"dense": tiny_fp16.dense, "density": tiny_fp16.half, "adaptive": tiny_adaptive_fp16}[form]
    assert source.manifest.dtype is Precision.FP16
    artifact = copied(source, tmp_path)
    for precision in (BF16, FP32):
        error = refused(artifact, InvalidArgument, precision=precision)
        assert f"has fp16 weights, and a {precision} engine was asked for" in error.message
        assert "--precision fp16" in error.hint
    engine = build_engine(artifact, ONE_TARGET)
    check_what_it_says(engine, artifact)
    depth = artifact.manifest.model.geometry.depth
    assert engine.manifest.attention.fused == (depth if form == "dense" else depth - 1)
    assert engine.manifest.precisions_got == ("float16",)
