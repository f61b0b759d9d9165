"""Engine folders: an engine is opened only where its files, its manifest and its artifact belong together."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE, Artifact, open_artifact
from sait_deploy.engine.cuda import Device
from sait_deploy.engine.folder import (
    ENGINES_FOLDER,
    Engine,
    check_runs_here,
    choose_engine,
    engine_folders,
    open_engine,
)
from sait_deploy.engine.options import Portability
from sait_deploy.engine.profiles import PartName
from sait_deploy.errors import ArtifactError, RuntimeUnavailable
from sait_deploy.exporters.names import EnginePrecision
from tests.engine.cases import RTX, TARGET, TRT, builder_version, copied_engine, rewritten
from tests.exported import TinyExport, copied

GPU = Device("a GPU", TARGET)


@pytest.fixture
def engine(adaptive_engine: Engine, tmp_path: Path) -> Engine:
    """An adaptive engine to change at will."""
    return copied_engine(adaptive_engine, tmp_path)


def refused(engine: Engine) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        open_engine(engine.artifact, engine.path)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


def test_what_was_built_is_opened(engine: Engine) -> None:
    found = open_engine(engine.artifact, engine.path)
    assert found == engine
    for part in (PartName.STEM, PartName.TRUNK):
        assert found.plan_path(part) == engine.path / f"{part}.plan"
        assert found.plan_path(part).stat().st_size == found.manifest.part(part).size_bytes


def test_an_engine_goes_with_its_artifact(adaptive_engine: Engine, engine: Engine) -> None:
    """It may be copied to another machine: nothing in it tells of a place."""
    elsewhere = engine.artifact.path.rename(engine.artifact.path.with_name("elsewhere"))
    artifact = open_artifact(elsewhere)
    (folder,) = engine_folders(artifact)
    found = open_engine(artifact, folder)
    assert found.manifest == adaptive_engine.manifest
    text = (found.path / MANIFEST_FILE).read_text(encoding="utf-8")
    assert str(adaptive_engine.artifact.path.parent) not in text


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def changed(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed, "SHA-256"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (Path.unlink, "is missing"),
        (lambda file: os.link(file, file.parents[3] / "other.plan"), "has 2 names on this disk"),
    ],
    ids=["tampered", "empty", "missing", "hardlink"],
)
@pytest.mark.parametrize("part", [PartName.STEM, PartName.TRUNK])
def test_files_that_are_not_what_was_built(
    engine: Engine, part: PartName, damage: Callable[[Path], object], message: str
) -> None:
    file = engine.plan_path(part)
    damage(file)
    error = refused(engine)
    assert message in error.message and str(file) in error.message
    assert error.hint


def test_an_engine_without_its_manifest(engine: Engine) -> None:
    (engine.path / MANIFEST_FILE).unlink()
    error = refused(engine)
    assert "has no manifest.json" in error.message
    assert "sait-deploy build-engine" in error.hint
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        choose_engine(engine.artifact, RTX, "1", GPU)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 9}'])
def test_a_manifest_that_is_none(engine: Engine, content: bytes) -> None:
    (engine.path / MANIFEST_FILE).write_bytes(content)
    assert refused(engine).hint


def with_another_file(data: dict[str, Any]) -> None:
    data["files"]["more.plan"] = "0" * 64


def from_outside(data: dict[str, Any]) -> None:
    data["files"]["../trunk.plan"] = data["files"].pop("trunk.plan")


def without_a_part(data: dict[str, Any]) -> None:
    del data["parts"][1]


def with_parts_exchanged(data: dict[str, Any]) -> None:
    first, second = data["parts"]
    first["file"], second["file"] = second["file"], first["file"]


@pytest.mark.parametrize(
    "change",
    [with_another_file, from_outside, without_a_part, with_parts_exchanged],
    ids=lambda change: change.__name__,
)
def test_a_manifest_that_does_not_list_the_parts(engine: Engine, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((engine.path / MANIFEST_FILE).read_text(encoding="utf-8"))
    change(data)
    (engine.path / MANIFEST_FILE).write_text(json.dumps(data), encoding="utf-8")
    assert "does not list stem.plan, trunk.plan" in refused(engine).message


def test_an_engine_of_another_form_is_refused(engine: Engine, half_engine: Engine) -> None:
    """Its source says that it was built from this artifact, and its parts are another form's."""
    source = engine.manifest.source_sha256
    place = rewritten(half_engine, engine.path.with_name("half"), source_sha256=source)
    with pytest.raises(ArtifactError, match=r"does not list stem\.plan, trunk\.plan"):
        open_engine(engine.artifact, place)


