"""What an export's manifest says: drafted from the plan, completed by what checking the graph found."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import (
    COUNTS,
    FEATURES,
    SCHEMA_VERSION,
    AccuracyInfo,
    AccuracyStatus,
    Form,
    KeptInfo,
    MacsInfo,
    Manifest,
    Outputs,
    ParityInfo,
    PointInfo,
    Precision,
    PruningInfo,
    TensorInfo,
)
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.names import IMPORTANCE, KEEP, KEEP_LIMITS, MASS
from sait_deploy.exporting.plan import ExportOptions, ExportPlan
from sait_deploy.models.registry import LoadedModel
from sait_deploy.tokens import dense_macs, pruned_macs

_TOOLS: Final = (
    "sait-deploy",
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "Pillow",
)
_UNCHECKED: Final = ParityInfo("", 0, "", (), 0.0, 0.0, None, 0.0, None, ())


def draft_manifest(model: LoadedModel, options: ExportOptions, plan: ExportPlan, baseline: ExportPlan) -> Manifest:
    """Returns a manifest with everything but what checking finds out: parity, accuracy, file hashes, kept tokens."""
    info, dense = model.info, dense_macs(model.info.geometry)
    inputs, outputs = _tensors(model, options, plan)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        id=plan.id,
        name=plan.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        form=plan.form,
        model=info,
        weights=model.weights,
        pruning=_pruning(model, plan),
        inputs=inputs,
        outputs=outputs,
        preprocessing=model.preprocessing,
        dtype=options.precision,
        fp32_operators=()
        if options.precision is Precision.FP32
        else ("LayerNormalization", "Softmax", "MassTokenSelect"),
        opset=options.opset,
        inlined=options.operators is OperatorForm.INLINE,
        parity=_UNCHECKED,
        accuracy=AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None),
        macs=MacsInfo(dense, dense, 1.0),
        baseline=None if plan.id == baseline.id else baseline.id,
        tools=_tools(),
        files={},
        preprocessing_sources=model.preprocessing_sources,
    )


def _tensors(
    model: LoadedModel, options: ExportOptions, plan: ExportPlan
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Returns a graph's inputs and outputs."""
    info, geometry = model.info, model.info.geometry
    inputs = [TensorInfo("images", "float32", ("batch", 3, *info.image_size))]
    outputs = [
        TensorInfo("logits" if info.classes else "features", "float32", ("batch", info.classes or geometry.width))
    ]
    if plan.form is Form.ADAPTIVE:
        inputs += [TensorInfo(MASS, "float32", ("batch",)), TensorInfo(KEEP_LIMITS, "int32", ("batch", 2))]
    if options.outputs is Outputs.LOGITS_AND_FEATURES:
        outputs.append(TensorInfo(FEATURES, "float32", ("batch", geometry.tokens, geometry.width)))
    if plan.pruning is not None:
        outputs.append(TensorInfo(COUNTS, "int32", ("batch",)))
    return tuple(inputs), tuple(outputs)


def _pruning(model: LoadedModel, plan: ExportPlan) -> PruningInfo | None:
    if plan.pruning is None:
        return None
    dense = dense_macs(model.info.geometry)
    unmeasured = KeptInfo(0, 0.0, 0.0, 0.0, 0.0, 0), MacsInfo(dense, dense, 1.0)
    return PruningInfo(
        score=plan.pruning.score,
        prune_at=plan.pruning.prune_at,
        density=None if plan.density is None else f"{plan.density:f}",
        points=tuple(PointInfo(name, point, *unmeasured) for name, point in plan.points),
        importance=IMPORTANCE,
        keep=KEEP,
    )


def measured_points(manifest: Manifest, kept: Mapping[str, NDArray[np.int32]]) -> Manifest:
    """Returns the manifest with what each named point kept, and the MACs that follow from it.

    Args:
        manifest: of a pruned artifact; a dense one is returned as it is.
        kept: patch tokens per image, int32 [n], for every named point.
    """
    if manifest.pruning is None:
        return manifest
    geometry, prune_at, dense = manifest.model.geometry, manifest.pruning.prune_at, manifest.macs.dense
    points = []
    for info in manifest.pruning.points:
        counts = kept[info.name]
        macs = round(sum(pruned_macs(geometry, prune_at, int(count)) for count in counts) / len(counts))
        points.append(dataclasses.replace(info, kept=KeptInfo.of(counts), macs=MacsInfo(macs, dense, dense / macs)))
    pruning = dataclasses.replace(manifest.pruning, points=tuple(points))
    return dataclasses.replace(manifest, pruning=pruning, macs=points[0].macs)


def onnx_metadata(manifest: Manifest) -> dict[str, str]:
    """What is known before the file is written, for readers of the ONNX file alone."""
    pruning = manifest.pruning
    known = {
        "schema_version": manifest.schema_version,
        "id": manifest.id,
        "form": manifest.form,
        "model": manifest.model.name,
        "weights": manifest.weights.source,
        "weights_sha256": manifest.weights.sha256,
        "precision": manifest.dtype,
    }
    if pruning is not None:
        known |= {"score": pruning.score, "prune_at": pruning.prune_at}
        known |= {"density": pruning.density} if pruning.density is not None else _metadata_of_points(pruning)
    return {key: str(value) for key, value in known.items()}


def _metadata_of_points(pruning: PruningInfo) -> dict[str, object]:
    points = {i.name: [i.point.mass, i.point.min_keep, i.point.max_keep] for i in pruning.points}
    return {"points": json.dumps(points)}


def _tools() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
