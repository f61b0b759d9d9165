"""Where a job reads and writes: a folder of this machine, or a place that fsspec knows by its URL."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from sait_deploy.errors import ImageError, InvalidArgument, StorageError, first_line
from sait_deploy.system.locks import held, is_left_over
from sait_deploy.system.reading import open_regular, read_bytes

_PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, wherever it is; names in it have ``/`` between their parts.

    Attributes:
        text: the folder's or file's path or URL, as the user gave it.
        files: fsspec's file system.
        root: the folder's path there.
        only: name of the one file that was meant; None where the folder is.
    """

    text: str
    files: Any
    root: str
    only: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's own file system."""
        return "file" in (self.files.protocol if isinstance(self.files.protocol, tuple) else (self.files.protocol,))

    @property
    def address(self) -> str:
        """The folder's or file's path or URL as processes in other folders know it."""
        return self.at(self.only or "") if self.is_local else self.text

    def at(self, name: str) -> str:
        """Returns the path of a name in the folder."""
        return f"{self.root.rstrip('/')}/{name}".removeprefix("" if self.root else "/").rstrip("/")

    def path(self, name: str) -> Path:
        """Returns the same of a place on this machine."""
        return Path(self.root, name)

    def read(self, name: str) -> bytes:
        """Returns what a file holds.

        Raises:
            OSError: it is not there, no regular file, or cannot be read.
        """
        if self.is_local:
            return read_bytes(self.path(name))
        data: bytes = self.files.cat_file(self.at(name))
        return data

    def open(self, name: str) -> Any:
        """Opens a file to read, which is the caller's to close.

        Raises:
            OSError: it is not there, no regular file, or cannot be read.
        """
        return open_regular(self.path(name)) if self.is_local else self.files.open(self.at(name), "rb")

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self.files.exists(self.at(name)))

    def names(self) -> set[str]:
        """Returns what lies directly in the folder; nothing where it is not there.

        Raises:
            StorageError: it cannot be listed, or is a file.
        """
        with _refusals(self.text):
            self.files.invalidate_cache(self.root)
            if not self.files.exists(self.root):
                return set()
            if not self.files.isdir(self.root):
                raise NotADirectoryError(20, "it is a file")
            found = self.files.ls(self.root, detail=False)
        return {name.rstrip("/").rpartition("/")[2] for name in found if name.strip("/") != self.root.strip("/")}

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yields a file that is put in its place, whole, when the block ends; its folder is made.

        Raises:
            StorageError: it cannot be written.
        """
        folder, _, last = self.at(name).rpartition("/")
        partial = f"{folder}/.{last}.{secrets.token_hex(8)}{_PARTIAL}"
        with _refusals(f"{self.text}/{name}"):
            try:
                self.files.makedirs(folder, exist_ok=True)
                if self.is_local:
                    with Path(partial).open("xb") as file, held(Path(partial)):
                        yield file
                        file.flush()
                        os.fsync(file.fileno())
                else:
                    with self.files.open(partial, "wb") as file:
                        yield file
                # Object stores and servers of files have no rename in common; fsspec's move replaces whole files.
                if self.is_local:
                    os.replace(partial, self.at(name))  # noqa: PTH105 - a Path of a URL's path would be another
                else:
                    self.files.mv(partial, self.at(name))
            except BaseException:
                with contextlib.suppress(Exception):
                    self.files.rm_file(partial)
                raise

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole. Raises what ``writing`` does."""
        with self.writing(name) as file:
            file.write(data)

    def make(self, folder: str) -> None:
        """Makes a folder in it, and those above, unless they are there.

        Raises:
            StorageError: it cannot be made.
        """
        with _refusals(f"{self.text}/{folder}"):
            self.files.makedirs(self.at(folder), exist_ok=True)

    def remove(self, name: str) -> None:
        """Removes a file.

        Raises:
            StorageError: it cannot be removed.
        """
        with _refusals(f"{self.text}/{name}"):
            self.files.rm_file(self.at(name))

    def sweep(self, folder: str = "") -> None:
        """Removes what a kill left half written in a folder of this machine's own file system."""
        if self.is_local:
            for left in filter(is_left_over, self.path(folder).glob(f".*{_PARTIAL}")):
                left.unlink(missing_ok=True)


def open_place(text: str) -> Place:
    """Returns a place to read from or write to, which need not be there.

    Raises:
        InvalidArgument: no file system of that name is known, or its package is not installed.
        ImageError: it cannot be asked.
    """
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(text)
        is_file = not root.endswith("/") and files.isfile(root)  # to HTTP, a folder's page is a file
    except (ValueError, ImportError) as error:
        hint = "give a folder, or a URL of fsspec's whose package is installed"
        raise InvalidArgument(f"{text} cannot be opened: {first_line(error)}", hint) from None
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"{text} cannot be read: {first_line(error)}", "check the path and who may read it") from None
    if is_file:
        folder, _, name = root.rpartition("/")
        return Place(text, files, folder or ("/" if root.startswith("/") else ""), name)
    return Place(text, files, root)


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else first_line(error)
        raise StorageError(f"cannot write {what}: {reason}", "write it to another place, or free space") from error
    except NotImplementedError as error:  # of a file system that is there to read alone, as fsspec's of HTTP is
        raise StorageError(f"cannot write {what}: files there can only be read", "write it to another place") from error