def test_an_engine_of_another_model_is_refused(tiny: TinyExport, half_engine: Engine, tmp_path: Path) -> None:
    artifact = copied(tiny.dense, tmp_path)
    shutil.copytree(half_engine.path.parent, artifact.path / ENGINES_FOLDER)
    with pytest.raises(ArtifactError, match="was built from another model than test_vit") as caught:
        choose_engine(artifact, RTX, builder_version(), GPU)
    assert "sait-deploy build-engine" in caught.value.hint


def test_an_engine_is_of_no_use_once_its_artifact_is_exported_again_otherwise(engine: Engine) -> None:
    """The same folder, another graph."""
    files = engine.artifact.manifest.files | {MODEL_FILE: "f" * 64}
    other = Artifact(engine.artifact.path, dataclasses.replace(engine.artifact.manifest, files=files))
    with pytest.raises(ArtifactError, match="another model"):
        open_engine(other, engine.path)


def test_leftovers_and_other_files_are_no_engines(engine: Engine) -> None:
    (engine.path.parent / ".partial-engine@999999999").mkdir()
    (engine.path.parent / "notes.txt").write_text("mine")
    assert engine_folders(engine.artifact) == [engine.path]


def test_an_artifact_without_engines(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.dense, tmp_path)
    assert engine_folders(artifact) == []
    with pytest.raises(ArtifactError, match="has no tensorrt-rtx engine") as caught:
        choose_engine(artifact, RTX, "1", GPU)
    assert caught.value.hint == "run: sait-deploy build-engine --builder tensorrt-rtx"


def aged(folder: Path, order: int) -> Path:
    """Gives an engine a time of its own: the higher, the later."""
    os.utime(folder / MANIFEST_FILE, (1_000_000 + order, 1_000_000 + order))
    return folder


@pytest.fixture
def several(engine: Engine) -> Engine:
    """Engines for several targets and versions and of both builders, the oldest first."""
    version = engine.manifest.builder_version
    aged(engine.path, 0)
    others: list[tuple[str, dict[str, Any]]] = [
        ("b-two-targets", {"targets": [TARGET, "sm120"]}),
        ("a-other-target", {"targets": ["sm120"]}),
        ("d-other-version", {"builder_version": "9.9"}),
        ("c-other-builder", {"builder": "tensorrt", "builder_version": version}),
    ]
    for order, (name, changes) in enumerate(others, 1):
        aged(rewritten(engine, engine.path.with_name(name), **changes), order)
    return engine


def test_an_engine_of_the_other_builder_is_no_choice(several: Engine) -> None:
    version = several.manifest.builder_version
    assert choose_engine(several.artifact, TRT, version, GPU).path.name == "c-other-builder"
    assert choose_engine(several.artifact, RTX, version, GPU).manifest.builder is RTX


def test_a_precision_asked_for_chooses_among_engines(several: Engine) -> None:
    version, precision = several.manifest.builder_version, several.manifest.precision
    other = next(one for one in EnginePrecision if one is not precision)
    older = aged(rewritten(several, several.path.with_name("e-other-precision"), precision=other), -1)
    assert choose_engine(several.artifact, RTX, version, GPU, precision.value).path.name == "b-two-targets"
    assert choose_engine(several.artifact, RTX, version, GPU, other.value).path == older
    (missing,) = set(EnginePrecision) - {precision, other}
    with pytest.raises(ArtifactError, match=f"has no {missing} tensorrt-rtx engine") as caught:
        choose_engine(several.artifact, RTX, version, GPU, missing.value)
    assert caught.value.hint == f"run: sait-deploy build-engine --builder tensorrt-rtx --precision {missing}"


def test_damage_of_one_builder_is_nothing_to_the_other(several: Engine) -> None:
    version, damaged = several.manifest.builder_version, several.path.with_name("tensorrt-10.16-sm89-fp16")
    shutil.copytree(several.path, damaged)
    (damaged / MANIFEST_FILE).write_text("{")
    assert choose_engine(several.artifact, RTX, version, GPU).path.name == "b-two-targets"
    with pytest.raises(ArtifactError, match="is not JSON"):
        choose_engine(several.artifact, TRT, version, GPU)


