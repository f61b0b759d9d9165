"""An artifact is checked before anything in it is used."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Artifact,
    open_artifact,
)
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.manifest_document import from_json
from sait_deploy.errors import ArtifactError, InvalidArgument
from tests.artifacts.places import FILES, rewrite
from tests.exported import WEIGHTS, signed


def test_an_artifact_opens_as_it_was_written(place: Path, manifest: Manifest) -> None:
    for path in (place, str(place)):
        artifact = open_artifact(path)
        assert dataclasses.replace(artifact.manifest, files=manifest.files) == manifest
        assert artifact.model_path == place / MODEL_FILE
        assert artifact.manifest.files == {name: sha256_of(place / name) for name in FILES}


def test_what_is_no_artifact_gets_the_hint_that_fits(place: Path) -> None:
    for path, hint in (
        (place.parent, f"name what is in it, such as {place}"),
        (Path("8"), "numbers of one option are separated by commas, such as --batch 1,8"),
        (place / "nothing", "make one with: sait-deploy export"),
    ):
        with pytest.raises(ArtifactError) as caught:
            open_artifact(path)
        assert caught.value.hint == hint


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
    refused(place, f"{name} has 2 names on this disk: hard links")


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


@pytest.mark.parametrize("path", [None, 3, b"here", []])
def test_what_is_no_path_is_no_artifact(path: Any) -> None:
    with pytest.raises(InvalidArgument, match="is no artifact"):
        open_artifact(path)
