"""The build stage: what an engine says of itself is what was built."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import FEATURES, Outputs
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, engine_folders, open_engine
from sait_deploy.engine.options import BatchRange, FusionChoice
from sait_deploy.engine.profiles import PartName
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, SelectionForm
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export
from tests.cli.calls import child_environment
from tests.engine.cases import ONE_TARGET, TARGET, asked, builder_version, check_what_it_says, copied_engine, files_of
from tests.exported import POINTS, TinyExport, copied
from tests.tiny import small_vit

pytestmark = pytest.mark.usefixtures("version")
BF16, FP16, FP32 = EnginePrecision.BF16, EnginePrecision.FP16, EnginePrecision.FP32
UNFUSED = FusionChoice.ALLOWED_UNFUSED


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


@pytest.mark.slow
def test_tokens_of_blocks_leave_the_part_that_computes_them(tmp_path: Path) -> None:
    options = ExportOptions(points=POINTS, feature_blocks=(0, 1), output=tmp_path, prune_at=1)
    artifact = export(small_vit(depth=2), options, name="m")[1]
    engine = build_engine(artifact, ONE_TARGET)
    check_what_it_says(engine, artifact)
    stem, trunk = (
        {tensor.name: tensor.shape[1:] for tensor in engine.manifest.part(name).outputs}
        for name in (PartName.STEM, PartName.TRUNK)
    )
    assert (stem["block0_features"], stem["keep"]) == ((17, 32), (17,))
    assert trunk == {"logits": (10,), "block1_features": (17, 32)}


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
