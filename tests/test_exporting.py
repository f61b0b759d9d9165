"""The export stage: what it writes, that no two exports meet, and that nothing half-written is left."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer

import sait_deploy
from sait_deploy import demo
from sait_deploy.artifact import LAST_EXPORT_FILE, MODEL_FILE, Artifact, Workspace, open_artifact, sha256_of
from sait_deploy.errors import ArtifactError, ImageError, InvalidArgument, ModelError, StorageError
from sait_deploy.export_plan import DEFAULT_OPTIONS, ExportOptions, plan_exports
from sait_deploy.exporters import finish as finish_module
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting import PARITY_IMAGES, export, export_model
from sait_deploy.manifest import AccuracyStatus, Form, Precision, WeightsSource
from sait_deploy.preprocess import normalised
from sait_deploy.runtime import RunOptions, load
from sait_deploy.schedule import Score, dense_macs, pruned_macs
from sait_deploy.zoo import LoadedModel, WeightsRequest, describe, load_model
from tests.exported import IMAGE_SIZE, TinyExport, copied, fill, graph_of
from tests.tiny import HALF, random_batch, randomised, small_vit

ONE_THREAD = RunOptions(threads=1)
HALVES = ExportOptions(densities=(HALF,))
SMALL = ExportOptions(densities=(Decimal("0.25"), Decimal("0.7")), prune_at=0, score=Score.CLS)


def smallest(seed: int = 0, **options: Any) -> VisionTransformer:
    """One block: what exports fastest."""
    return randomised(small_vit(depth=1, **options), seed)


def described(vit: VisionTransformer, name: str = "m") -> LoadedModel:
    return describe(vit, name, WeightsSource.MEMORY, None)


def to(folder: Path, **options: Any) -> ExportOptions:
    return ExportOptions(output=folder, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A model from memory at two densities, as Python callers export it."""
    folder = tmp_path_factory.mktemp("small") / "artifacts"
    return sait_deploy.export(smallest(), dataclasses.replace(SMALL, output=folder), name="mine")


# What is written


def test_each_density_and_the_dense_baseline_first(small: list[Artifact]) -> None:
    assert [artifact.path.name for artifact in small] == ["mine-dense", "mine-cls-density0.25", "mine-cls-density0.7"]
    assert [artifact.manifest.form for artifact in small] == [Form.DENSE, Form.DENSITY, Form.DENSITY]
    assert [artifact.manifest.patch_tokens_kept for artifact in small] == [16, 4, 12]
    workspace = Workspace(small[0].path.parent)
    assert workspace.last_export() == [artifact.path for artifact in small]
    assert names(workspace.root) == {artifact.path.name for artifact in small} | {LAST_EXPORT_FILE}


def test_an_artifact_is_three_files_and_opens_as_returned(small: list[Artifact]) -> None:
    for artifact in small:
        assert names(artifact.path) == {"model.onnx", "manifest.json", "golden.npz"}
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
    assert (quarter.pruning.point.min_keep, quarter.pruning.point.max_keep) == (4, 4)
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
    assert plans[1].pruning is not None and plans[1].pruning.kept == 10


def test_a_density_named_twice_is_exported_once() -> None:
    plans = plan_exports(described(smallest()), ExportOptions(densities=(HALF, Decimal("0.50"), HALF)))
    assert [plan.form for plan in plans] == [Form.DENSE, Form.DENSITY]


def test_the_name_is_timms_where_none_is_given(tmp_path: Path) -> None:
    vit, told = smallest(), list[str]()
    vit.pretrained_cfg = {"architecture": "test_vit"}

    def stop(line: str) -> None:
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


# No two exports meet


