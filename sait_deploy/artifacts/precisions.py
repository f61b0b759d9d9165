"""The same artifact at another precision: the int8 one made from a float artifact, and the other way round."""

from __future__ import annotations

from typing import Final

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ArtifactError

_QUANTIZE: Final = "run: sait-deploy quantize"


def float_id(artifact: Artifact) -> str:
    """Returns the id that a float artifact and the int8 ones made from it have in common: the float one's."""
    return artifact.manifest.quantized_from or artifact.manifest.id


def int8_of(artifact: Artifact) -> Artifact:
    """Opens the int8 artifact made from this one, which lies in the same folder; an int8 artifact is returned as it is.

    Raises:
        ArtifactError: there is none, there are several, or it is damaged.
    """
    if artifact.manifest.dtype is Precision.INT8:
        return artifact
    wanted = artifact.manifest.id
    found = [
        folder
        for folder, manifest in Workspace(artifact.path.parent).manifests()
        if manifest.dtype is Precision.INT8 and manifest.quantized_from == wanted
    ]
    if not found:
        raise ArtifactError(f"no int8 artifact made from {artifact.path.name} is beside it", _QUANTIZE)
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise ArtifactError(f"{artifact.path.name} has several int8 artifacts: {names}", "name the one you mean")
    return open_artifact(found[0])


def float_of(artifact: Artifact) -> Artifact:
    """Opens the float artifact that an int8 one was made from, which lies in the same folder; others are returned.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    if artifact.manifest.dtype is not Precision.INT8:
        return artifact
    wanted = artifact.manifest.quantized_from
    place = None if wanted is None else Workspace(artifact.path.parent).find(wanted)
    if place is None:
        raise ArtifactError(
            f"the float artifact {wanted} that {artifact.path.name} was made from is not beside it", "export it again"
        )
    return open_artifact(place)
