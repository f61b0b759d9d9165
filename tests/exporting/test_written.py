"""What an export writes."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from sait_deploy import demo
from sait_deploy.artifacts.folder import LAST_EXPORT_FILE, MODEL_FILE, Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, AccuracyStatus, Form, Precision, WeightsSource
from sait_deploy.artifacts.pruning_info import KeptInfo
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters import finish as finish_module
from sait_deploy.exporting.plan import DEFAULT_OPTIONS, ExportOptions, plan_exports
from sait_deploy.exporting.stage import PARITY_IMAGES, export, export_model
from sait_deploy.images.preprocess import normalised
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime import load
from sait_deploy.runtime.openvino_compiled import COMPILED_FOLDER
from sait_deploy.tokens import dense_macs, pruned_macs
from tests.exported import IMAGE_SIZE, TinyExport, graph_of
from tests.exporting.exports import HALVES, ONE_THREAD, described, kept_at_default, names, smallest, to
from tests.tiny import HALF, random_batch


def test_each_density_and_the_dense_baseline_first(small: list[Artifact]) -> None:
    assert [artifact.path.name for artifact in small] == ["mine-dense", "mine-cls-density0.25", "mine-cls-density0.7"]
    assert [artifact.manifest.form for artifact in small] == [Form.DENSE, Form.DENSITY, Form.DENSITY]
    assert [kept_at_default(artifact) for artifact in small] == [None, 4, 12]
    workspace = Workspace(small[0].path.parent)
    assert workspace.last_export() == [artifact.path for artifact in small]
    assert names(workspace.root) == {artifact.path.name for artifact in small} | {LAST_EXPORT_FILE}


def test_an_artifact_is_three_files_and_opens_as_returned(small: list[Artifact]) -> None:
    for artifact in small:
        assert names(artifact.path) - {COMPILED_FOLDER} == {"model.onnx", "manifest.json", "golden.npz"}
        assert open_artifact(artifact.path) == artifact


def test_the_manifest_says_what_was_exported(small: list[Artifact]) -> None:
    dense, quarter, _ = (artifact.manifest for artifact in small)
    geometry = dense.model.geometry
    for manifest in (dense, quarter):
        assert manifest.model.name == "mine"
        assert manifest.weights.source is WeightsSource.MEMORY
        assert (manifest.opset, manifest.inlined, manifest.dtype, manifest.fp32_operators) == (20, False, "fp32", ())
        assert manifest.accuracy.status is AccuracyStatus.UNMEASURED
        assert manifest.parity.images == 6
        assert {"torch", "timm", "onnx", "onnxruntime", "sait-deploy"} <= manifest.tools.keys()
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(manifest.created)
        assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)
    assert dense.baseline is None and quarter.baseline == dense.id
    assert dense.pruning is None and quarter.pruning is not None
    assert (quarter.pruning.score, quarter.pruning.prune_at, quarter.pruning.density) == ("cls", 0, "0.25")
    (default,) = quarter.pruning.points
    assert (default.name, default.point.min_keep, default.point.max_keep) == ("default", 4, 4)
    assert default.kept == KeptInfo(images=6, mean=4.0, sd=0.0, p5=4.0, p95=4.0, most=4)
    assert default.macs == quarter.macs
    assert (dense.macs.per_image, dense.macs.ratio) == (dense_macs(geometry), 1.0)
    assert quarter.macs.per_image == pruned_macs(geometry, 0, 4)
    assert quarter.macs.ratio == quarter.macs.dense / quarter.macs.per_image > 1


def test_inputs_and_outputs_are_those_of_the_graph(small: list[Artifact], tiny_fp16: TinyExport) -> None:
    for artifact in (*small, tiny_fp16.half):
        graph = graph_of(artifact).graph
        for told, found in ((artifact.manifest.inputs, graph.input), (artifact.manifest.outputs, graph.output)):
            assert len(told) == len(found)
            for info, value in zip(told, found, strict=True):
                dims = value.type.tensor_type.shape.dim
                assert info.name == value.name
                assert info.shape == tuple(dim.dim_param or dim.dim_value for dim in dims)
                assert info.dtype == {1: "float32", 6: "int32"}[value.type.tensor_type.elem_type]


def test_the_onnx_file_says_what_it_is_without_its_manifest(small: list[Artifact]) -> None:
    for artifact in small:
        manifest = artifact.manifest
        told = {entry.key: entry.value for entry in graph_of(artifact).metadata_props}
        assert told["sait.id"] == manifest.id
        assert told["sait.weights_sha256"] == manifest.weights.sha256
        assert (told["sait.form"], told["sait.model"]) == (manifest.form, "mine")
        pruned = {"sait.score": "cls", "sait.prune_at": "0"} if manifest.pruning else {}
        assert pruned.items() <= told.items()
        assert ("sait.density" in told) == (manifest.pruning is not None)


def test_half_precision_says_what_stayed_float32(tiny_fp16: TinyExport) -> None:
    for artifact in (tiny_fp16.dense, tiny_fp16.half):
        manifest = artifact.manifest
        assert manifest.dtype is Precision.FP16
        assert {"LayerNormalization", "Softmax"} <= set(manifest.fp32_operators)
        assert "fp16" in artifact.path.name
    size = tiny_fp16.half.model_path.stat().st_size
    assert size < 0.6 * 4 * tiny_fp16.model.info.parameters


def test_default_options_are_density_0_6() -> None:
    plans = plan_exports(described(smallest()), DEFAULT_OPTIONS)
    assert [plan.name for plan in plans] == ["m-dense", "m-density0.6"]
    assert isinstance(plans[1].pruning, FixedPruning) and plans[1].pruning.kept == 10


def test_a_density_named_twice_is_exported_once() -> None:
    plans = plan_exports(described(smallest()), ExportOptions(densities=(HALF, Decimal("0.50"), HALF)))
    assert [plan.form for plan in plans] == [Form.DENSE, Form.DENSITY]


def test_the_name_is_timms_where_none_is_given(tmp_path: Path) -> None:
    vit, told = smallest(), list[str]()
    vit.pretrained_cfg = {"architecture": "test_vit"}

    def stop(line: str, _: float | None = None) -> None:
        told.append(line)
        raise KeyboardInterrupt

    for module in (vit, smallest()):
        with pytest.raises(KeyboardInterrupt):
            export(module, to(tmp_path), progress=stop)
    assert told == ["test_vit-dense: tracing", "VisionTransformer-dense: tracing"]


def test_names_are_fit_for_folders() -> None:
    plans = plan_exports(described(smallest(), "hf-hub:a/b c.v1"), HALVES)
    assert plans[1].name == "hf_hub_a_b_c.v1-density0.5"
    assert all("/" not in plan.id and ".." not in plan.id for plan in plans)


def test_export_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    vit = smallest()
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    export(vit, to(tmp_path, precision=Precision.FP16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in vit.parameters())


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_the_golden_file_reproduces(
    precision: Precision, form: str, runtime: str, request: pytest.FixtureRequest
) -> None:
    exported = request.getfixturevalue("tiny" if precision is Precision.FP32 else "tiny_fp16")
    artifact: Artifact = getattr(exported, form)
    golden, runner = artifact.golden(), load(artifact, runtime, ONE_THREAD)
    output = runner.run(golden.images)
    tolerance = 1e-4 if precision is Precision.FP32 else 2e-2
    scale = max(1.0, np.abs(golden.logits).max())
    assert np.abs(output.logits - golden.logits).max() / scale < tolerance
    prefix = artifact.manifest.model.geometry.prefix_tokens
    np.testing.assert_array_equal(output.kept + prefix, golden.counts)
    assert golden.counts.dtype == np.int32
    pixels = normalised(golden.pixels[None], artifact.manifest.preprocessing)
    np.testing.assert_array_equal(pixels, golden.images)


@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_runtimes_give_the_same_answers(precision: Precision, form: str, request: pytest.FixtureRequest) -> None:
    exported = request.getfixturevalue("tiny" if precision is Precision.FP32 else "tiny_fp16")
    artifact: Artifact = getattr(exported, form)
    images = random_batch((6, 3, IMAGE_SIZE, IMAGE_SIZE))
    runners = [load(artifact, runtime, ONE_THREAD) for runtime in ("onnxruntime", "torch")]
    onnx, reference = (runner.run(images) for runner in runners)
    np.testing.assert_array_equal(onnx.kept, reference.kept)
    comparable = np.ones(len(images), dtype=bool)
    if form == "half":
        keeps = [runner.select(images).keep for runner in runners]
        comparable = (keeps[0] == keeps[1]).all(axis=1)
        assert comparable.mean() > (0.5 if precision is Precision.FP16 else 0.99)
    tolerance = 1e-4 if precision is Precision.FP32 else 2e-2
    scale = np.maximum(1, np.abs(reference.logits).max(axis=1))
    assert (np.abs(onnx.logits - reference.logits).max(axis=1) / scale)[comparable].max() < tolerance


def test_random_weights_come_back_on_the_torch_runtime(tmp_path: Path) -> None:
    model = load_model("test_vit", WeightsRequest(WeightsSource.RANDOM), 32)
    (dense,) = export_model(model, to(tmp_path))
    assert dense.manifest.weights.source is WeightsSource.RANDOM
    golden = dense.golden()
    found = load(dense, "torch", ONE_THREAD).run(golden.images)
    np.testing.assert_allclose(found.logits, golden.logits, rtol=1e-3, atol=1e-4)


def test_large_weights_are_hashed_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_batch((2, 3, 32, 32))
    (whole,) = export(smallest(), to(tmp_path / "whole"))
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", 10_000)
    dense, half = export(smallest(), to(tmp_path / "split", densities=(HALF,)))
    for artifact in (dense, half):
        assert artifact.manifest.files.keys() == {MODEL_FILE, "model.onnx.data", "golden.npz"}
        assert open_artifact(artifact.path) == artifact
    expected = load(whole, options=ONE_THREAD).run(images)
    np.testing.assert_array_equal(load(dense.path, options=ONE_THREAD).run(images).logits, expected.logits)
    runner = load(half.path, options=ONE_THREAD)
    np.testing.assert_allclose(runner.select(images).logits, runner.run(images).logits, rtol=1e-4, atol=1e-5)
    data = dense.path / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data has SHA-256"):
        load(dense.path)


def test_the_demonstration_model_is_measured_on_its_digits(demo_workspace: Path) -> None:
    for artifact in map(open_artifact, Workspace(demo_workspace).last_export()):
        assert artifact.manifest.model.labels == demo.LABELS
        assert artifact.manifest.accuracy.status is AccuracyStatus.MEASURED
        assert artifact.manifest.accuracy.images == PARITY_IMAGES


def test_a_model_keeps_its_mode_and_the_head_it_was_given(tmp_path: Path) -> None:
    vit = smallest()
    vit.head = torch.nn.Linear(32, 3)
    vit.train()
    vit.blocks[0].eval()
    (dense,) = export(vit, to(tmp_path))
    assert vit.training and vit.head.training
    assert not any(module.training for module in vit.blocks[0].modules())
    assert dense.manifest.model.classes == 3
    images = random_batch((2, 3, 32, 32))
    with torch.no_grad():
        expected = vit.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(load(dense, options=ONE_THREAD).run(images).logits, expected, rtol=1e-4, atol=1e-4)
