"""The adaptive form: one file for all of its named points, each recorded with what it keeps."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Form, Outputs, Precision, TensorInfo
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.errors import InvalidArgument, ModelError, StorageError
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.parity import batches_of
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export, export_model
from sait_deploy.images.dataset import shipped_dataset
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.runtime import load
from sait_deploy.runtime.openvino_compiled import COMPILED_FOLDER
from sait_deploy.tokens import OperatingPoint, Score, dense_macs, pruned_macs
from tests.exported import POINTS, TinyExport, copied, graph_of
from tests.exporting.exports import ONE_THREAD, check_golden, described, names, smallest, to
from tests.tiny import HALF, random_batch, small_vit

PATCHES = 36


def test_an_artifact_is_three_files_and_opens_as_returned(tiny_adaptive: Artifact) -> None:
    assert tiny_adaptive.path.name == "test_vit-96px-adaptive"
    # OpenVINO keeps what it compiled of artifacts that other tests ran.
    assert names(tiny_adaptive.path) - {COMPILED_FOLDER} == {"model.onnx", "manifest.json", "golden.npz"}
    assert open_artifact(tiny_adaptive.path) == tiny_adaptive


def test_the_manifest_says_what_was_exported(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    manifest = tiny_adaptive.manifest
    assert (manifest.form, manifest.baseline) == (Form.ADAPTIVE, tiny.dense.manifest.id)
    assert manifest.id.startswith("test_vit-96px-adaptive-")
    assert manifest.inputs == (
        TensorInfo("images", "float32", ("batch", 3, 96, 96)),
        TensorInfo("mass", "float32", ("batch",)),
        TensorInfo("keep_limits", "int32", ("batch", 2)),
    )
    assert manifest.outputs == (
        TensorInfo("logits", "float32", ("batch", 5)),
        TensorInfo("counts", "int32", ("batch",)),
    )
    assert manifest.pruning is not None
    assert (manifest.pruning.score, manifest.pruning.prune_at, manifest.pruning.density) == ("mean", 1, None)
    assert {info.name: info.point for info in manifest.pruning.points} == {
        "mass0.6": OperatingPoint(0.6, 1, PATCHES),
        "fast": OperatingPoint(0.3, 2, 8),
        "wide": OperatingPoint(0.9, 12, PATCHES),
    }
    assert manifest.parity.points == ("mass0.6", "fast", "wide", "mass 1", "mixed points")
    assert manifest.parity.kept_sets_equal_torch is not None and 0.9 < manifest.parity.kept_sets_equal_torch <= 1


def test_the_graph_has_the_inputs_and_outputs_that_the_manifest_says(
    tiny_adaptive: Artifact, tiny_adaptive_fp16: Artifact
) -> None:
    for artifact in (tiny_adaptive, tiny_adaptive_fp16):
        graph = graph_of(artifact).graph
        for told, found in ((artifact.manifest.inputs, graph.input), (artifact.manifest.outputs, graph.output)):
            assert [info.name for info in told] == [value.name for value in found]
            for info, value in zip(told, found, strict=True):
                tensor = value.type.tensor_type
                assert info.shape == tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
                assert info.dtype == {1: "float32", 6: "int32"}[tensor.elem_type]


def test_the_onnx_file_names_its_points_without_its_manifest(tiny_adaptive: Artifact) -> None:
    told = {entry.key: entry.value for entry in graph_of(tiny_adaptive).metadata_props}
    assert (told["sait.form"], told["sait.id"]) == ("adaptive", tiny_adaptive.manifest.id)
    assert (told["sait.score"], told["sait.prune_at"]) == ("mean", "1")
    assert "sait.density" not in told
    points = json.loads(told["sait.points"])
    assert list(points.items()) == [("mass0.6", [0.6, 1, 36]), ("fast", [0.3, 2, 8]), ("wide", [0.9, 12, 36])]


@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_each_point_is_recorded_with_what_running_it_keeps(
    precision: Precision, request: pytest.FixtureRequest
) -> None:
    artifact = request.getfixturevalue("tiny_adaptive" if precision is Precision.FP32 else "tiny_adaptive_fp16")
    manifest, runner = artifact.manifest, load(artifact, options=ONE_THREAD)
    images = runner.preprocess(shipped_dataset("test_vit").images)
    geometry = manifest.model.geometry
    assert len(manifest.pruning.points) == len(POINTS)
    for info in manifest.pruning.points:
        kept = np.concatenate([runner.run(images[cut], point=info.name).kept for cut in batches_of(len(images))])
        found = info.kept
        assert (found.images, found.most) == (len(images), kept.max())
        assert found.mean == pytest.approx(kept.mean())
        assert found.sd == pytest.approx(np.sqrt(((kept - kept.mean()) ** 2).mean()))
        assert (found.p5, found.p95) == pytest.approx(tuple(np.percentile(kept, [5, 95])))
        macs = [pruned_macs(geometry, 1, int(count)) for count in kept]
        assert info.macs.per_image == round(sum(macs) / len(macs))
        assert info.macs.dense == dense_macs(geometry)
        assert info.macs.ratio == info.macs.dense / info.macs.per_image > 1
    assert manifest.macs == manifest.pruning.points[0].macs
    assert len({info.kept.mean for info in manifest.pruning.points}) == len(POINTS)


def test_golden_files_are_all_that_checking_needs(tiny_adaptive: Artifact, tiny_adaptive_fp16: Artifact) -> None:
    for artifact in (tiny_adaptive, tiny_adaptive_fp16):
        check_golden(artifact)
        golden, default = artifact.golden(), artifact.manifest.default_point
        assert golden.mass is not None and golden.keep_limits is not None and default is not None
        assert golden.mass.dtype == np.float32 and golden.mass.tolist() == [np.float32(default.point.mass)]
        assert golden.keep_limits.dtype == np.int32
        assert golden.keep_limits.tolist() == [[default.point.min_keep, default.point.max_keep]]


def test_runtimes_give_the_same_answers_in_half_precision(tiny_adaptive_fp16: Artifact) -> None:
    onnx, torch = (load(tiny_adaptive_fp16, runtime, ONE_THREAD) for runtime in ("onnxruntime", "torch"))
    images = random_batch((6, 3, 96, 96))
    choices: list[dict[str, Any]] = [{}, {"mass": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]}, {"point": "wide", "max_keep": 20}]
    for choice in choices:
        same = (onnx.select(images, **choice).keep == torch.select(images, **choice).keep).all(axis=1)
        assert same.mean() >= 0.5
        first, second = onnx.run(images, **choice).logits, torch.run(images, **choice).logits
        scale = np.maximum(1, np.abs(second).max(axis=1))
        assert (np.abs(first - second).max(axis=1) / scale)[same].max() < 2e-2


def test_the_first_point_is_the_default_unless_one_is_called_so() -> None:
    points = (mass_point(0.9), mass_point(0.5), PointRequest("fast", 0.2))
    assert ExportOptions(points=points).points == points
    default = PointRequest("default", 0.7)
    assert ExportOptions(points=(*points, default)).points == (default, *points)
    plans = plan_exports(described(smallest()), ExportOptions(points=(*points, default)))
    assert [plan.form for plan in plans] == [Form.DENSE, Form.ADAPTIVE]
    assert [name for name, _ in plans[1].points] == ["default", "mass0.9", "mass0.5", "fast"]
    assert plans[1].pruning == AdaptivePruning(Score.MEAN, 0)


def test_a_point_named_twice_is_one_and_two_of_a_name_are_refused() -> None:
    options = ExportOptions(points=(mass_point(0.9), mass_point(0.5), mass_point(0.90)))
    assert options.points == (mass_point(0.9), mass_point(0.5))
    for second in (PointRequest("mass0.9", 0.8), PointRequest("mass0.9", 0.9, 2), mass_point(0.9, 1, 8)):
        with pytest.raises(InvalidArgument, match=r"two points are called 'mass0\.9'") as caught:
            ExportOptions(points=(mass_point(0.9), mass_point(0.5), second))
        assert caught.value.hint


def test_densities_come_before_the_adaptive_form_which_is_one() -> None:
    options = ExportOptions(densities=(HALF, Decimal("0.25")), points=POINTS)
    plans = plan_exports(described(smallest()), options)
    assert [plan.name for plan in plans] == ["m-dense", "m-density0.5", "m-density0.25", "m-adaptive"]


DIFFERENT: dict[str, dict[str, Any]] = {
    "base": {},
    "mass": {"points": (mass_point(0.61), *POINTS[1:])},
    "name": {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], name="broad"))},
    "least": {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], min_keep=11))},
    "most": {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], max_keep=15))},
    "order": {"points": (POINTS[1], POINTS[0], POINTS[2])},
    "fewer": {"points": POINTS[:2]},
    "score": {"score": Score.CLS},
    "block": {"prune_at": 1},
    "precision": {"precision": Precision.FP16},
    "operators": {"operators": OperatorForm.INLINE},
    "outputs": {"outputs": Outputs.LOGITS_AND_FEATURES},
    "density": {"points": (), "densities": (HALF,)},
}


def test_exports_of_other_points_have_other_ids() -> None:
    model, base = described(small_vit()), ExportOptions(points=POINTS)
    plans = {case: plan_exports(model, dataclasses.replace(base, **changes)) for case, changes in DIFFERENT.items()}
    ids = {case: plan[1].id for case, plan in plans.items()}
    assert len(set(ids.values())) == len(DIFFERENT)
    shared = {plan[0].id for case, plan in plans.items() if case not in ("precision", "operators", "outputs")}
    assert len(shared) == 1, "points are no part of the baseline"


def test_the_same_points_have_the_same_id() -> None:
    model, first = described(small_vit()), plan_exports(described(small_vit()), ExportOptions(points=POINTS))[1]
    again: list[tuple[PointRequest, ...]] = [
        (*POINTS, POINTS[0]),
        (POINTS[0], POINTS[1], dataclasses.replace(POINTS[2], max_keep=16)),
    ]
    for points in again:
        assert plan_exports(model, ExportOptions(points=points))[1].id == first.id


def test_a_whole_number_is_a_mass_as_any_other() -> None:
    model = described(small_vit())
    whole = [plan_exports(model, ExportOptions(points=(PointRequest("all", mass),)))[1].id for mass in (1, 1.0)]
    assert len(set(whole)) == 1


@pytest.mark.parametrize(
    ("vit", "options", "error", "match"),
    [
        ({}, {"points": (mass_point(0.5, 1, 17),)}, InvalidArgument, r"'mass0\.5' keeps 1 to 17 .*; the model has 16"),
        ({}, {"points": (POINTS[0], PointRequest("a", 1, 17))}, InvalidArgument, "'a' keeps 17 to 16"),
        ({}, {"points": POINTS, "prune_at": 1}, InvalidArgument, "prune_at 1 is no block"),
        (
            {"class_token": False, "global_pool": "avg"},
            {"points": POINTS, "score": Score.CLS},
            InvalidArgument,
            "score 'cls' needs a class token",
        ),
        ({"img_size": 520}, {"points": POINTS}, ModelError, "4225 patch tokens are more than the 4096"),
    ],
)
def test_what_does_not_fit_the_model_leaves_nothing(
    tmp_path: Path, vit: dict[str, Any], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        export(smallest(**vit), to(tmp_path / "a", **options))
    assert not (tmp_path / "a").exists()


def test_an_interrupt_leaves_what_was_there(tiny: TinyExport, tmp_path: Path) -> None:
    artifacts, told = tmp_path / "artifacts", list[str]()
    dense = copied(tiny.dense, artifacts)

    def progress(line: str, share: float | None = None) -> None:
        told.extend([line] if share != 1 else [])
        if "comparing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(tiny.model, to(artifacts, points=POINTS), progress)
    assert told == [
        "test_vit-96px-dense: already there, kept",
        "test_vit-96px-adaptive: tracing",
        "test_vit-96px-adaptive: comparing with torch on 6 images",
    ]
    assert names(artifacts) == {dense.path.name}


def test_what_is_there_is_kept_and_other_points_go_beside_it(
    tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    dense, adaptive = (copied(artifact, artifacts) for artifact in (tiny.dense, tiny_adaptive))
    with pytest.raises(StorageError, match=f"{adaptive.path.name} is already there"):
        export_model(tiny.model, to(artifacts, points=POINTS))
    capped = PointRequest("capped", 1.0, 1, 4)
    baseline, other = export_model(tiny.model, to(artifacts, points=(capped,)))
    assert baseline == dense
    assert other.path == artifacts / other.manifest.id
    assert Workspace(artifacts).last_export() == [dense.path, other.path]
    assert open_artifact(adaptive.path).manifest == tiny_adaptive.manifest
    assert other.manifest.default_point is not None
    kept = other.manifest.default_point.kept
    assert (kept.mean, kept.sd, kept.p5, kept.p95, kept.most) == (4, 0, 4, 4, 4)
    assert other.manifest.macs.per_image == pruned_macs(other.manifest.model.geometry, 1, 4)