@functools.cache
def variants() -> list[tuple[str, LoadedModel, ExportOptions]]:
    """Exports that differ in one thing each, and in pairs of things."""
    base = small_vit()
    models: dict[str, VisionTransformer] = {
        "base": base,
        "weights": randomised(small_vit(), seed=1),
        "image size": small_vit(img_size=40),
        "heads": small_vit(num_heads=4),
        "activation": small_vit(act_layer="quick_gelu"),
        "tanh": small_vit(act_layer="gelu_tanh"),
        "epsilon": small_vit(norm_layer=functools.partial(LayerNorm, eps=1e-3)),
        "pooling": small_vit(global_pool="avg", fc_norm=False),
        "pooling with prefix": small_vit(global_pool="avg", fc_norm=False, pool_include_prefix=True),
    }
    for name, vit in models.items():
        if name not in ("base", "weights", "image size"):
            vit.load_state_dict(base.state_dict())
    settings: dict[str, dict[str, Any]] = {
        "score": {"score": Score.CLS},
        "block": {"prune_at": 1},
        "precision": {"precision": Precision.FP16},
        "opset": {"opset": 22},
        "inline": {"operators": OperatorForm.INLINE},
        "density": {"densities": (Decimal("0.51"),)},
    }
    cases = [(name, described(vit), HALVES) for name, vit in models.items()]
    cases.append(("name", described(base, "other"), HALVES))
    for count in (1, 2, 3):
        for chosen in itertools.combinations(settings, count):
            changes = {key: value for name in chosen for key, value in settings[name].items()}
            cases.append(("+".join(chosen), described(base), dataclasses.replace(HALVES, **changes)))
    return cases


def test_different_exports_have_different_ids() -> None:
    seen: dict[str, str] = {}
    for case, model, options in variants():
        plan = plan_exports(model, options)[1]
        assert plan.id not in seen, f"{case} and {seen.get(plan.id)}"
        seen[plan.id] = case
    assert len(seen) > 40


def test_different_exports_have_different_folders(tmp_path: Path, tiny: TinyExport) -> None:
    workspace, places = Workspace(tmp_path), dict[Path, str]()
    for case, model, options in variants():
        plan = plan_exports(model, options)[1]
        place = workspace.place_for(plan.name, plan.id)
        assert place not in places, f"{case} and {places.get(place)}"
        places[place] = case
        with workspace.writing(place) as folder:
            fill(folder, dataclasses.replace(tiny.half.manifest, id=plan.id, name=plan.name))


@pytest.mark.parametrize("case", ["weights", "image size", "heads", "pooling", "epsilon", "precision", "opset"])
def test_exports_that_compute_something_else_share_no_baseline(case: str) -> None:
    cases = {name: (model, options) for name, model, options in variants()}
    assert plan_exports(*cases[case])[0].id != plan_exports(*cases["base"])[0].id


@pytest.mark.parametrize("case", ["score", "block", "density"])
def test_the_baseline_does_not_depend_on_how_tokens_are_chosen(case: str) -> None:
    cases = {name: (model, options) for name, model, options in variants()}
    assert plan_exports(*cases[case])[0].id == plan_exports(*cases["base"])[0].id


def test_the_same_export_has_the_same_id() -> None:
    first, second = (plan_exports(described(small_vit()), HALVES) for _ in range(2))
    assert [plan.id for plan in first] == [plan.id for plan in second]
    training = small_vit().train()
    training.set_grad_checkpointing()
    assert [plan.id for plan in plan_exports(described(training), HALVES)] == [plan.id for plan in first]


def test_another_model_of_the_same_name_goes_beside_it(tmp_path: Path) -> None:
    (first,) = export(smallest(), to(tmp_path), name="m")
    (second,) = export(smallest(seed=1), to(tmp_path), name="m")
    assert first.path == tmp_path / "m-dense"
    assert second.path == tmp_path / second.manifest.id
    assert open_artifact(first.path) == first and open_artifact(second.path) == second


# What is already there


def stamp(artifact: Artifact) -> tuple[int, int]:
    status = artifact.model_path.stat()
    return status.st_ino, status.st_mtime_ns


def test_an_artifact_that_is_there_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    first = export(smallest(), to(tmp_path, densities=(HALF,)))
    before = [stamp(artifact) for artifact in first]
    with pytest.raises(StorageError, match="already there") as caught:
        export(smallest(), to(tmp_path, densities=(HALF,)))
    assert str(first[1].path) in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert [stamp(artifact) for artifact in first] == before
    second = export(smallest(), to(tmp_path, densities=(HALF,), overwrite=True))
    assert [artifact.path for artifact in second] == [artifact.path for artifact in first]
    assert not {stamp(artifact) for artifact in second} & set(before)
    assert names(tmp_path) == {artifact.path.name for artifact in first} | {LAST_EXPORT_FILE}


def test_a_baseline_that_is_there_is_kept(tmp_path: Path) -> None:
    (dense,) = export(smallest(), to(tmp_path))
    before, told = stamp(dense), list[str]()
    again, half = export(smallest(), to(tmp_path, densities=(HALF,)), progress=told.append)
    assert again == dense and stamp(again) == before
    assert half.manifest.baseline == dense.manifest.id
    assert told[0] == f"{dense.manifest.name}: already there, kept"
    assert Workspace(tmp_path).last_export() == [dense.path, half.path]
    with pytest.raises(StorageError, match="already there"):
        export(smallest(), to(tmp_path))


