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

from sait_deploy.artifact import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, Artifact, sha256_of, write_manifest
from sait_deploy.export_plan import ExportOptions, draft_manifest, plan_exports
from sait_deploy.exporting import export_model
from sait_deploy.manifest import Manifest, WeightsSource
from sait_deploy.zoo import LoadedModel, WeightsRequest, describe, load_model
from tests.tiny import HALF, randomised, save_weights, small_vit

IMAGE_SIZE: Final = 96
CLASSES: Final = 5
WEIGHTS: Final = 300
"""Numbers in each of the two weights of a graph that ``fill`` writes."""


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


def draft() -> Manifest:
    """A manifest of a pruned graph with every optional field filled, as export writes it."""
    model = describe(small_vit(), "small", WeightsSource.FILE, "w.pth")
    model = dataclasses.replace(model, info=dataclasses.replace(model.info, labels=tuple("abcdefghij")))
    options = ExportOptions(densities=(HALF,))
    dense, half = plan_exports(model, options)
    manifest = draft_manifest(model, options, half, dense)
    parity = dataclasses.replace(manifest.parity, top1_agreement=1.0, kept_sets_equal_torch=0.5, batches=(1, 3))
    accuracy = dataclasses.replace(manifest.accuracy, top1_percent=50.0)
    files = {MODEL_FILE: "0" * 64, GOLDEN_FILE: "1" * 64}
    return dataclasses.replace(manifest, parity=parity, accuracy=accuracy, fp32_operators=("Softmax",), files=files)


def fill(folder: Path, manifest: Manifest) -> Manifest:
    """Writes a small artifact into an empty folder: a graph that adds two weights, a golden file, the manifest."""
    value = onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [WEIGHTS])
    weights = [onnx.numpy_helper.from_array(np.full(WEIGHTS, i, np.float32), name) for i, name in enumerate("ab")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["sum"])], "small", [], [value], weights)
    onnx.save(onnx.helper.make_model(graph, producer_name=manifest.id), str(folder / MODEL_FILE))
    np.savez(
        folder / GOLDEN_FILE,
        pixels=np.zeros((4, 4, 3), np.uint8),
        images=np.zeros((1, 3, 4, 4), np.float32),
        logits=np.zeros((1, 2), np.float32),
        counts=np.ones(1, np.int32),
    )
    files = {name: sha256_of(folder / name) for name in (MODEL_FILE, GOLDEN_FILE)}
    manifest = dataclasses.replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest
