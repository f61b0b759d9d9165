"""Artifact folders: whole or absent, put right after a crash, and checked before anything in them is used."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.external_data_helper import set_external_data

from sait_deploy.artifact import (
    GOLDEN_FILE,
    LAST_EXPORT_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Artifact,
    Workspace,
    open_artifact,
    sha256_of,
    storage_errors,
    write_manifest,
)
from sait_deploy.errors import ArtifactError, StorageError
from sait_deploy.manifest import Manifest, from_json
from tests.exported import WEIGHTS, draft, fill, signed

FILES = (MODEL_FILE, GOLDEN_FILE)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return draft()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "artifacts")


@pytest.fixture
def place(workspace: Workspace, manifest: Manifest) -> Path:
    """A whole artifact in the workspace."""
    return put(workspace, manifest)


def put(workspace: Workspace, manifest: Manifest, name: str | None = None) -> Path:
    place = workspace.place_for(name or manifest.name, manifest.id)
    with workspace.writing(place) as folder:
        fill(folder, manifest)
    return place


def named(manifest: Manifest, name: str, digest: str = "0") -> Manifest:
    return dataclasses.replace(manifest, name=name, id=f"{name}-{digest}")


def rewrite(place: Path, **changes: Any) -> None:
    data = json.loads((place / MANIFEST_FILE).read_text(encoding="utf-8"))
    (place / MANIFEST_FILE).write_text(json.dumps({**data, **changes}), encoding="utf-8")


def names(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.root.iterdir()}


# Opening


def test_an_artifact_opens_as_it_was_written(place: Path, manifest: Manifest) -> None:
    for path in (place, str(place)):
        artifact = open_artifact(path)
        assert dataclasses.replace(artifact.manifest, files=manifest.files) == manifest
        assert artifact.model_path == place / MODEL_FILE
        assert artifact.manifest.files == {name: sha256_of(place / name) for name in FILES}


def test_the_golden_file_reads_back(place: Path) -> None:
    golden = open_artifact(place).golden()
    assert golden.pixels.shape == (4, 4, 3) and golden.pixels.dtype == np.uint8
    assert golden.images.shape == (1, 3, 4, 4) and golden.images.dtype == np.float32
    assert golden.logits.shape == (1, 2) and golden.logits.dtype == np.float32
    assert golden.counts.tolist() == [1] and golden.counts.dtype == np.int32


def refused(place: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        open_artifact(place)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", "does not exist")


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    refused(tmp_path, "no manifest")


def test_a_file_is_no_artifact(place: Path) -> None:
    refused(place / MODEL_FILE, "is no folder")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"{}"])
def test_a_manifest_that_is_none(place: Path, content: bytes) -> None:
    (place / MANIFEST_FILE).write_bytes(content)
    refused(place, "manifest")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(place: Path, name: str) -> None:
    (place / name).unlink()
    refused(place, f"{name} is missing")


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_named(place: Path, name: str) -> None:
    (place / name).write_bytes(b"")
    refused(place, f"{name} is empty")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
def test_a_changed_file_is_named(place: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (place / name).write_bytes(change((place / name).read_bytes()))
    refused(place, f"{name} has SHA-256")


@pytest.mark.parametrize("name", FILES)
def test_links_are_refused_though_the_content_is_right(place: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(place / name, outside)
    (place / name).symlink_to(outside)
    refused(place, f"{name} is a link")
    (place / name).unlink()
    (place / name).hardlink_to(outside)
    refused(place, f"{name} is a link")


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_without_reading_it(place: Path, name: str) -> None:
    (place / name).unlink()
    os.mkfifo(place / name)
    refused(place, f"{name} is missing")
    (place / name).unlink()
    (place / name).mkdir()
    refused(place, f"{name} is missing")
    (place / name).rmdir()
    (place / name).symlink_to(place / name)
    refused(place, f"{name} is missing")


@pytest.mark.parametrize(
    "name", ["../secret", "sub/secret", "sub/../secret", "..", ".", "", "/", "./secret", "secret/"]
)
def test_names_that_lead_elsewhere_are_refused(place: Path, name: str) -> None:
    (place / "sub").mkdir()
    for folder in (place, place / "sub", place.parent):
        (folder / "secret").write_bytes(b"secret")
    files = open_artifact(place).manifest.files
    rewrite(place, files={**files, name: sha256_of(place / "secret")})
    refused(place, "not a plain file name")


def test_absolute_names_are_refused(place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    rewrite(place, files={**open_artifact(place).manifest.files, str(secret): sha256_of(secret)})
    refused(place, "not a plain file name")


def test_a_name_with_a_null_byte_is_refused(place: Path) -> None:
    rewrite(place, files={**open_artifact(place).manifest.files, "a\0b": "0" * 64})
    refused(place, "missing|plain")


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_has_to_list_the_files_that_are_used(place: Path, name: str) -> None:
    files = {key: value for key, value in open_artifact(place).manifest.files.items() if key != name}
    rewrite(place, files=files)
    refused(place, f"does not list {name}")


@pytest.mark.parametrize("missing", ["pixels", "images", "logits", "counts"])
def test_a_golden_file_without_an_array(place: Path, missing: str) -> None:
    artifact = open_artifact(place)
    with np.load(place / GOLDEN_FILE) as arrays:
        kept = {name: arrays[name] for name in arrays if name != missing}
    np.savez(place / GOLDEN_FILE, **kept)
    with pytest.raises(ArtifactError, match=missing):
        artifact.golden()


def object_array(path: Path) -> None:
    np.savez(path, pixels=np.array([{}], dtype=object), images=1, logits=1, counts=1)


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(150, 250):
        data[position] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage"),
        lambda path: path.write_bytes(b"PK\x03\x04garbage"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.unlink(),
        flipped,
        single_array,
        object_array,
    ],
)
def test_a_spoilt_golden_file_is_one_error(place: Path, spoil: Callable[[Path], object]) -> None:
    artifact = open_artifact(place)
    spoil(place / GOLDEN_FILE)
    with pytest.raises(ArtifactError, match="golden") as caught:
        artifact.golden()
    assert caught.value.hint


def keep_weights_in(place: Path, location: str) -> None:
    """Has the graph read its weights from another file, and signs the result."""
    model = onnx.load(str(place / MODEL_FILE))
    for number, tensor in enumerate(model.graph.initializer):
        length = len(tensor.raw_data)
        set_external_data(tensor, location, offset=number * length, length=length)
        tensor.ClearField("raw_data")
    (place / MODEL_FILE).write_bytes(model.SerializeToString())
    signed(open_unchecked(place))


def open_unchecked(place: Path) -> Artifact:
    return Artifact(place, from_json((place / MANIFEST_FILE).read_text(encoding="utf-8")))


@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "sub/w.bin", "./model.onnx.data", "/etc/passwd", ""])
def test_weights_in_a_file_that_was_not_checked_are_refused(place: Path, location: str) -> None:
    (place / "sub").mkdir()
    for folder in (place, place / "sub", place.parent):
        (folder / "w.bin").write_bytes(bytes(8 * WEIGHTS))
    keep_weights_in(place, location)
    refused(place, "manifest does not list")


def test_weights_in_a_listed_file_are_checked_with_it(place: Path) -> None:
    name = "model.onnx.data"
    (place / name).write_bytes(bytes(8 * WEIGHTS))
    keep_weights_in(place, name)
    rewrite(place, files={**open_unchecked(place).manifest.files, name: sha256_of(place / name)})
    assert open_artifact(place)
    (place / name).write_bytes(b"1" + bytes(8 * WEIGHTS - 1))
    refused(place, f"{name} has SHA-256")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_model_cut_short_is_refused_though_signed(place: Path, share: float) -> None:
    data = (place / MODEL_FILE).read_bytes()
    (place / MODEL_FILE).write_bytes(data[: int(share * len(data))])
    signed(open_unchecked(place))
    refused(place, "no ONNX model")


# Writing


def test_what_is_written_takes_its_place(workspace: Workspace, manifest: Manifest) -> None:
    place = workspace.root / "one"
    with workspace.writing(place) as folder:
        assert folder != place and not place.exists()
        assert folder.parent == place.parent
        assert list(folder.iterdir()) == []
        fill(folder, manifest)
    assert names(workspace) == {"one"}
    assert open_artifact(place).manifest.id == manifest.id


def test_an_older_artifact_stays_until_the_new_one_is_whole(
    workspace: Workspace, place: Path, manifest: Manifest
) -> None:
    (place / "engine").mkdir()
    newer = dataclasses.replace(manifest, created="later")
    with workspace.writing(place) as folder:
        fill(folder, newer)
        assert open_artifact(place).manifest.created == manifest.created
    assert open_artifact(place).manifest.created == "later"
    assert not (place / "engine").exists()
    assert names(workspace) == {place.name}


class Interrupt(BaseException):
    """Something that is no Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError, Interrupt])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_error_leaves_the_old_artifact_and_nothing_else(
    workspace: Workspace, place: Path, manifest: Manifest, error: type[BaseException], step: int
) -> None:
    with pytest.raises(error), workspace.writing(place) as folder:
        if step > 0:
            (folder / MODEL_FILE).write_bytes(b"half")
        if step > 1:
            fill(folder, dataclasses.replace(manifest, created="later"))
        raise error
    assert names(workspace) == {place.name}
    assert open_artifact(place).manifest.created == manifest.created


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing_where_nothing_was(workspace: Workspace, error: type[BaseException]) -> None:
    with pytest.raises(error), workspace.writing(workspace.root / "one") as folder:
        (folder / MODEL_FILE).write_bytes(b"half")
        raise error
    assert names(workspace) == set()


def test_the_old_artifact_comes_back_when_the_new_one_cannot_take_its_place(
    workspace: Workspace, place: Path, manifest: Manifest
) -> None:
    with pytest.raises(StorageError, match="No such file"), workspace.writing(place) as folder:
        shutil.rmtree(folder)
    assert names(workspace) == {place.name}
    assert open_artifact(place).manifest.id == manifest.id


def test_two_artifacts_may_be_written_at_once(workspace: Workspace, manifest: Manifest) -> None:
    places = workspace.root / "one", workspace.root / "two"
    with workspace.writing(places[0]) as first, workspace.writing(places[1]) as second:
        workspace.prepare()
        fill(first, manifest)
        fill(second, manifest)
    assert names(workspace) == {"one", "two"}
    assert all(open_artifact(place) for place in places)


# After a crash


_CRASH = """
import os, signal, sys
from pathlib import Path
from sait_deploy.artifact import Workspace
root, stage = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def dying(path, target):
    if stage == "aside" and path.name.startswith(".partial-"):
        os.kill(os.getpid(), signal.SIGKILL)
    moved = rename(path, target)
    return moved

Path.rename = dying
with Workspace(root).writing(root / "one") as folder:
    (folder / "model.onnx").write_bytes(b"half")
    if stage == "partial":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(workspace: Workspace, stage: str) -> int:
    """Kills a process while it writes ``one``, or between its two renames; returns its number."""
    with subprocess.Popen([sys.executable, "-c", _CRASH, str(workspace.root), stage]) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    return process.pid


@pytest.mark.parametrize("stage", ["partial", "aside"])
def test_a_killed_export_is_put_right(workspace: Workspace, manifest: Manifest, stage: str) -> None:
    place = put(workspace, named(manifest, "one"))
    before = open_artifact(place).manifest
    crash(workspace, stage)
    assert names(workspace) != {"one"}
    assert place.exists() == (stage == "partial")
    workspace.recover()
    assert names(workspace) == {"one"}
    assert open_artifact(place).manifest == before


def test_a_killed_first_export_leaves_nothing(workspace: Workspace) -> None:
    crash(workspace, "partial")
    assert names(workspace)
    workspace.prepare()
    assert names(workspace) == set()


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def running() -> Iterator[int]:
    """The number of another process that runs."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_an_aside_folder_is_dropped_where_the_new_one_stands(workspace: Workspace, place: Path, ended: int) -> None:
    shutil.copytree(place, workspace.root / f".aside-{place.name}@{ended}")
    workspace.recover()
    assert names(workspace) == {place.name}


