"""Small exports that tests ask for."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from sait_deploy.export_plan import ExportOptions
from sait_deploy.manifest import WeightsSource
from sait_deploy.runtime import RunOptions
from sait_deploy.schedule import Score
from sait_deploy.zoo import LoadedModel, describe
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
