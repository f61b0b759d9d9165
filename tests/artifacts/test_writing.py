"""An artifact is whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import (
    MANIFEST_FILE,
    MODEL_FILE,
    Workspace,
    open_artifact,
    storage_errors,
    write_manifest,
)
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.errors import StorageError
from tests.artifacts.places import names, put
from tests.exported import fill


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
        assert "elsewhere" in caught.value.hint


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
