"""What an artifact says of itself: the manifest's fields and their meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sait_deploy.artifacts.pruning_info import MacsInfo, PointInfo, PruningInfo
from sait_deploy.artifacts.quantization_info import QuantizationInfo
from sait_deploy.artifacts.tower_info import CU_SEQLENS, POSITIONS, TowerChoice
from sait_deploy.exporters.names import KEEP
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.tokens import Geometry, OperatingPoint

SCHEMA_VERSION: Final = 2
FEATURES: Final = "token_features"
"""Name of the output that holds the last block's tokens at full resolution."""

_BLOCK_FEATURES: Final = re.compile(r"block(0|[1-9]\d{0,3})_features", re.ASCII)

EMBEDDINGS: Final = "embeddings"
"""Name of the output of a model that embeds: float32 [batch, D], each row of unit length (L2)."""

COUNTS: Final = "counts"
"""Name of the output that holds the tokens kept per image, prefix included."""


def block_features(block: int) -> str:
    """Returns the name of the output that holds a block's tokens at full resolution, float32 [batch, P+N, D].

    A pruned graph with such outputs returns ``keep``, int32 [batch, P+N], too: 1 where a token was kept.
    """
    return f"block{block}_features"


def is_further_output(name: str) -> bool:
    """Returns whether a graph's output is the tokens of a block by its number, or says which tokens it returns."""
    return name in (KEEP, CU_SEQLENS, POSITIONS) or _BLOCK_FEATURES.fullmatch(name) is not None


class Form(StrEnum):
    """Graph form of an artifact."""

    DENSE = "dense"
    """Nothing is pruned."""

    DENSITY = "density"
    """Every image keeps the same number of tokens."""

    ADAPTIVE = "adaptive"
    """Every image keeps its own number of tokens; the operating point is an input."""


class Precision(StrEnum):
    """Element type of the weights and of most activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    """LayerNorm, softmax and importance stay in fp32."""

    INT8 = "int8"
    """Weights and inputs of linear layers; everything else stays in fp32. Made from a float artifact, not exported."""


EXPORTED_PRECISIONS: Final = (Precision.FP32, Precision.FP16)
"""Those that a model can be exported in."""


class Outputs(StrEnum):
    """What a graph returns beside the token counts."""

    LOGITS = "logits"
    LOGITS_AND_FEATURES = "logits-and-features"
    """Also the last block's tokens at full resolution, for dense tasks."""


class Task(StrEnum):
    """What a model answers."""

    CLASSIFY = "classify"
    """Logits of classes."""

    EMBED = "embed"
    """An embedding of unit length, to be compared with others by their dot product, which is the cosine."""

    FEATURES = "features"
    """Of a model without a head: what a head would read, as it is."""

    TOKENS = "tokens"
    """Of an image tower: the kept tokens of a layer, for a language model."""


class Head(StrEnum):
    """What the layer after pooling is, where a model embeds."""

    NONE = "none"
    """There is none: the embedding is what is pooled."""

    CLASSIFIER = "classifier"
    """It gives logits and is left out: the embedding is what it reads."""

    PROJECTION = "projection"
    """It projects into the embedding's space, as CLIP's does, and is part of the embedding."""