def test_what_a_running_process_writes_is_left_alone(workspace: Workspace, place: Path, running: int) -> None:
    mine = {f".partial-one@{running}", f".aside-two@{running}", f".partial-{LAST_EXPORT_FILE}@{running}"}
    for name in mine:
        shutil.copytree(place, workspace.root / name)
    workspace.recover()
    assert names(workspace) == {place.name} | mine


def test_leftovers_of_a_process_that_had_this_ones_number(workspace: Workspace, manifest: Manifest) -> None:
    """In a container every run may have the number 1."""
    place = put(workspace, named(manifest, "one"))
    (workspace.root / f".partial-one@{os.getpid()}").mkdir()
    shutil.copytree(place, workspace.root / f".aside-one@{os.getpid()}")
    (workspace.root / f".partial-one@{os.getpid()}" / "half").write_bytes(b"half")
    workspace.prepare()
    assert put(workspace, named(manifest, "one")) == place
    assert names(workspace) == {"one"}


def test_what_this_process_is_writing_is_left_alone(workspace: Workspace, manifest: Manifest) -> None:
    with workspace.writing(workspace.root / "one") as folder:
        Workspace(os.path.relpath(workspace.root)).recover()
        fill(folder, manifest)
    assert open_artifact(workspace.root / "one")


