"""What a job finds in a folder, in Parquet and behind a URL: every image once, in the same order each time."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.batch.listing import Shard, list_shards
from sait_deploy.batch.place import open_place
from sait_deploy.errors import ImageError, InvalidArgument, SaitError

pa: Any = pytest.importorskip("pyarrow", reason="jobs need Ray Data, which brings pyarrow and has no wheel here")

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
FILES = st.sets(NAMES, min_size=1, max_size=20)


def listed(place: object, size: int = 3, column: str | None = None) -> list[Shard]:
    return list(list_shards(open_place(str(place)), size, column))


def parquet(file: Path, columns: dict[str, Any], group: int = 1000) -> Path:
    from pyarrow import parquet as files

    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pa.table(columns), file, row_group_size=group)
    return file


def write(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not read here")


@given(FILES, st.integers(1, 8))
def test_shards_hold_every_image_once_and_a_url_lists_what_a_folder_does(
    tmp_path_factory: pytest.TempPathFactory, found: set[str], size: int
) -> None:
    folder = tmp_path_factory.mktemp("images")
    names = [f"{name}.png" for name in found]
    write(folder, [*names, ".hidden.png", "notes.txt", ".folder/a.png"])
    shards = listed(folder, size)
    assert sorted(name for shard in shards for name in shard.names()) == sorted(names)
    assert all(shard.images == len(shard.files) == size for shard in shards[:-1])
    assert listed(folder, size) == shards == listed(f"file://{folder}", size)
    memory: Any = pytest.importorskip("fsspec").filesystem("memory")
    root = f"/{uuid.uuid4()}"
    for file in [*names, ".hidden.png", "notes.txt"]:
        memory.pipe_file(f"{root}/{file}", b"x")
    assert listed(f"memory:/{root}", size) == shards


def test_one_file_is_an_input_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, ["photo", "other.png"])
    assert listed(tmp_path / "photo") == [Shard(1, ("photo",))]


def test_parquet_is_split_at_row_groups_alone(tmp_path: Path) -> None:
    parquet(tmp_path / "b" / "one.parquet", {"image": [b"x"] * 10, "id": list(range(10))}, group=4)
    parquet(tmp_path / "a.parquet", {"image": [b"x"] * 3})
    shards = listed(tmp_path, 5)
    assert shards == [
        Shard(3, ("a.parquet",), "image", (0, 1), 0),
        Shard(8, ("b/one.parquet",), "image", (0, 2), 0),
        Shard(2, ("b/one.parquet",), "image", (2, 3), 8),
    ]
    assert shards[2].names() == ["b/one.parquet#8", "b/one.parquet#9"]


@pytest.mark.parametrize(
    ("columns", "asked", "wanted"),
    [
        ({"id": [1], "picture": [b"x"]}, None, "picture"),
        ({"other": [b"x"], "image": [b"x"]}, None, "image"),
        ({"other": [b"x"], "image": [b"x"]}, "other", "other"),
        ({"img": [{"bytes": b"x", "path": "a.png"}], "label": [1]}, None, "img"),
    ],
)
def test_the_column_of_images_is_found_or_named(
    tmp_path: Path, columns: dict[str, Any], asked: str | None, wanted: str
) -> None:
    (shard,) = listed(parquet(tmp_path / "x.parquet", columns), column=asked)
    assert shard.column == wanted


def refusal(place: Path, column: str | None = None) -> SaitError:
    with pytest.raises(SaitError) as caught:
        listed(place, column=column)
    assert "\n" not in caught.value.message and caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("files", "kind", "said"),
    [
        ((), ImageError, "holds no image"),
        (("notes.txt", "data.csv"), ImageError, "holds no image"),
        (("a.png", "b.parquet"), InvalidArgument, "image files and Parquet files"),
        (("b.parquet",), ImageError, "no Parquet file that can be read"),
    ],
)
def test_a_folder_that_cannot_be_an_input_says_why(
    tmp_path: Path, files: Sequence[str], kind: type[SaitError], said: str
) -> None:
    write(tmp_path, files)
    error = refusal(tmp_path)
    assert isinstance(error, kind) and re.search(said, error.message)


@pytest.mark.parametrize(
    ("columns", "asked", "said"),
    [
        ({"url": ["x"], "id": [1]}, None, r"no column of images: it has url \(string\), id"),
        ({"image": ["path.png"]}, None, "no column of images"),
        ({"image": [b"x"]}, "img", "no column 'img' of images"),
        ({"a": [b"x"], "b": [b"x"]}, None, "several columns of bytes: a, b"),
    ],
)
def test_parquet_without_a_column_of_images_says_what_it_has(
    tmp_path: Path, columns: dict[str, Any], asked: str | None, said: str
) -> None:
    error = refusal(parquet(tmp_path / "x.parquet", columns), asked)
    assert isinstance(error, InvalidArgument) and re.search(said, error.message)


def test_what_is_not_there_or_no_folder_is_said(tmp_path: Path) -> None:
    assert "there is no image or folder" in refusal(tmp_path / "none").message
    os.mkfifo(tmp_path / "pipe")
    assert "there is no image or folder" in refusal(tmp_path / "pipe").message
    with pytest.raises(InvalidArgument, match="cannot be opened"):
        open_place("nosuchscheme://bucket/images")


def test_a_column_asked_of_image_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["a.png"])
    assert "have no column" in refusal(tmp_path, "image").message


def test_a_row_group_of_more_rows_than_a_shard_names_is_refused(tmp_path: Path) -> None:
    rows = (1 << 20) + 1
    error = refusal(parquet(tmp_path / "x.parquet", {"image": pa.nulls(rows, pa.binary())}, group=rows))
    assert f"a row group of {rows} rows" in error.message and "1,048,576" in error.hint


def test_bytes_within_bytes_are_no_images(tmp_path: Path) -> None:
    error = refusal(parquet(tmp_path / "x.parquet", {"image": [{"bytes": {"bytes": b"x"}}]}))
    assert "no column of images" in error.message