def test_a_damaged_baseline_is_not_built_on(tmp_path: Path) -> None:
    (dense,) = export(smallest(), to(tmp_path))
    dense.model_path.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="SHA-256"):
        export(smallest(), to(tmp_path, densities=(HALF,)))
    assert names(tmp_path) == {dense.path.name, LAST_EXPORT_FILE}


# The golden file


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize("precision", list(Precision))
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
@pytest.mark.parametrize("precision", list(Precision))
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


# Labels and images


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(["null", "  eins ", "", *map(str, range(2, 9)), "neün"]) + "\n", encoding="utf-8")
    (dense,) = export(smallest(), to(tmp_path / "a", labels=labels))
    assert dense.manifest.model.labels == ("null", "eins", *map(str, range(2, 9)), "neün")
    (found,) = load(dense, options=ONE_THREAD).predict(np.zeros((8, 8, 3), np.uint8), top=10)
    assert set(found.labels) == set(dense.manifest.model.labels)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a\nb\n", "names 2 classes, the model has 10"),
        (b"", "names 0 classes"),
        (b"\xff\xfe\n" * 10, "cannot be read"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InvalidArgument, match=match):
        export(smallest(), to(tmp_path / "a", labels=tmp_path / "labels.txt"))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        export(smallest(), to(tmp_path / "a", labels=tmp_path / "none.txt"))
    assert names(tmp_path) == {"labels.txt"}


def pictures(folder: Path, classes: int, each: int) -> Path:
    draw = np.random.default_rng(0)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for index in range(each):
            pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{index}.png")
    return folder


def test_accuracy_is_measured_where_images_have_classes(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 10, 2)
    (dense,) = export(smallest(), to(tmp_path / "a", images=folder))
    accuracy, parity = dense.manifest.accuracy, dense.manifest.parity
    assert (accuracy.status, accuracy.images) == (AccuracyStatus.MEASURED, 20)
    assert (parity.images, parity.image_source) == (20, str(folder))
    runner, right = load(dense, options=ONE_THREAD), 0
    for path in sorted(folder.rglob("*.png")):
        right += runner.run(runner.preprocess(path)).logits.argmax() == int(path.parent.name)
    assert accuracy.top1_percent == pytest.approx(100 * right / 20)


def test_no_more_images_are_compared_than_needed(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 1, PARITY_IMAGES + 6) / "0"
    (dense,) = export(smallest(), to(tmp_path / "a", images=folder))
    assert dense.manifest.parity.images == PARITY_IMAGES
    assert dense.manifest.accuracy.status is AccuracyStatus.UNMEASURED


@pytest.mark.parametrize("spoil", ["text", "empty folder", "none"])
def test_images_that_cannot_be_read_leave_nothing(tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "images"
    if spoil != "none":
        folder.mkdir()
    if spoil == "text":
        (folder / "a.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError):
        export(smallest(), to(tmp_path / "a", images=folder))
    assert names(tmp_path / "a") == set()


# Options that do not fit


@pytest.mark.parametrize("opset", [-1, 0, 17, 24, 100])
def test_opsets_that_are_not_supported(tmp_path: Path, opset: int) -> None:
    with pytest.raises(InvalidArgument, match=f"opset {opset}") as caught:
        export(smallest(), to(tmp_path / "a", opset=opset))
    assert "18 to 23" in caught.value.hint
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prune_at": 1}, "prune_at 1"),
        ({"prune_at": -1}, "prune_at -1"),
        ({"densities": (Decimal("1.5"),)}, "24 of 16"),
        ({"densities": (Decimal(0),)}, "0 of 16"),
    ],
)
def test_prunings_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        export(smallest(), dataclasses.replace(to(tmp_path / "a", densities=(HALF,)), **changes))
    assert not (tmp_path / "a").exists()


