"""Reports and pictures are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sait_deploy.artifacts.files import check_writable, write_whole
from sait_deploy.errors import StorageError


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "report.json"
    write_whole(place, b"old")
    check_writable(place)
    assert place.read_bytes() == b"old", "looking whether it can be written changes nothing"
    write_whole(place, b"new")
    assert place.read_bytes() == b"new"
    assert [path.name for path in place.parent.iterdir()] == ["report.json"]


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "report.json")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("place", ["file/report.json", "file/a/report.json", "folder", f"{'long' * 100}.json"])
def test_places_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    (tmp_path / "folder").mkdir()
    for attempt in (check_writable, lambda path: write_whole(path, b"new")):
        with pytest.raises(StorageError) as refused:
            attempt(tmp_path / place)
        assert str(tmp_path / place) in refused.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"in the way"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_or_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    place = tmp_path / "report.json"
    write_whole(place, b"old")

    def cut_short(descriptor: int) -> None:
        os.ftruncate(descriptor, 1)
        raise error

    monkeypatch.setattr(os, "fsync", cut_short)
    with pytest.raises((KeyboardInterrupt, StorageError)):
        write_whole(place, b"new")
    assert place.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [place]
