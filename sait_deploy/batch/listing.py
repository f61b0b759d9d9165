"""What there is to compute: an input's images in shards, listed in an order of their own, a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sait_deploy.batch.place import Place
from sait_deploy.errors import ImageError, InvalidArgument, first_line
from sait_deploy.images.formats import files_under, suffixes

PARQUET: Final = ".parquet"
IMAGE_COLUMN: Final = "image"
_HINT: Final = "check the path and who may read it"
_MOST_ROWS: Final = 1 << 20
"""Rows of a row group at most, as many as pyarrow writes: a shard's names are held at once."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that one process computes and writes to one file.

    Attributes:
        images: how many.
        files: the images' files, or the one Parquet file, by name in the input.
        column: the Parquet file's column; None of image files.
        row_groups: the Parquet file's first one, and the one after the last.
        first_row: number of the first image in the Parquet file.
    """

    images: int
    files: tuple[str, ...]
    column: str | None = None
    row_groups: tuple[int, int] = (0, 0)
    first_row: int = 0

    def names(self) -> list[str]:
        """Returns what each image is called: its file, in Parquet with the number of its row."""
        if self.column is None:
            return list(self.files)
        return [f"{self.files[0]}#{row}" for row in range(self.first_row, self.first_row + self.images)]


def list_shards(source: Place, size: int, column: str | None) -> Iterator[Shard]:
    """Yields an input's shards, the same ones in the same order each time. At most one folder is held in memory.

    Args:
        source: image files or Parquet files.
        size: images of a shard; of Parquet, as many whole row groups as hold at least so many.
        column: of Parquet files that holds the images; None to find it.

    Raises:
        ImageError: the input is not there, cannot be read, or holds no image.
        InvalidArgument: it holds images and Parquet files, or a Parquet file has no such column.
    """
    known = suffixes()
    kind, held = "", []
    for name in _names(source):
        suffix = "." + name.rpartition(".")[2].lower()
        if suffix not in known and suffix != PARQUET and source.only is None:
            continue
        found = "Parquet files" if suffix == PARQUET else "image files"
        if kind and found != kind:
            raise InvalidArgument(
                f"{source.text} holds image files and Parquet files", "name a folder of one kind, or a file"
            )
        kind = found
        if suffix == PARQUET:
            yield from _parquet_shards(source, name, size, column)
            continue
        held.append(name)
        if len(held) == size:
            yield Shard(size, tuple(held))
            held = []
    if held:
        yield Shard(len(held), tuple(held))
    if column is not None and kind == "image files":
        raise InvalidArgument(f"{source.text} holds image files, which have no column {column}", "leave it out")
    if not kind:
        raise ImageError(
            f"{source.text} holds no image", f"looked for {', '.join(sorted(known))} and {PARQUET}; check the path"
        )


def _names(source: Place) -> Iterator[str]:
    """Yields the names of an input's files, each folder sorted; hidden ones are left out."""
    if source.only is not None:
        yield source.only
        return
    try:
        if not source.files.isdir(source.root):
            raise ImageError(f"there is no image or folder {source.text}", _HINT)
        if source.is_local:
            root = source.path("")
            yield from (file.relative_to(root).as_posix() for file in files_under(root))
        else:
            yield from _remote_names(source)
    except OSError as error:
        raise ImageError(f"{source.text} cannot be listed: {error.strerror or error}", _HINT) from None


def _remote_names(source: Place) -> Iterator[str]:
    root = source.root.strip("/")
    waiting = [source.root]
    while waiting:
        folder = waiting.pop()
        entries = sorted((entry["name"], entry["type"]) for entry in source.files.ls(folder, detail=True))
        source.files.invalidate_cache(folder)  # file systems keep every listing otherwise
        folders = []
        for name, kind in entries:
            last = name.rstrip("/").rpartition("/")[2]
            if last.startswith(".") or name.strip("/") == folder.strip("/"):
                continue
            if kind == "directory":
                folders.append(name)
            else:
                yield name.strip("/").removeprefix(root).lstrip("/")
        waiting += reversed(folders)


def _parquet_shards(source: Place, name: str, size: int, asked: str | None) -> Iterator[Shard]:
    """Yields a Parquet file's shards, of whole row groups: a part of one costs as much to read as all of it."""
    from pyarrow import ArrowException, parquet

    try:
        with source.open(name) as file:
            opened = parquet.ParquetFile(file)
            schema, metadata = opened.schema_arrow, opened.metadata
            rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except (ArrowException, OSError, ValueError) as error:  # names that are no UTF-8 are a ValueError
        what = f"{name} of {source.text} is no Parquet file that can be read: {first_line(error)}"
        raise ImageError(what, _HINT) from None
    column = _image_column(f"{name} of {source.text}", schema, asked)
    start = row = held = 0
    for group, count in enumerate(rows):
        if not 0 <= count <= _MOST_ROWS:
            what = f"{name} of {source.text} has a row group of {count} rows"
            raise ImageError(what, f"write it again with row groups of at most {_MOST_ROWS:,} rows")
        held += count
        if held >= size or (held and group == len(rows) - 1):
            yield Shard(held, (name,), column, (start, group + 1), row)
            start, row, held = group + 1, row + held, 0


def _image_column(what: str, schema: Any, asked: str | None) -> str:
    able = [field.name for field in schema if holds_images(field.type)]
    if asked in able or (asked is None and IMAGE_COLUMN in able):
        return asked or IMAGE_COLUMN
    if asked is None and len(able) == 1:
        return str(able[0])
    listed = ", ".join(f"{field.name} ({field.type})"[:60] for field in schema)
    if asked is None and able:
        raise InvalidArgument(f"{what} has several columns of bytes: {', '.join(able)}", "name one: --image-column")
    wanted = "no column of images" if asked is None else f"no column {asked!r} of images"
    raise InvalidArgument(
        f"{what} has {wanted}: it has {listed}", "images are columns of bytes, or of a struct with a field bytes"
    )


def holds_images(kind: Any) -> bool:
    """Whether a column of that type holds files' bytes, or structs of them as Hugging Face's data sets do."""
    from pyarrow import types

    kinds = [field.type for field in kind if field.name == "bytes"] if types.is_struct(kind) else [kind]
    return any(types.is_binary(one) or types.is_large_binary(one) for one in kinds)