@pytest.mark.parametrize(
    ("version", "target", "name"),
    [
        (None, TARGET, "b-two-targets"),
        (None, "sm120", "a-other-target"),
        ("9.9", TARGET, "d-other-version"),
    ],
)
def test_of_those_that_fit_the_newest_is_chosen(several: Engine, version: str | None, target: str, name: str) -> None:
    wanted = version or several.manifest.builder_version
    assert choose_engine(several.artifact, RTX, wanted, Device("a GPU", target)).path.name == name


def test_a_rebuilt_engine_is_the_newest(several: Engine) -> None:
    aged(several.path, 100)
    found = choose_engine(several.artifact, RTX, several.manifest.builder_version, GPU)
    assert found.path == several.path


def test_where_none_fits_the_newest_says_why(several: Engine) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        choose_engine(several.artifact, RTX, several.manifest.builder_version, Device("another GPU", "sm75"))
    assert caught.value.message == f"engine {several.manifest.name} is for {TARGET}, this GPU is another GPU (sm75)"
    assert "build-engine" in caught.value.hint


def test_another_gpu_or_version_is_refused(engine: Engine) -> None:
    version = engine.manifest.builder_version
    check_runs_here(engine.manifest, version, GPU)
    with pytest.raises(RuntimeUnavailable, match=rf"is for {TARGET}, this GPU is another GPU \(sm120\)") as caught:
        check_runs_here(engine.manifest, version, Device("another GPU", "sm120"))
    assert caught.value.exit_code == 7
    assert "build" in caught.value.hint
    with pytest.raises(
        RuntimeUnavailable, match=rf"was built with tensorrt-rtx {version}, 9\.9 is installed"
    ) as caught:
        check_runs_here(engine.manifest, "9.9", GPU)
    assert "build" in caught.value.hint


@pytest.mark.parametrize(
    ("portability", "other_version", "other_target", "older_target"),
    [
        ((), False, False, False),
        ((Portability.VERSIONS,), True, False, False),
        ((Portability.HARDWARE,), False, True, False),
        (tuple(Portability), True, True, False),
    ],
)
def test_portable_engines_run_elsewhere_in_the_way_they_were_built_for(
    engine: Engine, portability: tuple[str, ...], other_version: bool, other_target: bool, older_target: bool
) -> None:
    """Hardware compatibility begins with Ampere."""
    place = rewritten(engine, targets=["sm86"], builder_version="10.1", portability=list(portability))
    found = open_engine(engine.artifact, place).manifest
    check_runs_here(found, "10.1", Device("a GPU", "sm86"))
    cases = (("10.2", "sm86", other_version), ("10.1", "sm120", other_target), ("10.1", "sm75", older_target))
    for version, target, fits in cases:
        if fits:
            check_runs_here(found, version, Device("a GPU", target))
        else:
            with pytest.raises(RuntimeUnavailable):
                check_runs_here(found, version, Device("a GPU", target))
    if other_version and other_target:
        check_runs_here(found, "10.2", Device("a GPU", "sm120"))
    elif portability:
        with pytest.raises(RuntimeUnavailable):
            check_runs_here(found, "10.2", Device("a GPU", "sm120"))


def test_a_damaged_engine_that_would_be_chosen_is_not_passed_over(several: Engine) -> None:
    version = several.manifest.builder_version
    cut_short(several.path.with_name("a-other-target") / "stem.plan")
    assert choose_engine(several.artifact, RTX, version, GPU).path.name == "b-two-targets"
    cut_short(several.path.with_name("b-two-targets") / "stem.plan")
    with pytest.raises(ArtifactError, match="b-two-targets"):
        choose_engine(several.artifact, RTX, version, GPU)


def test_an_engine_tuned_on_one_gpu_is_refused_on_another_of_its_architecture(engine: Engine) -> None:
    """TensorRT itself only warns, of errors and deadlocks."""
    version = engine.manifest.builder_version
    tuned = dataclasses.replace(engine.manifest, gpu="NVIDIA A")
    check_runs_here(tuned, version, Device("NVIDIA A", TARGET))
    with pytest.raises(RuntimeUnavailable, match=rf"is for NVIDIA A, this GPU is NVIDIA B \({TARGET}\)"):
        check_runs_here(tuned, version, Device("NVIDIA B", TARGET))
    portable = dataclasses.replace(tuned, portability=(Portability.HARDWARE,))
    check_runs_here(portable, version, Device("NVIDIA B", TARGET))
