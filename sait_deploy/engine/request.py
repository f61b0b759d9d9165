"""What the building process is asked for, and the events that it reports, as JSON lines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Final, Self

from sait_deploy.artifacts.codec import Codec
from sait_deploy.engine.manifest import NetworkInfo
from sait_deploy.engine.options import Portability
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, Profile

_VERSION: Final = 1
_CODEC: Final = Codec("a line of the building process", "report this", _VERSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A document of one line; ``schema_version`` is the one that this process understands."""

    schema_version: int = _VERSION

    def to_json(self) -> str:
        """Returns the document as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a document. Raises ArtifactError where a field is missing, unknown or of another type."""
        return _CODEC.read(cls, text)


@dataclass(frozen=True, slots=True)
class PartRequest:
    """One graph to build: its lowered ONNX file, where the engine goes, and the profiles."""

    name: PartName
    onnx: str
    plan: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest(_Line):
    """What to build and how; paths are absolute.

    Attributes:
        targets: GPU architectures, of TensorRT for RTX.
        plugins: whether the graphs have plugin nodes.
        workspace_bytes: None for no limit.
    """

    builder: BuilderName
    targets: tuple[str, ...]
    parts: tuple[PartRequest, ...]
    plugins: bool
    workspace_bytes: int | None
    opt_level: int | None
    timing_cache: str | None
    portability: tuple[Portability, ...]
    strip_weights: bool


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """A part that was built: what the builder was given, its products' element types, and how long it took."""

    name: PartName
    network: NetworkInfo
    product_types: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildEvent(_Line):
    """What the building process reports.

    Attributes:
        progress: name of the part that is being built, and the share of it that is done.
        warning: what the builder warned of.
        error: why there is no engine.
        errno: the operating system's number of that reason, where it was that which refused.
        answer: a part that is built.
        gpu: name of the GPU that it is built on.
    """

    progress: tuple[str, float] | None = None
    warning: str | None = None
    error: str | None = None
    errno: int | None = None
    answer: PartAnswer | None = None
    gpu: str | None = None
