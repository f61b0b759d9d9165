"""A manifest's document: written as JSON, and read with a check of every field."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from sait_deploy.artifacts.codec import Codec
from sait_deploy.artifacts.manifest import SCHEMA_VERSION, Form, Manifest
from sait_deploy.artifacts.meaning import check_meaning
from sait_deploy.errors import ArtifactError

_CODEC: Final = Codec("the manifest", "export again", SCHEMA_VERSION)


def as_dict(manifest: Manifest) -> dict[str, Any]:
    """Returns the manifest as plain data, as its document holds it: what older documents have not, only where it is."""
    fields = dataclasses.asdict(manifest)
    if not manifest.preprocessing_sources:
        del fields["preprocessing_sources"]
    if manifest.quantized_from is None:
        del fields["quantized_from"]
    if manifest.quantization is None:
        del fields["quantization"]
    if manifest.batch is None:
        del fields["batch"]
    if not manifest.weights.notes:
        del fields["weights"]["notes"]
    if fields["pruning"] is not None and fields["pruning"]["threshold"] is None:
        del fields["pruning"]["threshold"]
    for name in ("global_pool", "labels_source", "made_from", "embedding", "tower"):
        if fields["model"][name] is None:
            del fields["model"][name]
    return fields


def to_json(manifest: Manifest) -> str:
    """Returns the manifest as indented JSON."""
    return json.dumps(as_dict(manifest), indent=2) + "\n"


def from_json(text: str) -> Manifest:
    """Reads a manifest, checking every field's presence and type, and that what it says can be.

    Raises:
        ArtifactError: it is no JSON, of another schema version, a field is missing, unknown or of another type, or its
            values cannot be or contradict each other.
    """
    manifest = _CODEC.read(Manifest, text)
    pruning = manifest.pruning
    fits = {
        Form.DENSE: pruning is None,
        Form.DENSITY: pruning is not None and pruning.density is not None and len(pruning.points) == 1,
        Form.ADAPTIVE: pruning is not None and pruning.density is None and len(pruning.points) > 0,
    }
    if not fits[manifest.form]:
        raise ArtifactError(
            f"the manifest of {manifest.name} is not that of a {manifest.form} artifact", "export again"
        )
    check_meaning(manifest)
    return manifest
