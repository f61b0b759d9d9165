"""Engine folders: where an artifact keeps its engines, and how one is opened after its files were checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.digests import check_file
from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE, Artifact
from sait_deploy.engine.cuda import Device
from sait_deploy.engine.manifest import EngineManifest, from_json, to_json
from sait_deploy.engine.options import AMPERE, Portability
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, parts_of
from sait_deploy.errors import ArtifactError, RuntimeUnavailable, SaitError
from sait_deploy.system.reading import read_text

ENGINES_FOLDER: Final = "engines"
_HINT: Final = "build it again: sait-deploy build-engine"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine folder with its manifest, and the artifact it was built from."""

    artifact: Artifact
    path: Path
    manifest: EngineManifest

    def plan_path(self, part: PartName) -> Path:
        """Returns the file of one part."""
        return self.path / self.manifest.part(part).file

    @property
    def digests(self) -> list[str]:
        """SHA-256 of its files and of its manifest: a plan is safe to run as its manifest says, and not otherwise."""
        return [*self.manifest.files.values(), hashlib.sha256(to_json(self.manifest).encode()).hexdigest()]


def engine_folders(artifact: Artifact) -> list[Path]:
    """Returns the folders of an artifact's engines, by name."""
    root = artifact.path / ENGINES_FOLDER
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def open_engine(artifact: Artifact, folder: Path) -> Engine:
    """Opens an engine after checking its files against its manifest, and that against the artifact.

    Nothing is deserialised: engines are executable code, and only one that is what its manifest says may be.

    Raises:
        ArtifactError: the folder, its manifest or a file is missing or not what the manifest says, or it was built
            from another artifact.
    """
    manifest = _read_manifest(folder)
    if manifest.source_sha256 != artifact.manifest.files[MODEL_FILE]:
        raise ArtifactError(f"engine {folder.name} was built from another model than {artifact.path.name}", _HINT)
    wanted = {part: f"{part}.plan" for part in parts_of(artifact.manifest)}
    listed = sorted((part.name, part.file) for part in manifest.parts)
    if set(manifest.files) != set(wanted.values()) or listed != sorted(wanted.items()):
        raise ArtifactError(f"the manifest of engine {folder.name} does not list {', '.join(wanted.values())}", _HINT)
    for name, expected in manifest.files.items():
        check_file(folder, name, expected, _HINT)
    return Engine(artifact, folder, manifest)


def _read_manifest(folder: Path) -> EngineManifest:
    place = folder / MANIFEST_FILE
    if not place.is_file():
        raise ArtifactError(f"engine {folder} has no {MANIFEST_FILE}", _HINT)
    try:
        return from_json(read_text(place))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{place} cannot be read ({error})", _HINT) from None


def builder_of(folder: Path) -> BuilderName:
    """Returns what built an engine, by its manifest, or where that cannot be read by the folder's name."""
    try:
        return _read_manifest(folder).builder
    except ArtifactError:
        rtx = folder.name.startswith(BuilderName.TENSORRT_RTX)
        return BuilderName.TENSORRT_RTX if rtx else BuilderName.TENSORRT


def _built_at(folder: Path) -> int:
    manifest = folder / MANIFEST_FILE
    return manifest.stat().st_mtime_ns if manifest.is_file() else folder.stat().st_mtime_ns


def check_runs_here(manifest: EngineManifest, version: str, gpu: Device) -> None:
    """Checks from its manifest that an engine runs on this TensorRT and GPU, before it is deserialised.

    Args:
        manifest: of what is to run.
        version: of the TensorRT that is installed.
        gpu: what it is to run on.

    Raises:
        RuntimeUnavailable: it does not.
    """
    again = f"build it on this machine: sait-deploy build-engine --builder {manifest.builder}"
    if Portability.HARDWARE in manifest.portability:
        fits, wanted = gpu.architecture >= AMPERE, f"GPUs from sm{AMPERE} on"
    else:
        # TensorRT tunes for one model of GPU, and warns of errors and deadlocks on another of the same architecture.
        fits = gpu.target in manifest.targets and manifest.gpu in (None, gpu.name)
        wanted = ", ".join(manifest.targets) if manifest.gpu is None else manifest.gpu
    if not fits:
        raise RuntimeUnavailable(
            f"engine {manifest.name} is for {wanted}, this GPU is {gpu.name} ({gpu.target})", again
        )
    if version != manifest.builder_version and Portability.VERSIONS not in manifest.portability:
        raise RuntimeUnavailable(
            f"engine {manifest.name} was built with {manifest.builder} {manifest.builder_version}, "
            f"{version} is installed",
            again,
        )


def choose_engine(
    artifact: Artifact, builder: BuilderName, version: str, gpu: Device, precision: str | None = None
) -> Engine:
    """Returns the engine to run: of those that run on this TensorRT and GPU, the one built last.

    Args:
        artifact: whose engines.
        builder: what built them.
        version: of the TensorRT that is installed.
        gpu: what it is to run on.
        precision: what it was built for, such as ``"fp16"``; None for any.

    Raises:
        ArtifactError: there is none, or it or a later one is damaged.
        RuntimeUnavailable: none of them runs here; says why for the one built last.
    """
    refusals: list[SaitError] = []
    for folder in sorted(engine_folders(artifact), key=_built_at, reverse=True):
        if builder_of(folder) is not builder:
            continue
        manifest = _read_manifest(folder)
        if precision is not None and manifest.precision != precision:
            continue
        try:
            check_runs_here(manifest, version, gpu)
        except RuntimeUnavailable as error:
            refusals.append(error)
        else:
            return open_engine(artifact, folder)
    if refusals:
        raise refusals[0]
    what, asked = (f"{builder} engine", "") if precision is None else (f"{precision} {builder} engine", precision)
    command = f"sait-deploy build-engine --builder {builder}" + (f" --precision {asked}" if asked else "")
    raise ArtifactError(f"{artifact.path.name} has no {what}", f"run: {command}")


def write_engine_manifest(folder: Path, manifest: EngineManifest) -> None:
    """Writes a manifest, flushed to disk: the last file of an engine."""
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        file.write(to_json(manifest))
        file.flush()
        os.fsync(file.fileno())
