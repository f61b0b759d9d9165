"""Artifact folders: written whole or not at all, and checked before anything in them is used.

An artifact is written beside its place, hashed, and put there by rename; an older one is renamed aside first. What a
crash leaves behind is put right at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import ArtifactError, SaitError, StorageError
from sait_deploy.manifest import Manifest, from_json, to_json

MODEL_FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "manifest.json"
GOLDEN_FILE: Final = "golden.npz"
LAST_EXPORT_FILE: Final = "last-export.json"
_PARTIAL, _ASIDE = ".partial-", ".aside-"


@dataclass(frozen=True, slots=True)
class Golden:
    """One real image and its answer, so that any consumer in any language can check itself.

    Attributes:
        pixels: uint8 [H, W, 3], the image after resize and crop.
        images: float32 [1, 3, H, W], what the model is fed.
        logits: float32 [1, classes].
        counts: int32 [1], tokens kept, prefix included.
    """

    pixels: NDArray[np.uint8]
    images: NDArray[np.float32]
    logits: NDArray[np.float32]
    counts: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact folder whose manifest has been read and whose files match it."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL_FILE

    def golden(self) -> Golden:
        """Reads the golden file.

        Raises:
            ArtifactError: it lacks an array.
        """
        try:
            with np.load(self.path / GOLDEN_FILE, allow_pickle=False) as arrays:
                return Golden(arrays["pixels"], arrays["images"], arrays["logits"], arrays["counts"])
        except (KeyError, ValueError, OSError, EOFError) as error:
            raise ArtifactError(f"{self.path / GOLDEN_FILE} cannot be read ({error})", "export again") from None


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Opens an artifact folder after checking its files against its manifest.

    Raises:
        ArtifactError: the folder, its manifest or a file is missing, or a file is not what the manifest says.
    """
    folder = Path(path)
    if not (folder / MANIFEST_FILE).is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise ArtifactError(f"artifact {folder} {what}", "make one with: sait-deploy export")
    try:
        manifest = from_json((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder / MANIFEST_FILE} cannot be read ({error})", "export again") from None
    for required in (MODEL_FILE, GOLDEN_FILE):
        if required not in manifest.files:
            raise ArtifactError(f"the manifest of {folder} does not list {required}", "export again")
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    return Artifact(folder, manifest)


def _check_file(folder: Path, name: str, expected: str) -> None:
    file = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise ArtifactError(f"the manifest of {folder} lists {name!r}, which is not a plain file name", "export again")
    if not file.is_file():
        raise ArtifactError(f"{file} is missing", "export again")
    status = file.lstat()
    if file.is_symlink() or status.st_nlink > 1:
        raise ArtifactError(f"{file} is a link", "copy the artifact's files as files")
    if status.st_size == 0:
        raise ArtifactError(f"{file} is empty", "export again")
    found = sha256_of(file)
    if found != expected:
        raise ArtifactError(
            f"{file} has SHA-256 {found[:12]}…, its manifest says {expected[:12]}…",
            "it was changed or cut short after export: export again",
        )


@contextlib.contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write under ``place`` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left to write under {place}", "free some, or choose another --output"
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"cannot write under {place}: {reason}", "choose another --output") from error


class Workspace:
    """A folder of artifacts.

    Args:
        root: the folder; made when the first artifact is written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Makes the folder, checks that it can be written to, and puts right what a crash left.

        Raises:
            StorageError: it cannot be made or written to.
        """
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f"{_PARTIAL}probe{os.getpid()}"
            probe.mkdir()
            probe.rmdir()
        self.recover()

    def recover(self) -> None:
        """Restores artifacts that a crash left renamed aside, and removes partial ones of processes that ended."""
        if not self.root.is_dir():
            return
        for aside in self.root.glob(f"{_ASIDE}*"):
            name, _, process = aside.name.removeprefix(_ASIDE).rpartition("@")
            if not _alive(process):
                if (self.root / name).exists():
                    shutil.rmtree(aside, ignore_errors=True)
                else:
                    aside.rename(self.root / name)
        for partial in self.root.glob(f"{_PARTIAL}*"):
            if not _alive(partial.name.rpartition("@")[2]):
                shutil.rmtree(partial, ignore_errors=True)

    def artifacts(self) -> list[Path]:
        """Returns the folders that hold a manifest, by name."""
        if not self.root.is_dir():
            return []
        return sorted(p for p in self.root.iterdir() if not p.name.startswith(".") and (p / MANIFEST_FILE).is_file())

    def find(self, artifact_id: str) -> Path | None:
        """Returns the folder of the artifact with this id; manifests that cannot be read are passed over."""
        for folder in self.artifacts():
            with contextlib.suppress(SaitError, OSError):
                if from_json((folder / MANIFEST_FILE).read_text(encoding="utf-8")).id == artifact_id:
                    return folder
        return None

    def place_for(self, name: str, artifact_id: str) -> Path:
        """Returns the folder for an artifact: its readable name, made unique where another export has that name."""
        existing = self.find(artifact_id)
        if existing is not None:
            return existing
        place = self.root / name
        return place if not place.exists() else self.root / artifact_id

    @contextlib.contextmanager
    def writing(self, place: Path) -> Iterator[Path]:
        """Yields an empty folder beside ``place``; when the block ends without an error, it takes that place.

        Raises:
            StorageError: something could not be written.
        """
        partial = self.root / f"{_PARTIAL}{place.name}@{os.getpid()}"
        aside = self.root / f"{_ASIDE}{place.name}@{os.getpid()}"
        try:
            with storage_errors(self.root):
                partial.mkdir(parents=True)
                yield partial
                if place.exists():
                    place.rename(aside)
                partial.rename(place)
        except BaseException:
            if aside.exists() and not place.exists():
                aside.rename(place)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)

    def record_last_export(self, places: Iterable[Path]) -> None:
        """Remembers what was exported last, the baseline first."""
        text = json.dumps([place.name for place in places]) + "\n"
        with storage_errors(self.root):
            temporary = self.root / f"{_PARTIAL}{LAST_EXPORT_FILE}@{os.getpid()}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.root / LAST_EXPORT_FILE)

    def last_export(self) -> list[Path]:
        """Returns the folders of the last export, the baseline first.

        Raises:
            ArtifactError: nothing was exported here.
        """
        try:
            names = json.loads((self.root / LAST_EXPORT_FILE).read_text(encoding="utf-8"))
            places = [self.root / str(name) for name in names]
        except (OSError, ValueError, TypeError):
            raise ArtifactError(f"nothing was exported to {self.root} yet", "run: sait-deploy export") from None
        return places


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest, flushed to disk: the last file of an artifact."""
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        file.write(to_json(manifest))
        file.flush()
        os.fsync(file.fileno())


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
