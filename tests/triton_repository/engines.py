"""Artifacts with engines of TensorRT that were never built: their manifests are whole, their plans are made up."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, write_engine_manifest
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.trust import record_built
from tests.engine.cases import engine_manifest
from tests.exported import copied


def with_engine(artifact: Artifact, folder: Path, **changes: Any) -> Artifact:
    """Returns a copy of an artifact with an engine that this user built, its manifest changed."""
    copy = copied(artifact, folder)
    builder = changes.pop("builder", BuilderName.TENSORRT)
    made = engine_manifest(artifact.manifest, builder=builder, source_sha256=artifact.manifest.files[MODEL_FILE])
    place = copy.path / ENGINES_FOLDER / made.name
    place.mkdir(parents=True)
    files = {}
    for part in made.parts:
        data = f"plan of the {part.name}".encode()
        (place / part.file).write_bytes(data)
        files[part.file] = hashlib.sha256(data).hexdigest()
    manifest = dataclasses.replace(made, files=files, **changes)
    write_engine_manifest(place, manifest)
    record_built(Engine(copy, place, manifest).digests)
    return copy
