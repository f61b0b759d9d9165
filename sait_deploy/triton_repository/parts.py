"""What a model's folder consists of, and what every form of it shares: metadata, labels and the warm-up's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.artifacts.points import DEFAULT_POINT, named_point
from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import OperatingPoint
from sait_deploy.triton_repository.configuration import LABELS_FILE, Fields, metadata, warm_up, warm_up_data
from sait_deploy.triton_repository.pbtxt import map_of

VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model.

    Attributes:
        config: fields of its configuration.
        files: what else lies in it, by name: bytes, or a file to copy.
    """

    config: Fields
    files: Mapping[str, bytes | Path]


@dataclass(frozen=True, slots=True)
class Source:
    """An artifact under the name of a model, at the operating point of requests that bring none.

    Attributes:
        artifact: the artifact.
        name: of the model.
        point: None for an artifact whose point is fixed.
        point_name: its name.
    """

    artifact: Artifact
    name: str
    point: OperatingPoint | None
    point_name: str | None

    def described(self, **further: object) -> Fields:
        """Returns the configuration's parameters: what the artifact is, the point, and what a form adds."""
        said = metadata(self.artifact.manifest, self.point_name, self.point)
        said |= {key: {"string_value": str(value)} for key, value in further.items()}
        return {"parameters": map_of(said)}

    def warmed(self) -> tuple[Fields, dict[str, bytes | Path]]:
        """Returns the configuration's warm-up, one request of the golden image, and the files of its data."""
        data = warm_up_data(self.artifact.golden().images, self.point)
        return {"model_warmup": [warm_up(data)]}, {f"warmup/{name}": array.tobytes() for name, array in data.items()}

    def labels(self) -> dict[str, bytes | Path]:
        """Returns the file of labels, a class a line, where the classes have names."""
        names = self.artifact.manifest.model.labels
        if not names:
            return {}
        return {LABELS_FILE: "".join(" ".join(name.split()) + "\n" for name in names).encode()}


def source_of(artifact: Artifact, name: str, point: str | None) -> Source:
    """Returns an artifact at a named operating point.

    Raises:
        InvalidArgument: it has no such point, its point is fixed, or it takes batches of one size alone.
    """
    manifest = artifact.manifest
    if manifest.batch is not None:
        raise InvalidArgument(
            f"{artifact.path.name} takes batches of {manifest.batch} images, and Triton's vary",
            "export without --batch",
        )
    if manifest.form is not Form.ADAPTIVE:
        if point is not None:
            raise InvalidArgument(
                f"{manifest.name} is a {manifest.form} artifact: its operating point is fixed",
                "leave the point out, or export an adaptive one with --mass",
            )
        return Source(artifact, name, None, None)
    found = named_point(manifest, point)
    names = [known for known, one in manifest.operating_points.items() if one == found]
    return Source(artifact, name, found, names[0] if point in (None, DEFAULT_POINT) else point)
