"""What an engine says of itself: the fields of its manifest, and their JSON form."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Final

from sait_deploy.artifacts.codec import Codec
from sait_deploy.artifacts.manifest import TensorInfo
from sait_deploy.engine.options import BatchRange, Portability
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, Profile
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, QuantizedType, SelectionForm

SCHEMA_VERSION: Final = 1

_CODEC: Final = Codec("the engine's manifest", "build the engine again", SCHEMA_VERSION)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """What the builder was given, as its own network counts it.

    Attributes:
        layers: all layers.
        kinds: kind of layer to number, most frequent first.
        precisions: element type to the number of layers whose first output has it.
        attention_fused: attentions that are one layer which may not be taken apart: it is built only where a kernel is.
    """

    layers: int
    kinds: dict[str, int]
    precisions: dict[str, int]
    attention_fused: int


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One engine file.

    Attributes:
        name: which part of the model.
        file: its name in the folder.
        size_bytes: its size.
        inputs: what it takes; a dimension is a number or a name.
        outputs: what it returns.
        profiles: shapes it takes, in the builder's order.
        network: what the builder was given.
        build_seconds: how long parsing and building took.
    """

    name: PartName
    file: str
    size_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[Profile, ...]
    network: NetworkInfo
    build_seconds: float


@dataclass(frozen=True, slots=True)
class AttentionSummary:
    """What became of the blocks' attention: how many there are, how many fused, and how many were meant to."""

    form: AttentionForm
    blocks: int
    expected: int
    fused: int


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """Everything an engine says of itself.

    Attributes:
        schema_version: of this document.
        name: the folder's.
        artifact: id of the artifact it was built from.
        source_sha256: of that artifact's ONNX file.
        builder: what built it.
        builder_version: its version; an engine runs on no other, unless built so.
        targets: GPU architectures it runs on.
        gpu: name of the GPU it was tuned on; None where it was built for architectures.
        precision: asked for.
        precisions_got: types that matrix products and attention came out with.
        selection: how the selection stands in it; None of a dense one.
        attention: what became of attention.
        portability: what else it was built to run on.
        stripped: whether weights have to be put in when it is loaded.
        batch: images per request.
        parts: its files.
        files: file name to SHA-256.
        messages: what the builder warned of, explained where it matters.
        tools: versions of what made it.
        quantized: numbers of an int8 artifact's quantised layers; None, and left out of the document, for its own.
        spare_rows: whether a trunk takes more rows and lanes than its images have; left out of the document where not.
        weights: part to digest of the weights that it has to be given; left out of the document where it has them.
    """

    schema_version: int
    name: str
    artifact: str
    source_sha256: str
    builder: BuilderName
    builder_version: str
    targets: tuple[str, ...]
    gpu: str | None
    precision: EnginePrecision
    precisions_got: tuple[str, ...]
    selection: SelectionForm | None
    attention: AttentionSummary
    portability: tuple[Portability, ...]
    stripped: bool
    batch: BatchRange
    parts: tuple[PartInfo, ...]
    files: dict[str, str]
    messages: tuple[str, ...]
    tools: dict[str, str]
    quantized: QuantizedType | None = None
    spare_rows: bool = False
    weights: dict[str, str] | None = None

    def part(self, name: PartName) -> PartInfo:
        """Returns one of the parts."""
        return next(part for part in self.parts if part.name is name)


def to_json(manifest: EngineManifest) -> str:
    """Returns the manifest as indented JSON."""
    document = dataclasses.asdict(manifest)
    for name in ("quantized", "spare_rows", "weights"):
        if not document[name]:
            del document[name]
    return json.dumps(document, indent=2) + "\n"


def from_json(text: str) -> EngineManifest:
    """Reads a manifest. Raises ArtifactError where a field is missing, unknown or of another type."""
    return _CODEC.read(EngineManifest, text)
