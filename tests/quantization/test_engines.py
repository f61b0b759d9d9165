"""Int8 artifacts in TensorRT: products stay quantised, attention fuses, and lowered graphs mean what the file means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.options import EngineOptions
from sait_deploy.exporters.lower_cuda import fused_attention, lower_attention
from sait_deploy.exporters.names import EnginePrecision
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