@pytest.mark.parametrize("process", ["", "x", "-1", "0x7", "1.5", "9" * 30])
def test_leftovers_without_a_process_are_removed(workspace: Workspace, place: Path, process: str) -> None:
    (workspace.root / f".partial-one@{process}").mkdir()
    (workspace.root / ".partial-one").mkdir()
    workspace.recover()
    assert names(workspace) == {place.name}


def test_leftover_files_are_removed_too(workspace: Workspace, place: Path, ended: int) -> None:
    (workspace.root / f".partial-{LAST_EXPORT_FILE}@{ended}").write_text("[", encoding="utf-8")
    workspace.recover()
    assert names(workspace) == {place.name}


def test_recovering_touches_nothing_else(workspace: Workspace, place: Path) -> None:
    (workspace.root / ".git").mkdir()
    (workspace.root / "notes.txt").write_text("mine", encoding="utf-8")
    (workspace.root / "partial-one@1").mkdir()
    before = names(workspace)
    workspace.recover()
    assert names(workspace) == before


def test_recovering_a_workspace_that_is_not_there(workspace: Workspace) -> None:
    workspace.recover()
    assert not workspace.root.exists()


# Storage that refuses


def test_a_full_disk_keeps_the_old_artifact(small_disk: Path, manifest: Manifest) -> None:
    workspace = Workspace(small_disk / "artifacts")
    workspace.prepare()
    place = put(workspace, manifest)
    with pytest.raises(StorageError, match="no space left") as caught, workspace.writing(place) as folder:
        (folder / MODEL_FILE).write_bytes(bytes(2**21))
    assert str(workspace.root) in caught.value.message
    assert caught.value.hint
    assert names(workspace) == {place.name}
    assert open_artifact(place).manifest.id == manifest.id


def test_a_disk_that_fills_up_with_the_last_file(small_disk: Path, manifest: Manifest) -> None:
    workspace = Workspace(small_disk)
    with pytest.raises(StorageError, match="no space left"), workspace.writing(small_disk / "one") as folder:
        filled = fill(folder, manifest)
        (folder / MANIFEST_FILE).unlink()
        with contextlib.suppress(OSError), (folder / MODEL_FILE).open("ab") as file:
            file.write(bytes(2**21))
        write_manifest(folder, filled)
    assert names(workspace) == set()


def test_the_last_export_is_kept_when_the_new_one_cannot_be_written(small_disk: Path) -> None:
    workspace = Workspace(small_disk)
    workspace.record_last_export([small_disk / "one"])
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(2**21))
    with pytest.raises(StorageError):
        workspace.record_last_export([small_disk / f"{i:04}" for i in range(2000)])
    assert workspace.last_export() == [small_disk / "one"]


def test_a_file_system_that_cannot_be_written_to(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for root in (small_disk, small_disk / "artifacts"):
        with pytest.raises(StorageError, match="cannot write under") as caught:
            Workspace(root).prepare()
        assert str(root) in caught.value.message
        assert "--output" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission"):
            Workspace(tmp_path / "artifacts").prepare()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("below", ["", "artifacts", "a/b"])
def test_a_file_where_the_folder_should_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write under"):
        Workspace(tmp_path / "file" / below).prepare()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_name_too_long_for_the_file_system(workspace: Workspace) -> None:
    workspace.prepare()
    with pytest.raises(StorageError, match="too long"), workspace.writing(workspace.root / ("x" * 300)):
        pass
    assert names(workspace) == set()


def test_preparing_makes_the_folder_and_leaves_it_empty(workspace: Workspace) -> None:
    workspace.prepare()
    workspace.prepare()
    assert names(workspace) == set()


def test_errors_that_storage_does_not_make_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), storage_errors(tmp_path):
        raise ValueError("mine")


