"""The build stage: what an engine says of itself is what was built, and what cannot be built is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import pytest
from onnx import numpy_helper

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact, open_artifact
from sait_deploy.artifacts.manifest import FEATURES, Form, Outputs, Precision
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, engine_folders, open_engine
from sait_deploy.engine.options import BatchRange, EngineOptions, FusionChoice, PluginChoice, Portability
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trtexec import INPUTS_FOLDER
from sait_deploy.errors import ArtifactError, EngineError, InvalidArgument, SaitError
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, SelectionForm
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export
from tests.cli.calls import child_environment
from tests.engine.cases import ONE_TARGET, RTX, TARGET, builder_version, copied_engine, files_of
from tests.exported import POINTS, TinyExport, copied, graph_of, with_graph
from tests.tiny import small_vit

pytestmark = pytest.mark.usefixtures("version")
BF16, FP16, FP32 = EnginePrecision.BF16, EnginePrecision.FP16, EnginePrecision.FP32
UNFUSED = FusionChoice.ALLOWED_UNFUSED


@pytest.fixture(scope="module")
def version() -> str:
    return builder_version()


@pytest.fixture
def dense(tiny: TinyExport, tmp_path: Path) -> Artifact:
    """The dense artifact, to build in."""
    return copied(tiny.dense, tmp_path)


@pytest.fixture
def adaptive(tiny_adaptive: Artifact, tmp_path: Path) -> Artifact:
    """The adaptive artifact, to build in."""
    return copied(tiny_adaptive, tmp_path)


def asked(**changes: Any) -> EngineOptions:
    return dataclasses.replace(ONE_TARGET, **changes)


def check_what_it_says(engine: Engine, source: Artifact) -> None:
    """What holds of every engine."""
    manifest = engine.manifest
    assert open_engine(engine.artifact, engine.path) == engine
    assert engine.path == engine.artifact.path / ENGINES_FOLDER / manifest.name
    beside = {INPUTS_FOLDER} if source.manifest.form is Form.ADAPTIVE else set()
    assert {path.name for path in engine.path.iterdir()} == {"manifest.json", *manifest.files, *beside}
    assert manifest.artifact == source.manifest.id
    assert manifest.source_sha256 == sha256_of(source.path / MODEL_FILE)
    assert (manifest.builder, manifest.builder_version) == (RTX, builder_version())
    assert manifest.gpu is None
    assert not manifest.stripped
    assert manifest.tools.keys() == {"sait-deploy", "onnx", "onnx-ir", "onnx-graphsurgeon"}
    assert manifest.attention.fused == manifest.attention.expected
    assert manifest.attention.fused == sum(part.network.attention_fused for part in manifest.parts)
    for part in manifest.parts:
        assert part.size_bytes == engine.plan_path(part.name).stat().st_size > 1000
        assert {tensor.name for tensor in part.inputs} == set(part.profiles[0].ranges)
        assert part.network.layers == sum(part.network.kinds.values()) > 0
        assert part.build_seconds > 0
        for profile in part.profiles:
            for tensor in part.inputs:
                fixed = [size for size in tensor.shape if isinstance(size, int)]
                assert fixed == [
                    low
                    for low, size in zip(profile.ranges[tensor.name].smallest, tensor.shape, strict=True)
                    if isinstance(size, int)
                ]


def test_a_dense_engine(dense_engine: Engine, tiny: TinyExport) -> None:
    check_what_it_says(dense_engine, tiny.dense)
    manifest = dense_engine.manifest
    assert manifest.name == f"tensorrt-rtx-{builder_version()}-{TARGET}-fp16"
    assert manifest.selection is None
    depth = tiny.dense.manifest.model.geometry.depth
    assert (manifest.attention.form, manifest.attention.blocks, manifest.attention.fused) == (
        AttentionForm.FUSED,
        depth,
        depth,
    )
    assert (manifest.precision, manifest.precisions_got, manifest.targets) == (FP16, ("float16",), (TARGET,))
    (part,) = manifest.parts
    assert part.name is PartName.MODEL
    assert [(tensor.name, tensor.dtype) for tensor in part.inputs] == [("images", "float32")]
    assert [(tensor.name, tensor.dtype) for tensor in part.outputs] == [("logits", "float32")]
    assert part.profiles[0].ranges["images"].optimum == (8, 3, 96, 96)


BUILDING = f"""
import os
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.options import BuilderChoice, EngineOptions
print(build_engine(os.environ["ARTIFACT"], EngineOptions(BuilderChoice.TENSORRT_RTX, targets=("{TARGET}",))).path)
"""
"""Without a guard against being imported as the main module."""

DOORS = {
    "a script": (("script.py",), ""),
    "standard input": (("-",), BUILDING),
    "an event loop and no file, as in a notebook": (
        ("-c", "import asyncio\nasync def cell(): exec(open('script.py').read())\nasyncio.run(cell())"),
        "",
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_an_engine_is_built_from_code_that_cannot_be_imported_again(
    tiny: TinyExport, tmp_path: Path, door: str
) -> None:
    artifact = copied(tiny.dense, tmp_path)
    (tmp_path / "script.py").write_text(BUILDING)
    arguments, typed = DOORS[door]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=typed,
        cwd=tmp_path,
        env=child_environment(ARTIFACT=str(artifact.path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = engine_folders(artifact)
    assert done.stdout.splitlines() == [str(folder)]
    assert open_engine(artifact, folder).manifest.parts


def test_a_density_engine_fuses_all_attention_but_the_one_that_scores(half_engine: Engine, tiny: TinyExport) -> None:
    check_what_it_says(half_engine, tiny.half)
    manifest, depth = half_engine.manifest, tiny.half.manifest.model.geometry.depth
    assert (manifest.selection, manifest.attention.blocks) == (SelectionForm.FUNCTION, depth)
    assert manifest.attention.fused == depth - 1
    (part,) = manifest.parts
    outputs = {tensor.name: (tensor.dtype, tensor.shape[1:]) for tensor in part.outputs}
    assert outputs == {
        "logits": ("float32", (5,)),
        "counts": ("int32", ()),
        "importance": ("float32", (36,)),
        "keep": ("int32", (37,)),
    }


def test_an_adaptive_engine_is_two(adaptive_engine: Engine, tiny_adaptive: Artifact) -> None:
    check_what_it_says(adaptive_engine, tiny_adaptive)
    manifest, geometry = adaptive_engine.manifest, tiny_adaptive.manifest.model.geometry
    assert [part.name for part in manifest.parts] == [PartName.STEM, PartName.TRUNK]
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    fused = [part.network.attention_fused for part in manifest.parts]
    assert fused == [pruning.prune_at, geometry.depth - 1 - pruning.prune_at]
    stem, trunk = manifest.parts
    assert [tensor.name for tensor in stem.inputs] == ["images", "mass", "keep_limits"]
    crossing = {tensor.name: tensor for tensor in stem.outputs}
    assert {"importance", "keep", "counts", "rows"} <= crossing.keys()
    entering = {tensor.name: tensor for tensor in trunk.inputs}
    assert {"tokens", "cu_seqlens", "kept", "lanes"} <= entering.keys()
    for name in entering.keys() & crossing.keys():
        assert entering[name] == crossing[name]
    assert crossing["tokens"].dtype == "float16"
    assert crossing["importance"].dtype == "float32"
    assert [tensor.name for tensor in trunk.outputs] == ["logits"]
    (profile,) = trunk.profiles
    tokens = geometry.tokens
    assert (profile.ranges["kept"].smallest, profile.ranges["kept"].largest) == ((1,), (32 * tokens,))
    assert (profile.ranges["lanes"].smallest, profile.ranges["lanes"].largest) == ((1,), (tokens,))


@pytest.mark.slow
def test_features_are_scattered_back_in_the_trunk(tmp_path: Path) -> None:
    options = ExportOptions(points=POINTS, outputs=Outputs.LOGITS_AND_FEATURES, output=tmp_path, prune_at=0)
    artifact = export(small_vit(depth=2), options, name="m")[1]
    engine = build_engine(artifact, ONE_TARGET)
    check_what_it_says(engine, artifact)
    trunk = engine.manifest.part(PartName.TRUNK)
    found = {tensor.name: (tensor.dtype, tensor.shape[1:]) for tensor in trunk.outputs}
    assert found == {"logits": ("float32", (10,)), FEATURES: ("float32", (17, 32))}


@pytest.mark.parametrize(
    ("precision", "fusion", "form", "got"),
    [
        (FP16, UNFUSED, AttentionForm.DECOMPOSED, ("float16",)),
        (BF16, FusionChoice.REQUIRED, AttentionForm.FUSED, ("bfloat16",)),
        (FP32, FusionChoice.REQUIRED, AttentionForm.DECOMPOSED, ("float32",)),
    ],
)
def test_precision_and_the_form_of_attention(
    adaptive: Artifact, precision: EnginePrecision, fusion: FusionChoice, form: AttentionForm, got: tuple[str, ...]
) -> None:
    reported: dict[str, list[float | None]] = defaultdict(list)
    options = asked(precision=precision, fusion=fusion)
    engine = build_engine(adaptive, options, lambda step, share=None, /: reported[step].append(share))
    check_steps(reported, adaptive)
    check_what_it_says(engine, adaptive)
    manifest, depth = engine.manifest, adaptive.manifest.model.geometry.depth
    assert (manifest.precision, manifest.precisions_got, manifest.attention.form) == (precision, got, form)
    assert manifest.name.endswith(f"-{TARGET}-{precision}")
    fused = depth - 1 if form is AttentionForm.FUSED else 0
    assert (manifest.attention.blocks, manifest.attention.fused) == (depth, fused)
    stem = {tensor.name: tensor.dtype for tensor in manifest.part(PartName.STEM).outputs}
    assert (stem["tokens"], stem["importance"], stem["guard"]) == (got[0], "float32", "float32")


def test_several_targets_are_one_engine(dense: Artifact) -> None:
    targets = ("sm75", "sm89", "sm120")
    engine = build_engine(dense, asked(targets=targets, batch=BatchRange(2, 3, 4), opt_level=0, workspace_gib=1.0))
    check_what_it_says(engine, dense)
    assert engine.manifest.targets == targets
    assert engine.path.name == f"tensorrt-rtx-{builder_version()}-sm75+sm89+sm120-fp16"
    assert engine.manifest.batch == BatchRange(2, 3, 4)
    (profile,) = engine.manifest.parts[0].profiles
    images = profile.ranges["images"]
    assert (images.smallest[0], images.optimum[0], images.largest[0]) == (2, 3, 4)


def test_engines_of_an_artifact_stand_beside_each_other_and_it_stays_as_it_was(
    dense_engine: Engine, tmp_path: Path
) -> None:
    first = copied_engine(dense_engine, tmp_path)
    before = files_of(first.artifact.path)
    second = build_engine(first.artifact, asked(targets=("sm86",)))
    assert engine_folders(first.artifact) == sorted([first.path, second.path])
    files = files_of(first.artifact.path)
    assert {name: files[name] for name in before} == before
    assert all(name.startswith(ENGINES_FOLDER) for name in files.keys() - before.keys())
    assert open_artifact(first.artifact.path) == first.artifact


def test_an_engine_built_again_takes_the_place_of_the_first(dense_engine: Engine, tmp_path: Path) -> None:
    """Of an artifact named by its folder."""
    first = copied_engine(dense_engine, tmp_path)
    (first.path / "more.txt").write_text("in an older one")
    second = build_engine(first.artifact.path, asked(batch=BatchRange(1, 2, 4)))
    assert second.path == first.path
    assert open_engine(first.artifact, second.path).manifest.batch == BatchRange(1, 2, 4)
    assert {path.name for path in second.path.parent.iterdir()} == {second.path.name}
    assert {path.name for path in second.path.iterdir()} == {"manifest.json", "model.plan"}


def check_steps(reported: dict[str, list[float | None]], artifact: Artifact) -> None:
    """Steps of an adaptive build, each with how far it is."""
    assert next(iter(reported)) == f"{artifact.path.name}: cutting and lowering"
    for part in ("stem", "trunk"):
        shares = [share for share in reported.pop(f"{artifact.path.name}: {part}") if share is not None]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert len(reported) == 1


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
