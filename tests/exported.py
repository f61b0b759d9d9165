"""Artifacts of small models to test on, and the means to change them as an outsider would."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import timm

from sait_deploy import demo
from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, Artifact, write_manifest
from sait_deploy.artifacts.golden import Golden, write_golden
from sait_deploy.artifacts.manifest import Head, Manifest, Precision, Task, WeightsSource
from sait_deploy.artifacts.manifest_parts import measured_points
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.exporting.manifest import draft_manifest
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.registry import LoadedModel, WeightsRequest, describe, load_model
from sait_deploy.runtime.torch import pruning_of
from tests.tiny import HALF, randomised, save_weights, small_vit

IMAGE_SIZE: Final = 96
CLASSES: Final = 5
WEIGHTS: Final = 300
"""Numbers in each of the two weights of a graph that ``fill`` writes."""

POINTS: Final = (mass_point(0.6), PointRequest("fast", 0.3, 2, 8), PointRequest("wide", 0.9, 12))
"""The points of the adaptive exports: one by mass alone, one with both limits, one with a least number."""


@dataclass(frozen=True)
class TinyExport:
    """A test_vit of 36 patch tokens and 5 classes from a weights file, dense and at density 0.5."""

    weights: Path
    model: LoadedModel
    dense: Artifact
    half: Artifact


def export_tiny(folder: Path, options: ExportOptions = ExportOptions()) -> TinyExport:
    """Exports the model into ``folder``; output and densities of the options are replaced."""
    vit = randomised(timm.create_model("test_vit", img_size=IMAGE_SIZE, num_classes=CLASSES), seed=3)
    weights = save_weights(vit, folder / "weights.safetensors")
    model = load_model("test_vit", WeightsRequest(WeightsSource.FILE, weights), IMAGE_SIZE)
    options = dataclasses.replace(options, densities=(HALF,), output=folder / "artifacts")
    dense, half = export_model(model, options)
    return TinyExport(weights, model, dense, half)


def export_adaptive(tiny: TinyExport) -> Artifact:
    """Exports the model's adaptive form at ``POINTS`` beside what is there, its baseline kept."""
    options = ExportOptions(points=POINTS, output=tiny.dense.path.parent, precision=tiny.dense.manifest.dtype)
    _, adaptive = export_model(tiny.model, options)
    return adaptive


def export_embedders(tiny: TinyExport, folder: Path) -> list[Artifact]:
    """Exports the model dense, at density 0.5 and adaptive, its classifier left out."""
    options = ExportOptions(densities=(HALF,), points=(mass_point(0.6),), task=Task.EMBED, output=folder)
    return export_model(tiny.model, options)


def export_projecting(folder: Path) -> Artifact:
    """Exports the demonstration model, its head taken for a projection."""
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    (dense,) = export_model(model, ExportOptions(task=Task.EMBED, head=Head.PROJECTION, output=folder))
    return dense


def copied(artifact: Artifact, folder: Path) -> Artifact:
    """Returns a copy of an artifact that may be changed."""
    place = folder / artifact.path.name
    shutil.copytree(artifact.path, place)
    return Artifact(place, artifact.manifest)


def signed(artifact: Artifact) -> Artifact:
    """Writes the hashes of an artifact's files into its manifest, as one who made it would."""
    path = artifact.path / MANIFEST_FILE
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    data["files"] = {name: sha256_of(artifact.path / name) for name in data["files"]}
    path.write_text(json.dumps(data), encoding="utf-8")
    return Artifact(artifact.path, dataclasses.replace(artifact.manifest, files=data["files"]))


def graph_of(artifact: Artifact) -> onnx.ModelProto:
    """Reads an artifact's ONNX file."""
    return onnx.load(str(artifact.model_path))


def with_graph(artifact: Artifact, model: onnx.ModelProto) -> Artifact:
    """Puts another graph into an artifact that may be changed, and signs it."""
    artifact.model_path.write_bytes(model.SerializeToString())
    return signed(artifact)


def change_weight(model: onnx.ModelProto, part: str, change: float) -> None:
    """Adds to one number in the middle of the first weight whose name has that part."""
    tensor = next(tensor for tensor in model.graph.initializer if part in tensor.name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[array.size // 2] += change
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def reference(model: LoadedModel, artifact: Artifact) -> PrunableViT:
    """The model in torch, in fp32, pruned as an artifact of it is."""
    manifest = artifact.manifest
    asked = Precision.FP32, manifest.asked_outputs, manifest.model.task, manifest.feature_blocks
    return PrunableViT(model.vit, pruning_of(manifest), *asked)


def draft() -> Manifest:
    """A manifest of a density graph with every optional field filled, as export writes it."""
    return _drafted(ExportOptions(densities=(HALF,)))


def draft_adaptive() -> Manifest:
    """The same of an adaptive graph with the points ``POINTS``: 16 patch tokens."""
    return _drafted(ExportOptions(points=POINTS))


def _drafted(options: ExportOptions) -> Manifest:
    model = describe(small_vit(), "small", WeightsSource.FILE, "w.pth")
    model = dataclasses.replace(model, info=dataclasses.replace(model.info, labels=tuple("abcdefghij")))
    dense, pruned = plan_exports(model, options)
    names = tuple(name for name, _ in pruned.points)
    kept = {name: np.array([8, 8], np.int32) for name in names}
    manifest = measured_points(draft_manifest(model, options, pruned, dense), kept)
    parity = dataclasses.replace(
        manifest.parity, top1_agreement=1.0, kept_sets_equal_torch=0.5, batches=(1, 3), points=names
    )
    accuracy = dataclasses.replace(manifest.accuracy, top1_percent=50.0)
    files = {MODEL_FILE: "0" * 64, GOLDEN_FILE: "1" * 64}
    return dataclasses.replace(manifest, parity=parity, accuracy=accuracy, fp32_operators=("Softmax",), files=files)


def fill(folder: Path, manifest: Manifest) -> Manifest:
    """Writes a small artifact into an empty folder: a graph that reads two weights, a golden file, the manifest.

    The graph has the inputs and outputs of the manifest, and is not to be run.
    """
    inputs, outputs = (
        [
            onnx.helper.make_tensor_value_info(t.name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.shape)
            for t in tensors
        ]
        for tensors in (manifest.inputs, manifest.outputs)
    )
    weights = [onnx.numpy_helper.from_array(np.full(WEIGHTS, i, np.float32), name) for i, name in enumerate("ab")]
    selection = [] if manifest.pruning is None else [manifest.pruning.importance, manifest.pruning.keep]
    names = [*manifest.output_names, *selection]
    nodes = [onnx.helper.make_node("Add", ["a", "b"], [name]) for name in names]
    graph = onnx.helper.make_graph(nodes, "small", inputs, outputs, weights)
    onnx.save(onnx.helper.make_model(graph, producer_name=manifest.id), str(folder / MODEL_FILE))
    golden = Golden(
        pixels=np.zeros((4, 4, 3), np.uint8),
        images=np.zeros((1, 3, 4, 4), np.float32),
        logits=np.zeros((1, 2), np.float32),
        counts=np.ones(1, np.int32),
    )
    write_golden(folder / GOLDEN_FILE, golden)
    files = {name: sha256_of(folder / name) for name in (MODEL_FILE, GOLDEN_FILE)}
    manifest = dataclasses.replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest
