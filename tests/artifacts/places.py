"""Artifact folders that tests make and change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sait_deploy.artifacts.folder import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Workspace,
)
from sait_deploy.artifacts.manifest import Manifest
from tests.exported import fill

FILES = (MODEL_FILE, GOLDEN_FILE)


def put(workspace: Workspace, manifest: Manifest, name: str | None = None) -> Path:
    place = workspace.place_for(name or manifest.name, manifest.id)
    with workspace.writing(place) as folder:
        fill(folder, manifest)
    return place


def named(manifest: Manifest, name: str, digest: str = "0") -> Manifest:
    return dataclasses.replace(manifest, name=name, id=f"{name}-{digest}")


def rewrite(place: Path, **changes: Any) -> None:
    data = json.loads((place / MANIFEST_FILE).read_text(encoding="utf-8"))
    (place / MANIFEST_FILE).write_text(json.dumps({**data, **changes}), encoding="utf-8")


def names(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.root.iterdir()}
