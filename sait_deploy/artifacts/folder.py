"""Artifact folders: written whole or not at all, and checked before anything in them is used.

An artifact is written beside its place, hashed, and put there by rename; an older one is renamed aside first. What a
crash leaves behind is put right at the next start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from sait_deploy.artifacts.codec import adapter
from sait_deploy.artifacts.digests import check_file, checked_bytes
from sait_deploy.artifacts.golden import Golden, read_golden
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.manifest_document import from_json, to_json
from sait_deploy.artifacts.tuned_points import with_points
from sait_deploy.errors import ArtifactError, InvalidArgument, SaitError, StorageError
from sait_deploy.system.interrupts import deferred
from sait_deploy.system.locks import held, is_left_over
from sait_deploy.system.reading import read_bytes, read_text

MODEL_FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "manifest.json"
GOLDEN_FILE: Final = "golden.npz"
LAST_EXPORT_FILE: Final = "last-export.json"
PARTIAL: Final = ".partial-"
"""How names of folders begin that are being written, or that a crash left so."""

_ASIDE: Final = ".aside-"


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
            ArtifactError: it lacks an array, or is damaged.
        """
        return read_golden(self.path / GOLDEN_FILE)


def with_labels(artifact: Artifact, labels: tuple[str, ...]) -> Artifact:
    """Returns an artifact that names its classes so; its files stay as they are."""
    model = dataclasses.replace(artifact.manifest.model, labels=labels)
    return dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, model=model))


ArtifactLike: TypeAlias = Artifact | str | os.PathLike[str]
"""An artifact: opened, or its folder."""


def open_artifact(path: ArtifactLike) -> Artifact:
    """Opens an artifact folder after checking its files against its manifest; one that is open is returned as it is.

    Returns:
        The artifact; its manifest also has the points that were tuned after the export, behind those of the export.

    Raises:
        ArtifactError: the folder, its manifest or a file is missing, a file is not what the manifest says, or a tuned
            point beside it cannot be one of this artifact.
        InvalidArgument: it is no path.
    """
    if isinstance(path, Artifact):
        return path
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgument(f"{path!r} is no artifact", "give its folder")
    folder = Path(path)
    if not (folder / MANIFEST_FILE).is_file():
        what = "has no manifest.json" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
        raise ArtifactError(f"artifact {folder} {what}", _hint_for(folder))
    try:
        manifest = from_json(read_text(folder / MANIFEST_FILE))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder / MANIFEST_FILE} cannot be read ({error})", "export again") from None
    for required in (MODEL_FILE, GOLDEN_FILE):
        if required not in manifest.files:
            raise ArtifactError(f"the manifest of {folder} does not list {required}", "export again")
    graph = checked_bytes(folder, MODEL_FILE, manifest.files[MODEL_FILE], "export again")
    for name, expected in manifest.files.items():
        if name != MODEL_FILE:
            check_file(folder, name, expected, "export again")
    artifact = Artifact(folder, with_points(folder, manifest))
    _check_graph(artifact, graph)
    return artifact


def open_artifacts(artifacts: ArtifactLike | Iterable[ArtifactLike]) -> list[Artifact]:
    """Opens one artifact, or several, as :func:`open_artifact` opens each."""
    if isinstance(artifacts, (Artifact, str, os.PathLike)):
        return [open_artifact(artifacts)]
    return list(map(open_artifact, artifacts))


def _hint_for(folder: Path) -> str:
    """Returns what to do where a folder is no artifact."""
    inside = sorted(str(found.parent) for found in folder.glob(f"*/{MANIFEST_FILE}")) if folder.is_dir() else []
    if inside:
        return f"name what is in it, such as {inside[0]}"
    if folder.name.isdigit() and not folder.exists():
        return "numbers of one option are separated by commas, such as --batch 1,8"
    return "make one with: sait-deploy export"


def _check_graph(artifact: Artifact, graph: bytes) -> None:
    import onnx

    from sait_deploy.artifacts.graph_check import check_graph

    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:  # protobuf's own kinds of error
        raise ArtifactError(f"{artifact.model_path} is no ONNX model ({error})", "export again") from None
    check_graph(model, artifact.manifest, artifact.path)


