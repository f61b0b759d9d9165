"""Int8 artifacts in TensorRT: products stay quantised, attention fuses, and lowered graphs mean what the file means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks.float8_accuracy import in_float8
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.manifest import from_json
from sait_deploy.engine.options import EngineOptions
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.exporters.lower_cuda import fused_attention, lower_attention
from sait_deploy.exporters.lower_tensorrt import lower_tensorrt
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, QuantizedType, SelectionForm
from sait_deploy.runtime import load
from tests.engine.cases import TARGET, builder_version
from tests.exported import graph_of
from tests.exporters.graphs import kinds
from tests.exporters.parts import lowered
from tests.exporters.test_lower_tensorrt_meaning import difference, evaluated
from tests.exporting.exports import ONE_THREAD
from tests.quantization.conftest import copies
from tests.runtime.cases import GOOD


@pytest.mark.parametrize("precision", EnginePrecision)
def test_a_lowered_graph_means_what_the_file_means(quantised: list[Artifact], precision: EnginePrecision) -> None:
    """Where a value lies just between two int8 numbers, the low precision may round it to the other."""
    model = lowered(graph_of(quantised[0]), precision)
    info = quantised[0].manifest.quantization
    assert info is not None and kinds(model)["DequantizeLinear"] == 2 * len(info.quantized)
    expected = load(quantised[0], options=ONE_THREAD).run(GOOD).logits
    found = evaluated(model, {"images": GOOD})["logits"]
    assert difference(found, expected) < {"fp32": 1e-2, "fp16": 5e-2, "bf16": 1e-1}[precision]


def test_attention_fuses_on_cuda(quantised: list[Artifact], floats: list[Artifact]) -> None:
    for before, after in zip(floats, quantised, strict=True):
        assert fused_attention(lower_attention(graph_of(after))) == fused_attention(lower_attention(graph_of(before)))


def test_float8_answers_as_int8_does_but_for_its_coarser_steps(quantised: list[Artifact]) -> None:
    """E4M3 has steps of a sixteenth of a number, so that this is no test of accuracy, but of ranges and layouts."""
    graph = graph_of(quantised[0])
    options = (EnginePrecision.FP32, AttentionForm.DECOMPOSED, SelectionForm.FUNCTION)
    coarse = ir.serde.serialize_model(lower_tensorrt(graph, LowerOptions(*options, QuantizedType.FP8)))
    onnx.checker.check_model(coarse, full_check=True)
    types = {one.name: one.data_type for one in coarse.graph.initializer}
    assert onnx.TensorProto.INT8 not in types.values()
    assert kinds(coarse) == kinds(lowered(graph, EnginePrecision.FP32, AttentionForm.DECOMPOSED))
    expected = load(quantised[0], options=ONE_THREAD).run(GOOD).logits
    error = difference(evaluated(coarse, {"images": GOOD})["logits"], expected)
    assert 0 < error < 0.2


def test_float8_simulated_on_the_processor_is_the_graph_that_engines_are_built_of(
    quantised: list[Artifact], tmp_path: Path
) -> None:
    options = (EnginePrecision.FP32, AttentionForm.DECOMPOSED, SelectionForm.FUNCTION)
    lower = lower_tensorrt(graph_of(quantised[0]), LowerOptions(*options, QuantizedType.FP8))
    found = load(in_float8(quantised[0], tmp_path), options=ONE_THREAD).run(GOOD).logits
    assert difference(found, evaluated(ir.serde.serialize_model(lower), {"images": GOOD})["logits"]) < 1e-3
    assert difference(found, load(quantised[0], options=ONE_THREAD).run(GOOD).logits) > 1e-3


def test_what_is_not_int8_has_no_ranges_for_float8(floats: list[Artifact]) -> None:
    with pytest.raises(ArtifactError, match="no layer of the graph is int8"):
        lower_tensorrt(
            graph_of(floats[0]),
            LowerOptions(EnginePrecision.FP16, AttentionForm.FUSED, SelectionForm.FUNCTION, QuantizedType.FP8),
        )
    if builder_version():
        with pytest.raises(InvalidArgument, match="is no int8 artifact"):
            build_engine(floats[0], EngineOptions(targets=("sm89",), quantized=QuantizedType.FP8))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_engine_has_float8_products_and_fused_attention(
    quantised: list[Artifact], tmp_path: Path, place: int
) -> None:
    version = builder_version()
    (artifact,) = copies(tmp_path, quantised[place])
    engine = build_engine(artifact, EngineOptions(targets=("sm89", "sm120"), quantized=QuantizedType.FP8))
    assert engine.path.name == f"tensorrt-rtx-{version}-sm89+sm120-fp16-fp8"
    manifest = from_json((engine.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == engine.manifest and manifest.quantized is QuantizedType.FP8
    types = [part.network.precisions for part in manifest.parts]
    assert any(found.get("fp8", 0) for found in types) and not any(found.get("int8", 0) for found in types)
    assert manifest.attention.fused == manifest.attention.expected > 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_engine_has_int8_products_and_fused_attention(quantised: list[Artifact], tmp_path: Path, place: int) -> None:
    builder_version()
    (artifact,) = copies(tmp_path, quantised[place])
    manifest = build_engine(artifact, EngineOptions(targets=(TARGET,))).manifest
    info = artifact.manifest.quantization
    assert info is not None
    counts = [part.network.kinds for part in manifest.parts]
    assert sum(kinds.get("dequantize", 0) for kinds in counts) == 2 * len(info.quantized)
    assert manifest.attention.fused == manifest.attention.expected > 0
    assert np.all([part.size_bytes > 0 for part in manifest.parts])
