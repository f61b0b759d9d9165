"""Small exports that tests ask for."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.folder import GOLDEN_FILE, Artifact
from sait_deploy.artifacts.manifest import Precision, WeightsSource
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.images.preprocess import normalised
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.runtime import RunOptions
from sait_deploy.tokens import Score
from tests.tiny import HALF, randomised, small_vit

ONE_THREAD = RunOptions(threads=1)
HALVES = ExportOptions(densities=(HALF,))
SMALL = ExportOptions(densities=(Decimal("0.25"), Decimal("0.7")), prune_at=0, score=Score.CLS)


def smallest(seed: int = 0, **options: Any) -> VisionTransformer:
    """One block: what exports fastest."""
    return randomised(small_vit(depth=1, **options), seed)


def described(vit: VisionTransformer, name: str = "m") -> LoadedModel:
    return describe(vit, name, WeightsSource.MEMORY, None)


def to(folder: Path, **options: Any) -> ExportOptions:
    return ExportOptions(output=folder, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def kept_at_default(artifact: Artifact) -> int | None:
    """Patch tokens that each image keeps at a fixed point; None of a dense artifact."""
    default = artifact.manifest.default_point
    if default is None:
        return None
    assert default.point.min_keep == default.point.max_keep
    return default.point.max_keep


def check_golden(artifact: Artifact) -> None:
    """Runs the ONNX file on plain ONNX Runtime, fed and compared by the names that the file itself gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"])
    with np.load(artifact.path / GOLDEN_FILE, allow_pickle=False) as file:
        golden = {name: file[name] for name in file.files}
    inputs, outputs = ([value.name for value in side()] for side in (session.get_inputs, session.get_outputs))
    found = dict(zip(outputs, session.run(outputs, {name: golden[name] for name in inputs}), strict=True))
    found["logits"] = found.pop(outputs[0])
    tokens = np.array([artifact.manifest.model.geometry.tokens], np.int32)
    found.setdefault("counts", tokens)
    assert golden.keys() == {"pixels", *inputs, *found}
    tolerance = 1e-4 if artifact.manifest.dtype is Precision.FP32 else 2e-2
    for name, array in found.items():
        assert array.dtype == golden[name].dtype
        np.testing.assert_allclose(array, golden[name], rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(normalised(golden["pixels"][None], artifact.manifest.preprocessing), golden["images"])