def test_a_model_that_is_not_supported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Linear"):
        export(torch.nn.Linear(2, 2), to(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_the_least_and_the_most_that_can_be_kept(tmp_path: Path) -> None:
    vit = smallest()
    densities = (Decimal("0.000001"), Decimal(1))
    _, one, everything = export(vit, to(tmp_path, densities=densities))
    assert [artifact.manifest.patch_tokens_kept for artifact in (one, everything)] == [1, 16]
    images = random_batch((3, 3, 32, 32))
    with torch.no_grad():
        expected = vit(torch.from_numpy(images)).numpy()
    found = load(everything, options=ONE_THREAD).run(images)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert load(one, options=ONE_THREAD).run(images).kept.tolist() == [1, 1, 1]


def test_a_wide_image_is_exported_from_memory(tmp_path: Path) -> None:
    (dense,) = export(smallest(img_size=(24, 48)), to(tmp_path))
    assert dense.manifest.model.image_size == (24, 48)
    assert load(dense, options=ONE_THREAD).run(random_batch((2, 3, 24, 48))).kept.tolist() == [18, 18]


# Nothing half-written


@pytest.mark.parametrize(
    ("line", "error"), [(0, KeyboardInterrupt), (1, KeyboardInterrupt), (1, RuntimeError), (3, KeyboardInterrupt)]
)
def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, line: int, error: type[BaseException]) -> None:
    told: list[str] = []

    def progress(text: str) -> None:
        told.append(text)
        if len(told) == line + 1:
            raise error

    with pytest.raises(error):
        export(smallest(), to(tmp_path, densities=(HALF,)), name="m", progress=progress)
    assert len(told) == line + 1
    assert names(tmp_path) == ({"m-dense"} if line >= 2 else set())
    if line >= 2:
        assert open_artifact(tmp_path / "m-dense")


@pytest.mark.parametrize("line", [1, 3])
def test_an_interrupt_keeps_what_was_to_be_replaced(tmp_path: Path, small: list[Artifact], line: int) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    before = [copied(artifact, artifacts) for artifact in small]
    Workspace(artifacts).record_last_export([artifact.path for artifact in before])
    files = {path: sha256_of(path) for path in artifacts.rglob("*") if path.is_file()}
    told: list[str] = []

    def progress(text: str) -> None:
        told.append(text)
        if len(told) == line + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(smallest(), dataclasses.replace(SMALL, output=artifacts, overwrite=True), "mine", progress)
    found = {path: sha256_of(path) for path in artifacts.rglob("*") if path.is_file()}
    replaced = before[0].path if line >= 2 else None
    assert found.keys() == files.keys()
    assert all(found[path] == files[path] for path in files if path.parent != replaced)
    for artifact in before:
        assert open_artifact(artifact.path).manifest.id == artifact.manifest.id


def spoilt(change: Callable[[VisionTransformer], object]) -> VisionTransformer:
    vit = smallest()
    with torch.no_grad():
        change(vit)
    return vit


@pytest.mark.parametrize(
    ("vit", "options"),
    [
        (spoilt(lambda vit: vit.blocks[0].mlp.fc1.weight.fill_(float("nan"))), {}),
        (spoilt(lambda vit: vit.head.bias.fill_(float("inf"))), {}),
        (spoilt(lambda vit: vit.head.weight.mul_(1e6)), {"precision": Precision.FP16}),
    ],
)
def test_weights_that_give_no_numbers_are_not_exported(
    tmp_path: Path, vit: VisionTransformer, options: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="not finite numbers"):
        export(vit, to(tmp_path, **options))
    assert names(tmp_path) == set()


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write under"):
        export(smallest(), to(tmp_path / "file"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_full_disk_keeps_what_is_there(small_disk: Path) -> None:
    (dense,) = export(smallest(), to(small_disk), name="m")
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(2**20))
    with pytest.raises(StorageError, match="no space left"):
        export(smallest(), to(small_disk, densities=(HALF,)), name="m")
    assert names(small_disk) == {"m-dense", LAST_EXPORT_FILE, "filler"}
    with pytest.raises(StorageError, match="no space left"):
        export(smallest(), to(small_disk, overwrite=True), name="m")
    assert open_artifact(dense.path) == dense


def test_leftovers_are_put_right_before_an_export(tmp_path: Path, tiny: TinyExport) -> None:
    (tmp_path / ".partial-m-dense@999999999").mkdir()
    with pytest.raises(KeyboardInterrupt):
        export(smallest(), to(tmp_path), progress=interrupted)
    assert names(tmp_path) == set()


def interrupted(_: str) -> None:
    raise KeyboardInterrupt


# Weights beside the graph


def test_large_weights_are_hashed_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_batch((2, 3, 32, 32))
    (whole,) = export(smallest(), to(tmp_path / "whole"))
    monkeypatch.setattr(finish_module, "_LARGEST_PROTOBUF", 10_000)
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
