"""Artifacts are found by name and id, and two never share a folder."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.folder import (
    LAST_EXPORT_FILE,
    MANIFEST_FILE,
    Artifact,
    Workspace,
    open_artifact,
)
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.errors import ArtifactError
from tests.artifacts.places import named, names, put
from tests.exported import draft


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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"[1]", b"7", b"\xff", b"[" * 100_000, b'["a/b"]', b'["/b"]', b'[".."]']
)
def test_a_damaged_record_of_the_last_export(workspace: Workspace, content: bytes) -> None:
    workspace.prepare()
    (workspace.root / LAST_EXPORT_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="lists no artifacts beside it: it is damaged"):
        workspace.last_export()


def test_artifacts_are_values(place: Path) -> None:
    artifact = open_artifact(place)
    assert artifact == Artifact(place, artifact.manifest)
    with pytest.raises(dataclasses.FrozenInstanceError):
        artifact.path = place.parent  # type: ignore[misc]
