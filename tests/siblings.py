"""Int8 artifacts beside float ones: their manifests say what ``quantize`` says, their graphs are the float ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, open_artifact


def rewritten(artifact: Artifact, **fields: Any) -> Artifact:
    """Changes fields of a manifest that may be changed, and opens the artifact again."""
    path = artifact.path / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    return open_artifact(artifact.path)


def with_int8(folder: Path, *artifacts: Artifact) -> list[Artifact]:
    """Copies float artifacts of one baseline into a folder, an int8 one beside each, and returns the int8 ones."""
    made = []
    for artifact in artifacts:
        manifest = artifact.manifest
        shutil.copytree(artifact.path, folder / artifact.path.name)
        name = f"{artifact.path.name}-int8"
        place = Path(shutil.copytree(artifact.path, folder / name))
        baseline = None if manifest.baseline is None else f"{manifest.baseline}-int8"
        fields = {"id": f"{manifest.id}-int8", "name": name, "dtype": "int8", "baseline": baseline}
        made.append(rewritten(Artifact(place, manifest), **fields, quantized_from=manifest.id))
    return made
