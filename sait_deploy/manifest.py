"""What an artifact says of itself: the manifest's fields, and their JSON form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sait_deploy.errors import ArtifactError
from sait_deploy.preprocess import Preprocessing
from sait_deploy.schedule import Geometry, OperatingPoint, Score

SCHEMA_VERSION: Final = 1


class Form(StrEnum):
    """Graph form of an artifact."""

    DENSE = "dense"
    DENSITY = "density"


class Precision(StrEnum):
    """Element type of the weights and of most activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    """LayerNorm, softmax and importance stay in fp32."""


class WeightsSource(StrEnum):
    """Where weights came from. None of these ever stands in for another."""

    DEMO = "demo"
    FILE = "file"
    PRETRAINED = "pretrained"
    RANDOM = "random"
    MEMORY = "memory"


class AccuracyStatus(StrEnum):
    """What is known of an artifact's accuracy."""

    MEASURED = "measured"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model. ``labels`` holds one name per class where they are known; ``image_size`` is height, width."""

    name: str
    timm_class: str
    parameters: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    classes: int
    labels: tuple[str, ...] | None
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """The weights: their source, the file or hub name they came from, and SHA-256 over names, shapes, dtypes, bytes."""

    source: WeightsSource
    origin: str | None
    sha256: str
    trained_sparse: bool


@dataclass(frozen=True, slots=True)
class PruningInfo:
    """How tokens are chosen. ``importance`` and ``keep`` name the graph's tensors that selection reads and writes."""

    score: Score
    prune_at: int
    density: str
    kept: int
    point: OperatingPoint
    importance: str
    keep: str


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output; a dimension is a number or a name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ParityInfo:
    """How the exported graph compares with its references.

    Attributes:
        runtime: what ran the graph.
        images: images compared.
        image_source: where they came from.
        batches: batch sizes run.
        tolerance: largest difference allowed, relative to the largest reference logit or 1.
        largest_difference: the largest found, on the same scale.
        top1_agreement: share of images whose top-1 equals the reference's; None for a headless model.
        cosine: least cosine similarity of any image's outputs.
        kept_sets_equal_torch: share of images whose kept set equals torch's own; None for dense.
    """

    runtime: str
    images: int
    image_source: str
    batches: tuple[int, ...]
    tolerance: float
    largest_difference: float
    top1_agreement: float | None
    cosine: float
    kept_sets_equal_torch: float | None


@dataclass(frozen=True, slots=True)
class AccuracyInfo:
    """Accuracy known at export time, on ``images`` labelled images."""

    status: AccuracyStatus
    images: int
    top1_percent: float | None


@dataclass(frozen=True, slots=True)
class MacsInfo:
    """Multiply-accumulates per image, those of the dense baseline, and dense over this."""

    per_image: int
    dense: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an artifact says of itself.

    Attributes:
        id: unique among exports that differ in anything that changes the graph or its weights.
        baseline: id of the dense artifact of the same weights; None in that artifact itself.
        files: SHA-256 of every other file in the folder.
    """

    schema_version: int
    id: str
    name: str
    created: str
    form: Form
    model: ModelInfo
    weights: WeightsInfo
    pruning: PruningInfo | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preprocessing: Preprocessing
    dtype: Precision
    fp32_operators: tuple[str, ...]
    opset: int
    inlined: bool
    parity: ParityInfo
    accuracy: AccuracyInfo
    macs: MacsInfo
    baseline: str | None
    tools: dict[str, str]
    files: dict[str, str]

    @property
    def patch_tokens_kept(self) -> int:
        """Patch tokens that each image keeps."""
        return self.model.geometry.patch_tokens if self.pruning is None else self.pruning.kept


def to_json(manifest: Manifest) -> str:
    """Returns the manifest as indented JSON."""
    return json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"


def from_json(text: str) -> Manifest:
    """Reads a manifest, checking every field's presence and type.

    Raises:
        ArtifactError: it is no JSON, of another schema version, or a field is missing, unknown or of another type.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"manifest.json is not JSON ({error})", "export again") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"manifest.json has schema version {version}, not {SCHEMA_VERSION}", "export again with this version"
        )
    manifest = decode(Manifest, data, "manifest")
    assert isinstance(manifest, Manifest)
    return manifest


def decode(kind: Any, value: Any, where: str) -> Any:
    """Turns JSON values into ``kind``: dataclasses, enums, tuples, dicts, optionals and scalars.

    Raises:
        ArtifactError: the value is not of that kind; ``where`` names the field.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise _mismatch(kind, value, where)
        kinds = arguments if arguments[-1] is not Ellipsis else (arguments[0],) * len(value)
        return tuple(decode(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {decode(str, k, where): decode(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(kind, type) and issubclass(kind, StrEnum) and isinstance(value, str):
        if value in kind.__members__.values():
            return kind(value)
        raise _mismatch(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise _mismatch(kind, value, where)


def _mismatch(kind: Any, value: Any, where: str) -> ArtifactError:
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return ArtifactError(f"{where} is {value!r:.80}, not {name}", "export again with this version")


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is not type(None):
            try:
                return decode(kind, value, where)
            except ArtifactError:
                if len([k for k in kinds if k is not type(None)]) == 1:
                    raise
    raise _mismatch(" or ".join(str(k) for k in kinds), value, where)


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(kind, value, where)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    missing = [name for name in names if name not in value]
    unknown = [name for name in value if name not in names]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(map(str, unknown))}"
        raise ArtifactError(f"{where} {wrong}", "export again with this version")
    return kind(**{name: decode(hints[name], value[name], f"{where}.{name}") for name in names})


def fingerprint(*parts: object) -> str:
    """Returns a 12-digit hexadecimal digest of parts that tell two exports apart."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]
