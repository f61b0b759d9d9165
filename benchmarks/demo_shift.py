"""What a point tuned on the demonstration's light clutter meets when the images shift."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.demo_runs import EVALUATION_SEED, composed, load
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import HEAVY_CLUTTER, LIGHT_CLUTTER, TWO_OBJECTS
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import EvaluationRow
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_results import TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.evaluation.tune_trials import PointFamily
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.tokens import Score, default_prune_at

LIMIT: Final = 1.0
"""Points that may be lost on light clutter, with 95 % confidence."""

GRIDS: Final = {
    PointFamily.MASS: (0.95, 0.9, 0.87, 0.84, 0.81, 0.78, 0.75),
    PointFamily.DENSITY: (0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06),
}
"""Shares to try of each, from safe to cheap."""

CANVASES: Final = (("light", LIGHT_CLUTTER), ("heavy", HEAVY_CLUTTER), ("two objects", TWO_OBJECTS))


def shifted(weights: Path, images: int) -> dict[str, Any]:
    """Tunes a mass and a density on as many images of light clutter, checks on as many, and shows both other images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_light(folder / "light", 2 * images)
        artifact = _exported(weights, folder / "artifacts")
        chosen = {family: _tuned(artifact, folder / "light", family) for family in PointFamily}
    found: dict[str, Any] = {
        "limit": LIMIT,
        "tuned": {family.value: outcome for family, (_, outcome) in chosen.items()},
    }
    points = [point for point, _ in chosen.values() if point is not None]
    for name, canvas in CANVASES:
        dataset, _ = composed(canvas, EVALUATION_SEED + 2, images)
        progress(f"{weights.parent.name}: {name}")
        model = load(weights)
        block = default_prune_at(model.info.geometry.depth)
        options = EvaluateOptions(
            points=tuple(points), lower_resolutions=(), score=Score.MEAN, prune_at=block, threads=1
        )
        rows = {row.id: row for row in evaluate(model, dataset, options).rows}
        kinds = {point.name: _figures(rows[point.name]) for point in points}
        found[name] = {"dense_top1_percent": rows["dense"].top1_percent, **kinds}
    return found


def _write_light(folder: Path, count: int) -> None:
    dataset, _ = composed(LIGHT_CLUTTER, EVALUATION_SEED + 1, count)
    assert dataset.labels is not None
    for index, (pixels, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path, compress_level=1)


def _exported(weights: Path, folder: Path) -> Artifact:
    artifacts = export_model(load(weights), ExportOptions(points=(mass_point(0.9),), output=folder), progress)
    return next(artifact for artifact in artifacts if artifact.manifest.form is Form.ADAPTIVE)


def _tuned(artifact: Artifact, images: Path, family: PointFamily) -> tuple[PointRequest | None, dict[str, Any]]:
    """Returns the point found, and what tuning said of it."""
    options = TuneOptions(
        LIMIT, splits=SplitOptions(images), name=family.value, families=(family,), grid=GRIDS[family], threads=1
    )
    result = tune(artifact, options, progress)
    outcome: dict[str, Any] = {"outcome": result.outcome.value, "message": result.message}
    if result.chosen is None:
        return None, outcome
    point = result.chosen.candidate.point
    outcome |= {"share": result.chosen.candidate.share}
    return PointRequest.of(family.value, point), outcome


def _figures(row: EvaluationRow) -> dict[str, Any]:
    change = row.top1_change
    assert change is not None
    return {
        "change": {"low": change.low, "value": change.value, "high": change.high},
        "kept_mean": round(row.kept_mean, 2),
        "kept_p95": row.kept_p95,
        "mac_ratio": round(row.mac_ratio, 3),
    }