def test_an_operating_system_error_without_number(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="odd"), storage_errors(tmp_path):
        raise OSError("odd")


# Finding


def test_artifacts_are_listed_by_name(workspace: Workspace, manifest: Manifest, ended: int) -> None:
    assert workspace.artifacts() == []
    for name in ("b", "a"):
        put(workspace, named(manifest, name))
    shutil.copytree(workspace.root / "a", workspace.root / f".aside-c@{ended}")
    (workspace.root / "empty").mkdir()
    (workspace.root / "file").write_text("", encoding="utf-8")
    assert workspace.artifacts() == [workspace.root / "a", workspace.root / "b"]


def test_artifacts_are_found_by_id_past_broken_ones(workspace: Workspace, manifest: Manifest) -> None:
    put(workspace, named(manifest, "a"))
    (workspace.root / "a" / MANIFEST_FILE).write_bytes(b"\xff{")
    place = put(workspace, named(manifest, "b"))
    assert workspace.find("b-0") == place
    assert workspace.find("a-0") is None


def test_another_export_of_the_same_name_gets_its_id(workspace: Workspace, manifest: Manifest) -> None:
    first, second = named(manifest, "a", "1"), named(manifest, "a", "2")
    assert workspace.place_for("a", first.id) == workspace.root / "a"
    put(workspace, first)
    assert workspace.place_for("a", first.id) == workspace.root / "a"
    assert workspace.place_for("a", second.id) == workspace.root / "a-2"


def test_a_folder_that_is_no_artifact_is_never_replaced(workspace: Workspace, manifest: Manifest) -> None:
    notes = workspace.root / "a" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine", encoding="utf-8")
    put(workspace, named(manifest, "a"))
    assert notes.read_text(encoding="utf-8") == "mine"
    assert workspace.artifacts() == [workspace.root / "a-0"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("0123"), st.booleans()), min_size=1, max_size=10))
def test_two_ids_never_share_a_folder(steps: list[tuple[str, str, bool]]) -> None:
    base = draft_once()
    with tempfile.TemporaryDirectory() as folder:
        workspace, written = Workspace(folder), dict[str, Path]()
        for name, digest, break_it in steps:
            manifest = named(base, name, digest)
            place = put(workspace, manifest)
            assert written.setdefault(manifest.id, place) == place
            assert len(set(written.values())) == len(written)
            for artifact_id, known in written.items():
                assert open_artifact(known).manifest.id == artifact_id
            if break_it:
                (place / MANIFEST_FILE).write_text("{", encoding="utf-8")
                del written[manifest.id]


_DRAFT: list[Manifest] = []


def draft_once() -> Manifest:
    if not _DRAFT:
        _DRAFT.append(draft())
    return _DRAFT[0]


# What was exported last


def test_the_last_export_is_remembered(workspace: Workspace) -> None:
    workspace.prepare()
    places = [workspace.root / name for name in ("dense", "half", "tête")]
    workspace.record_last_export(places)
    assert workspace.last_export() == places
    workspace.record_last_export(places[:1])
    assert workspace.last_export() == places[:1]
    assert names(workspace) == {LAST_EXPORT_FILE}


def test_nothing_was_exported_yet(workspace: Workspace) -> None:
    with pytest.raises(ArtifactError, match="nothing was exported") as caught:
        workspace.last_export()
    assert "sait-deploy export" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"7", b"\xff", b"[" * 100_000])
def test_a_damaged_record_of_the_last_export(workspace: Workspace, content: bytes) -> None:
    workspace.prepare()
    (workspace.root / LAST_EXPORT_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="nothing was exported"):
        workspace.last_export()


def test_artifacts_are_values(place: Path) -> None:
    artifact = open_artifact(place)
    assert artifact == Artifact(place, artifact.manifest)
    with pytest.raises(dataclasses.FrozenInstanceError):
        artifact.path = place.parent  # type: ignore[misc]
