"""Int8 artifacts: what is in them, what they say of themselves, and that they run everywhere the float ones do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, Precision
from sait_deploy.artifacts.manifest_document import from_json, to_json
from sait_deploy.artifacts.quantization_info import Gate
from sait_deploy.errors import StorageError
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.inspect import compare_with_torch
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.quantization.exclusion import COSTLY, NAMED, SCORES
from sait_deploy.quantization.options import Exclude
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import load
from tests.exported import POINTS, TinyExport, graph_of
from tests.exporting.exports import HALVES, ONE_THREAD, check_golden
from tests.quantization.conftest import ANY_AGREEMENT, copies
from tests.runtime.cases import GOOD
from tests.tiny import HALF


def test_weights_and_inputs_of_linear_layers_are_int8(floats: list[Artifact], quantised: list[Artifact]) -> None:
    for before, after in zip(floats, quantised, strict=True):
        info, graph = after.manifest.quantization, graph_of(after)
        assert info is not None
        types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
        for layer in info.quantized:
            assert types[f"vit.{layer}.weight_quantized"] == onnx.TensorProto.INT8
            assert types[f"vit.{layer}.weight_zero_point"] == onnx.TensorProto.INT8
        for layer in info.kept_float:
            assert types[f"vit.{layer}.weight"] == onnx.TensorProto.FLOAT
        operators = Counter(node.op_type for node in graph.graph.node)
        # Each layer's weight and input is dequantised; layers that share an input share its quantisation.
        assert operators["DequantizeLinear"] == len(info.quantized) + operators["QuantizeLinear"]
        rest = Counter(node.op_type for node in graph_of(before).graph.node)
        assert operators - Counter(QuantizeLinear=10**6, DequantizeLinear=10**6) == rest
        assert {f.name for f in graph.functions} == {f.name for f in graph_of(before).functions}
        onnx.checker.check_model(graph)


def test_what_importance_is_read_from_stays_float(quantised: list[Artifact]) -> None:
    dense, *pruned = (artifact.manifest.quantization for artifact in quantised)
    assert dense is not None and dense.kept_float == {}
    for info in pruned:
        assert info is not None and info.kept_float == {"blocks.1.attn.qkv": SCORES}


def test_the_manifest_says_what_it_is(floats: list[Artifact], quantised: list[Artifact]) -> None:
    dense = quantised[0].manifest
    for before, after in zip((artifact.manifest for artifact in floats), quantised, strict=True):
        manifest = open_artifact(after.path).manifest
        assert manifest == after.manifest == from_json(to_json(manifest))
        assert (manifest.name, manifest.dtype) == (f"{before.name}-int8", Precision.INT8)
        assert after.path.name == manifest.name
        assert (manifest.quantized_from, manifest.weights) == (before.id, before.weights)
        assert (manifest.model, manifest.preprocessing) == (before.model, before.preprocessing)
        assert manifest.operating_points == before.operating_points
        assert manifest.baseline == (None if manifest.form is Form.DENSE else dense.id)
        info = manifest.quantization
        assert info is not None and info.gate is Gate.PASSED
        assert (info.calibration.images, info.min_agreement) == (30, 0)
        assert [point.name for point in info.compared] == list(manifest.operating_points or [None])
        assert {point.images for point in info.compared} == {10} == {manifest.parity.images}
        assert before.id in manifest.parity.image_source
        properties = {entry.key: entry.value for entry in graph_of(after).metadata_props}
        assert (properties["sait.id"], properties["sait.precision"]) == (manifest.id, "int8")


def test_an_adaptive_artifact_is_calibrated_at_its_points_and_where_all_tokens_stay(quantised: list[Artifact]) -> None:
    points = [a.manifest.quantization.calibration.points for a in quantised if a.manifest.quantization is not None]
    assert points == [(), ("default",), (*(request.name for request in POINTS), "mass 1")]


def test_answers_are_close_where_the_same_tokens_are_kept(floats: list[Artifact], quantised: list[Artifact]) -> None:
    for place, asked in ((0, {}), (2, {"mass": 1})):
        before, after = (load(artifacts[place], options=ONE_THREAD) for artifacts in (floats, quantised))
        wanted, found = (runner.run(GOOD, **asked).logits for runner in (before, after))
        assert 0 < np.abs(found - wanted).max() < 0.3 * np.abs(wanted).max()


def test_golden_files_hold(quantised: list[Artifact]) -> None:
    for artifact in quantised:
        check_golden(artifact)


def test_it_is_compared_with_torch_again(quantised: list[Artifact]) -> None:
    for artifact in quantised:
        found = compare_with_torch(artifact, demo.IMAGES / "3", None)
        assert 1e-4 < found.largest_difference < found.tolerance == 0.5


def test_layers_stay_float_by_name(floats: list[Artifact], tmp_path: Path) -> None:
    options = dataclasses.replace(ANY_AGREEMENT, exclude=Exclude.NONE, keep_float=("blocks.0.*",))
    _, half = quantize(copies(tmp_path, *floats[:2]), options)
    info = half.manifest.quantization
    assert info is not None
    assert info.kept_float == {f"blocks.0.{part}": NAMED for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert "blocks.1.attn.qkv" in info.quantized


def test_what_is_there_is_kept_or_refused(floats: list[Artifact], quantised: list[Artifact], tmp_path: Path) -> None:
    sources = copies(tmp_path, *floats[:1], *quantised[:1], floats[1])
    steps: list[str] = []
    dense, half = quantize([sources[0], sources[2]], ANY_AGREEMENT, lambda step, share=None: steps.append(step))
    assert dense.manifest.created == quantised[0].manifest.created
    assert f"{dense.manifest.name}: already there, kept" in steps
    with pytest.raises(StorageError, match="is already there"):
        quantize([sources[0], sources[2]], ANY_AGREEMENT)
    again = quantize([sources[0], sources[2]], dataclasses.replace(ANY_AGREEMENT, overwrite=True))
    assert [artifact.manifest.id for artifact in again] == [dense.manifest.id, half.manifest.id]
    assert Workspace(tmp_path).last_export() == [artifact.path for artifact in again]


def test_the_costliest_layers_stay_float_until_answers_agree(
    floats: list[Artifact], quantised: list[Artifact], tmp_path: Path
) -> None:
    loose = quantised[1].manifest.quantization
    assert loose is not None and loose.compared[0].agreement < 100, "this model has an answer to bring back"
    _, half = quantize(copies(tmp_path, *floats[:2]), dataclasses.replace(ANY_AGREEMENT, min_agreement=100))
    found = half.manifest.quantization
    assert found is not None and found.compared[0].agreement == 100
    reasons = Counter(found.kept_float.values())
    assert reasons[SCORES] == 1 and 1 <= reasons[COSTLY] < len(found.quantized)
    assert not set(found.kept_float) & set(found.quantized)


def test_an_inlined_artifact_is_quantised_too(tiny: TinyExport, tmp_path: Path) -> None:
    options = dataclasses.replace(HALVES, points=POINTS, operators=OperatorForm.INLINE, output=tmp_path)
    for artifact in quantize(export_model(tiny.model, options), ANY_AGREEMENT):
        info = artifact.manifest.quantization
        assert info is not None and artifact.manifest.inlined
        assert set(info.kept_float) == (set() if artifact.manifest.form is Form.DENSE else {"blocks.1.attn.qkv"})
        load(artifact, options=ONE_THREAD).run(GOOD)


def test_weights_in_a_file_of_their_own(tiny: TinyExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sait_deploy.exporters.finish.LARGEST_PROTOBUF", 10_000)
    exported = export_model(tiny.model, ExportOptions(densities=(HALF,), output=tmp_path))
    inside = quantize(exported, ANY_AGREEMENT)
    for artifact in inside:
        assert set(open_artifact(artifact.path).manifest.files) == {"model.onnx", "golden.npz"}
    wanted = [load(artifact, options=ONE_THREAD).run(GOOD).logits for artifact in inside]
    monkeypatch.setattr("sait_deploy.quantization.convert.LARGEST_PROTOBUF", 10_000)
    for artifact, logits in zip(
        quantize(exported, dataclasses.replace(ANY_AGREEMENT, overwrite=True)), wanted, strict=True
    ):
        assert set(open_artifact(artifact.path).manifest.files) == {"model.onnx", "model.onnx.data", "golden.npz"}
        np.testing.assert_array_equal(load(artifact, options=ONE_THREAD).run(GOOD).logits, logits)
