"""Parts of a manifest that follow from others or from what is installed; whoever makes artifacts needs them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.pruning_info import KeptInfo, MacsInfo, PruningInfo
from sait_deploy.tokens import pruned_macs

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
    """Returns what is known before the file is written, for readers of the ONNX file alone."""
    pruning = manifest.pruning
    known = {
        "schema_version": manifest.schema_version,
        "id": manifest.id,
        "form": manifest.form,
        "model": manifest.model.name,
        "weights": manifest.weights.source,
        "weights_sha256": manifest.weights.sha256,
        "precision": manifest.dtype,
        "image_size": json.dumps(manifest.model.image_size),
        "preprocessing": json.dumps(dataclasses.asdict(manifest.preprocessing)),
    }
    if manifest.model.labels is not None:
        known["labels"] = json.dumps(manifest.model.labels, ensure_ascii=False)
    if pruning is not None:
        known |= {"score": pruning.score, "prune_at": pruning.prune_at}
        known |= {} if pruning.threshold is None else {"threshold": pruning.threshold}
        known |= {"density": pruning.density} if pruning.density is not None else _metadata_of_points(pruning)
    return {f"sait.{key}": str(value) for key, value in known.items()}


def _metadata_of_points(pruning: PruningInfo) -> dict[str, object]:
    points = {i.name: [i.point.mass, i.point.min_keep, i.point.max_keep] for i in pruning.points}
    return {"points": json.dumps(points)}


def installed_tools() -> dict[str, str]:
    """Returns the versions of Python and of the packages that make artifacts, of those that are installed."""
    versions = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def fingerprint(*parts: object) -> str:
    """Returns a 12-digit hexadecimal digest of parts that tell two exports apart."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]
