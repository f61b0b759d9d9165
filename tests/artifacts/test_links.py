"""Artifacts in a Hugging Face hub cache, whose files are links to blobs, and links that lead elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, Artifact, open_artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.tuned_points import points_path, write_point
from sait_deploy.engine.lowering import lower_parts
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters import finish as finish_module
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, SelectionForm
from sait_deploy.exporting.stage import export
from sait_deploy.runtime import load
from sait_deploy.runtime.onnxruntime import optimised
from tests.artifacts.test_tuned_points import MANIFEST, tuned
from tests.exported import fill
from tests.exporting.exports import HALVES, ONE_THREAD, smallest, to


def in_cache(folder: Path, cache: Path, inner: str = "") -> Path:
    """Moves a folder's files into a hub cache, as a download puts them there, and returns the snapshot's folder."""
    blobs, snapshot = cache / "models--me--mine" / "blobs", cache / "models--me--mine" / "snapshots" / "0a1b" / inner
    blobs.mkdir(parents=True)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob, place = blobs / sha256_of(file), snapshot / file.relative_to(folder)
        file.rename(blob)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blob, place.parent))
    return snapshot


def lowered_files(artifact: Artifact, folder: Path) -> dict[str, bytes]:
    """What a TensorRT builder is given, by file name."""
    folder.mkdir()
    lower_parts(artifact, LowerOptions(EnginePrecision.FP32, AttentionForm.FUSED, SelectionForm.FUNCTION), folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def refused(place: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        open_artifact(place)
    assert caught.value.hint


@pytest.mark.parametrize("inner", ["", "artifacts/mine"])
def test_an_artifact_in_a_hub_cache_opens(place: Path, tmp_path: Path, manifest: Manifest, inner: str) -> None:
    snapshot = in_cache(place, tmp_path / "hub", inner)
    assert (snapshot / MODEL_FILE).is_symlink() and (snapshot / MANIFEST_FILE).is_symlink()
    assert open_artifact(snapshot).manifest.id == manifest.id
    assert open_artifact(snapshot).golden().pixels.shape == (4, 4, 3)
    (tmp_path / "link").symlink_to(snapshot)
    assert open_artifact(tmp_path / "link").manifest.id == manifest.id


def test_its_tuned_points_are_read(tmp_path: Path) -> None:
    place = tmp_path / "artifact"
    place.mkdir()
    fill(place, MANIFEST)
    write_point(place, MANIFEST, tuned(MANIFEST))
    name = tuned(MANIFEST).point.name
    snapshot = in_cache(place, tmp_path / "hub")
    assert points_path(snapshot, name).is_symlink()
    pruning = open_artifact(snapshot).manifest.pruning
    assert pruning is not None and pruning.points[-1].name == name


def test_weights_beside_the_graph_run_from_a_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", 10_000)
    _, half = export(smallest(), to(tmp_path / "artifacts", densities=HALVES.densities))
    assert f"{MODEL_FILE}.data" in half.manifest.files
    golden = half.golden()
    expected = load(half, options=ONE_THREAD).run(golden.images)
    nodes, lowered = len(optimised(half).graph.node), lowered_files(half, tmp_path / "lowered")
    linked = open_artifact(in_cache(half.path, tmp_path / "hub"))
    runner = load(linked, options=ONE_THREAD)
    np.testing.assert_array_equal(runner.run(golden.images).logits, expected.logits)
    np.testing.assert_array_equal(runner.select(golden.images).logits, expected.logits)
    assert len(optimised(linked).graph.node) == nodes
    assert lowered_files(linked, tmp_path / "again") == lowered


def test_a_changed_blob_is_named(place: Path, tmp_path: Path) -> None:
    snapshot = in_cache(place, tmp_path / "hub")
    (snapshot / GOLDEN_FILE).resolve().write_bytes(b"other")
    refused(snapshot, f"{GOLDEN_FILE} has SHA-256")


def test_links_that_leave_the_caches_blobs_are_refused(place: Path, tmp_path: Path) -> None:
    snapshot = in_cache(place, tmp_path / "hub")
    file = snapshot / MODEL_FILE
    blob, blobs = file.resolve(), tmp_path / "hub" / "models--me--mine" / "blobs"
    other = tmp_path / "hub" / "models--me--other" / "blobs" / blob.name
    deeper = blobs / "deeper" / blob.name
    for elsewhere in (other, deeper, snapshot / "real", snapshot.parent / "blobs" / blob.name):
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(blob, elsewhere)
        file.unlink()
        file.symlink_to(os.path.relpath(elsewhere, snapshot))
        refused(snapshot, f"{MODEL_FILE} is a link to ")
    file.unlink()
    file.symlink_to(os.path.relpath(blob, snapshot))
    assert open_artifact(snapshot)
    blob.unlink()
    blob.symlink_to(other)
    refused(snapshot, f"{MODEL_FILE} is a link to ")


def test_a_folder_of_blobs_that_is_a_link_is_refused(place: Path, tmp_path: Path) -> None:
    snapshot = in_cache(place, tmp_path / "hub")
    blobs = tmp_path / "hub" / "models--me--mine" / "blobs"
    blobs.rename(tmp_path / "away")
    blobs.symlink_to(tmp_path / "away")
    refused(snapshot, "is a link to ")


def test_a_hard_link_is_called_one(place: Path, tmp_path: Path) -> None:
    os.link(place / MODEL_FILE, tmp_path / "second")
    refused(place, f"{MODEL_FILE} has 2 names on this disk: hard links")
    (tmp_path / "second").unlink()
    snapshot = in_cache(place, tmp_path / "hub")
    os.link((snapshot / MODEL_FILE).resolve(), tmp_path / "second")
    refused(snapshot, "has 2 names on this disk: hard links")
