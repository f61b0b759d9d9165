"""The inspect stage: what an artifact's graph is made of, and whether it still agrees with torch."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from sait_deploy.artifacts.folder import Artifact, ArtifactLike, open_artifact
from sait_deploy.artifacts.manifest import ParityInfo, Precision
from sait_deploy.artifacts.manifest_document import as_dict
from sait_deploy.engine.inspect import EngineInspection, inspect_engines
from sait_deploy.errors import ArtifactError, MissingDependency, RuntimeUnavailable, SaitError
from sait_deploy.exporting.parity import ParityImages, check_parity
from sait_deploy.images.dataset import Dataset, shipped_dataset
from sait_deploy.images.preprocess import list_images, preprocess
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.onnxruntime import AnotherVersionMay, optimised
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME

CHECK_IMAGES: Final = 24
_FUSED_ATTENTION: Final = ("Attention", "MultiHeadAttention", "PackedMultiHeadAttention", "GroupQueryAttention")


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """A graph's contents.

    Attributes:
        opsets: domain to version.
        operators: operator to number of nodes, most frequent first.
        functions: model-local functions.
        weight_bytes: bytes of initialisers.
    """

    opsets: dict[str, int]
    operators: dict[str, int]
    functions: tuple[str, ...]
    weight_bytes: int


def inspect_graph(artifact: Artifact) -> GraphInfo:
    """Reads the graph of an artifact.

    Raises:
        ArtifactError: the file is no ONNX model.
    """
    try:
        model = onnx.load(str(artifact.model_path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no nodes")
    except Exception as error:  # protobuf's decode error is not public
        raise ArtifactError(f"{artifact.model_path} is no ONNX model ({error})", "export again") from None
    operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph.node)
    return GraphInfo(
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        operators=dict(operators.most_common()),
        functions=tuple(f"{f.domain}::{f.name}" for f in model.functions),
        weight_bytes=sum(_bytes(tensor) for tensor in model.graph.initializer),
    )


@dataclass(frozen=True, slots=True)
class AttentionInfo:
    """What ONNX Runtime on CPU makes of the blocks' attention.

    Attributes:
        blocks: attentions in the model, one a block.
        fused: of them, those that became one operator.
        products: their first products that took scale and transpose in.
    """

    blocks: int
    fused: int
    products: int


def inspect_attention(artifact: Artifact) -> AttentionInfo:
    """Lets ONNX Runtime optimise an artifact's graph for CPU and counts what became of attention.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RuntimeUnavailable: it cannot load the graph.
    """
    operators = Counter(node.op_type for node in optimised(artifact).graph.node)
    return AttentionInfo(
        blocks=artifact.manifest.model.geometry.depth,
        fused=sum(operators[name] for name in _FUSED_ATTENTION),
        products=operators["FusedMatMul"],
    )


def _bytes(tensor: onnx.TensorProto) -> int:
    itemsize: int = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    size: int = math.prod(tensor.dims) * itemsize
    return size


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that is known of an artifact.

    Attributes:
        artifact: which.
        graph: its graph.
        attention: what ONNX Runtime makes of attention, or why that is not known.
        refusal: why ONNX Runtime cannot load the graph; None where it can, is not installed, or is of a version that
            lacks what the graph asks for.
        parity: how the artifact compared with torch just now; None where it was not compared.
        engines: its engines.
    """

    artifact: Artifact
    graph: GraphInfo
    attention: AttentionInfo | str
    refusal: SaitError | None
    parity: ParityInfo | None
    engines: tuple[EngineInspection, ...]

    def as_dict(self) -> dict[str, object]:
        """Returns plain data."""
        return {
            "path": str(self.artifact.path),
            "manifest": as_dict(self.artifact.manifest),
            "graph": dataclasses.asdict(self.graph),
            "attention": self.attention if isinstance(self.attention, str) else dataclasses.asdict(self.attention),
            "check": None if self.parity is None else dataclasses.asdict(self.parity),
            "engines": [engine.as_dict() for engine in self.engines],
        }


def inspect(artifact: ArtifactLike, parity: ParityInfo | None = None) -> Inspection:
    """Finds out what an artifact is made of.

    Example::

        found = sait_deploy.inspect("artifacts/sait_demo_digits-density0.6")
        print(found.graph.operators, found.attention)

    Args:
        artifact: what to inspect, opened, or its folder.
        parity: what :func:`compare_with_torch` found, where it was called.

    Raises:
        ArtifactError: it cannot be opened, or its file is no ONNX model.
    """
    artifact = open_artifact(artifact)
    graph = inspect_graph(artifact)
    refusal: SaitError | None = None
    try:
        attention: AttentionInfo | str = inspect_attention(artifact)
    except (MissingDependency, AnotherVersionMay) as error:
        attention = f"unknown: {error.message}"
    except RuntimeUnavailable as error:
        attention, refusal = f"unknown: {error.message}", error
    return Inspection(artifact, graph, attention, refusal, parity, inspect_engines(artifact))


def compare_with_torch(
    artifact: ArtifactLike,
    images: Path | None = None,
    weights: Path | None = None,
    runtime: str = ONNXRUNTIME,
    device: str = DEFAULT_DEVICE,
) -> ParityInfo:
    """Compares an artifact with the torch model of its weights again, as export did.

    Example::

        parity = sait_deploy.compare_with_torch("artifacts/sait_demo_digits-density0.6")
        print(parity.top1_agreement)

    Args:
        artifact: what to compare, opened, or its folder.
        images: an image or a folder; None for the shipped ones.
        weights: the weights file, where the one the manifest names is not there any more.
        runtime: what runs the artifact.
        device: where that runs, see ``RunOptions``; the reference runs on the CPU.

    Raises:
        InvalidArgument: no such runtime, or it has no choice of devices.
        RuntimeUnavailable: it does not work here.
        ParityError: they do not agree.
        MissingDependency: torch or the runtime is not installed.
        ModelError, ArtifactError: the weights cannot be had, or are others.
    """
    from sait_deploy.runtime.torch import rebuild

    artifact = open_artifact(artifact)
    manifest = artifact.manifest
    if images is None:
        dataset = shipped_dataset(manifest.model.name, manifest.preprocessing.channels)
    else:
        dataset = Dataset(list_images(images).paths, None, str(images))
    chosen = dataset.sample(CHECK_IMAGES)
    pixels = preprocess(list(chosen.images), manifest.preprocessing)
    reference = rebuild(dataclasses.replace(manifest, dtype=Precision.FP32), weights, artifact.path)
    runner = load(artifact, runtime, RunOptions(device=device))
    return check_parity(runner, reference, ParityImages(pixels, chosen.source)).info