class Pooling(StrEnum):
    """What a model's head reads, by timm's names."""

    TOKEN = "token"
    """The class token, after the last norm."""

    AVG = "avg"
    """The mean of the patch tokens, normalised after that."""


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
class EmbeddingInfo:
    """The embedding that a model gives: how many numbers it has, and what the weights' head has to do with it."""

    width: int
    head: Head


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model.

    ``labels`` holds one name per class where they are known; ``image_size`` is height, width; ``global_pool`` is the
    pooling that the user chose, None for the one of the model's name. ``labels_source`` says in words where labels came
    from that nobody gave, or why those that were found are not used. ``made_from`` is the folder or hub name whose
    config.json says how the model is made; None where its name says it. ``embedding`` is what a model that embeds
    gives, which has no classes; None where it gives logits or features. ``tower`` is what is taken of an image tower,
    which has the blocks that this takes alone; None of other models.
    """

    name: str
    timm_class: str
    parameters: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    classes: int
    labels: tuple[str, ...] | None
    geometry: Geometry
    global_pool: Pooling | None = None
    labels_source: str | None = None
    made_from: str | None = None
    embedding: EmbeddingInfo | None = None
    tower: TowerChoice | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in height and in width."""
        (height, width), (rows, columns) = self.image_size, self.patch_size
        return height // rows, width // columns

    @property
    def task(self) -> Task:
        """What the model answers."""
        if self.tower is not None:
            return Task.TOKENS
        if self.embedding is not None:
            return Task.EMBED
        return Task.CLASSIFY if self.classes else Task.FEATURES

    @property
    def answer_width(self) -> int:
        """Numbers of an answer: logits, the embedding, features of the model's width, or a token of an image tower."""
        if self.embedding is not None:
            return self.embedding.width
        return self.classes or self.geometry.width


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """The weights: their source, the file or hub name they came from, and SHA-256 over names, shapes, dtypes, bytes.

    ``notes`` says, a sentence each, what was assumed or left out in reading them.
    """

    source: WeightsSource
    origin: str | None
    sha256: str
    trained_sparse: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output; a dimension is a number or a name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ParityInfo:
    """How the exported graph compares with its references: with torch, or an int8 graph with the float artifact's.

    Attributes:
        runtime: what ran the graph.
        images: images compared.
        image_source: where they came from.
        batches: batch sizes run.
        tolerance: largest difference allowed, relative to the largest reference logit or 1.
        largest_difference: the largest found, on the same scale.
        top1_agreement: share of images whose top-1 equals the reference's; None for a headless model.
        cosine: least cosine similarity of any image's outputs.
        kept_sets_equal_torch: share of images whose kept set equals the reference's own; None for dense.
        points: the operating points run, of an adaptive artifact also mass 1, against the dense model, and mixed
            points; empty for dense. Agreement with torch is counted at named points alone.
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
    points: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccuracyInfo:
    """Accuracy known at export time, on ``images`` labelled images."""

    status: AccuracyStatus
    images: int
    top1_percent: float | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an artifact says of itself.

    Attributes:
        id: unique among exports that differ in anything that changes the graph, its weights or its named points.
        macs: multiply-accumulates of the default point.
        baseline: id of the dense artifact of the same weights; None in that artifact itself.
        files: SHA-256 of every other file in the folder.
        preprocessing_sources: for fields of the preprocessing, where their values came from, in words. It is left out
            of the document where it is empty: older documents have none.
        quantized_from: id of the float artifact that this one was made from; None, and left out, where it is no int8
            artifact.
        quantization: how it was made from that one; likewise.
        batch: images of every request, of a graph of fixed batch size; None, and left out, where any number may be.
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
    preprocessing_sources: dict[str, str] = field(default_factory=dict)
    quantized_from: str | None = None
    quantization: QuantizationInfo | None = None
    batch: int | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(output.name for output in self.outputs)

    @property
    def asked_outputs(self) -> Outputs:
        """Whether the last block's tokens were asked for."""
        return Outputs.LOGITS_AND_FEATURES if FEATURES in self.output_names else Outputs.LOGITS

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """The blocks whose tokens are outputs, see ``block_features``."""
        found = (_BLOCK_FEATURES.fullmatch(name) for name in self.output_names)
        return tuple(int(match[1]) for match in found if match is not None)

    @property
    def returns_tokens(self) -> bool:
        """Whether tokens of any block are an output."""
        return FEATURES in self.output_names or bool(self.feature_blocks)

    @property
    def prune_at(self) -> int | None:
        """The block pruned in; None of a dense artifact."""
        return None if self.pruning is None else self.pruning.prune_at

    @property
    def operating_points(self) -> dict[str, OperatingPoint]:
        """The named points, the default first; none of a dense artifact."""
        return {} if self.pruning is None else {info.name: info.point for info in self.pruning.points}

    @property
    def default_point(self) -> PointInfo | None:
        """The operating point where none is named; None of a dense artifact."""
        return None if self.pruning is None else self.pruning.points[0]