@contextlib.contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write under ``place`` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no space left to write under {place}", "free some, or write elsewhere") from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"cannot write under {place}: {reason}", "allow it, or write elsewhere") from error


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
            probe = self.root / _named(PARTIAL, "probe")
            with deferred():
                probe.mkdir()
                probe.rmdir()
            self.recover()

    def recover(self) -> None:
        """Restores artifacts that a crash left renamed aside, and removes partial ones that nobody holds."""
        if not self.root.is_dir():
            return
        for aside in filter(is_left_over, self.root.glob(f"{_ASIDE}*")):
            place = self.root / aside.name.removeprefix(_ASIDE).rpartition("@")[0]
            if place.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(place)
        for partial in filter(is_left_over, self.root.glob(f"{PARTIAL}*")):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)

    def artifacts(self) -> list[Path]:
        """Returns the folders that hold a manifest, by name."""
        if not self.root.is_dir():
            return []
        return sorted(p for p in self.root.iterdir() if not p.name.startswith(".") and (p / MANIFEST_FILE).is_file())

    def find(self, artifact_id: str) -> Path | None:
        """Returns the folder of the artifact with this id; manifests that cannot be read are passed over."""
        return next((folder for folder, manifest in self.manifests() if manifest.id == artifact_id), None)

    def manifests(self) -> Iterator[tuple[Path, Manifest]]:
        """Yields the folder and the manifest of every artifact whose manifest can be read."""
        for folder in self.artifacts():
            with contextlib.suppress(SaitError, OSError, UnicodeDecodeError):
                yield folder, from_json(read_text(folder / MANIFEST_FILE))

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
        partial = self.root / _named(PARTIAL, place.name)
        aside = self.root / _named(_ASIDE, place.name)
        try:
            with storage_errors(self.root), contextlib.ExitStack() as locks:
                partial.mkdir(parents=True)
                locks.enter_context(held(partial))
                yield partial
                with deferred():
                    if place.exists():
                        locks.enter_context(held(place))
                        place.rename(aside)
                    partial.rename(place)
                    shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            with storage_errors(self.root), deferred():
                shutil.rmtree(partial, ignore_errors=True)
                if aside.exists() and not place.exists():
                    aside.rename(place)
            raise

    def record_last_export(self, places: Iterable[Path]) -> None:
        """Remembers what was exported last, the baseline first."""
        text = json.dumps([place.name for place in places]) + "\n"
        with storage_errors(self.root):
            temporary = self.root / _named(PARTIAL, LAST_EXPORT_FILE)
            with deferred(), temporary.open("x", encoding="utf-8") as file, held(temporary):
                file.write(text)
                file.flush()
                temporary.replace(self.root / LAST_EXPORT_FILE)

    def last_export(self, make: str = "sait-deploy export") -> list[Path]:
        """Returns the folders of the last export, the baseline first.

        Args:
            make: command to advise where there is none.

        Raises:
            ArtifactError: nothing was exported here, or the file that says what was is damaged.
        """
        place = self.root / LAST_EXPORT_FILE
        if not place.exists():
            raise ArtifactError(f"nothing was exported to {self.root} yet", f"run: {make}")
        try:
            names = adapter(tuple[str, ...]).validate_json(read_bytes(place))
        except (OSError, ValueError):
            names = ()
        if not names or any(Path(name).name != name or name == ".." for name in names):
            raise ArtifactError(
                f"{place} lists no artifacts beside it: it is damaged", f"name an artifact, or run: {make}"
            )
        return [self.root / name for name in names]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest, flushed to disk: the last file of an artifact."""
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        file.write(to_json(manifest))
        file.flush()
        os.fsync(file.fileno())


def _named(prefix: str, name: str) -> str:
    """Returns a name that nobody can foresee, and so make a link of."""
    return f"{prefix}{name}@{secrets.token_hex(8)}"
