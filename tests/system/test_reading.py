"""The one door for files: what is opened, what is refused and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sait_deploy.system.reading import check_regular, parse_json, read_bytes, read_text


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("é\r\n".encode())
    assert (read_text(file), read_bytes(file)) == ("é\n", "é\r\n".encode())


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "pipe"), (Path("/dev/zero"), "device"), (tmp_path, "folder")):
        with pytest.raises(OSError, match=what):
            read_bytes(path)


def test_a_file_of_more_bytes_than_asked_for_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(11))
    assert len(read_bytes(file, 11)) == 11
    with pytest.raises(OSError, match="11 bytes"):
        read_bytes(file, 10)


def test_a_file_of_holes_is_refused_and_a_written_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("wb") as opened:
        opened.truncate(1 << 30)
    with pytest.raises(OSError, match="holes"):
        check_regular(file)
    with file.open("r+b") as opened:
        opened.truncate(100)
    check_regular(file)


def test_a_file_of_proc_says_that_it_is_empty_and_is_read() -> None:
    assert read_bytes(Path("/proc/self/status"))


@pytest.mark.parametrize("depth", [1, 64])
def test_json_of_some_depth_is_read(depth: int) -> None:
    assert parse_json("[" * depth + "]" * depth) is not None


@pytest.mark.parametrize("text", ["[" * 66 + "]" * 66, '{"a":' * 66 + "1" + "}" * 66, "[" * 100_000])
def test_json_that_goes_too_deep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"deeper than 64|Expecting"):
        parse_json(text)


def test_wide_json_is_not_deep() -> None:
    assert len(parse_json("[" + ",".join(["[]"] * 1000) + "]")) == 1000


def test_a_field_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="it names 'b' twice"):
        parse_json('{"a": {"b": 1, "c": 2, "b": 3}}')


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", '{"a": -Infinity}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
