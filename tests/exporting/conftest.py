"""Small exports that many tests read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Outputs, WeightsSource
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.exported import POINTS
from tests.exporting.exports import SMALL, smallest, to
from tests.shared import made_once
from tests.tiny import HALF, small_vit


@pytest.fixture(scope="session")
def small() -> list[Artifact]:
    """A model from memory at two densities, as Python callers export it."""

    def export(folder: Path) -> list[Artifact]:
        return sait_deploy.export(smallest(), dataclasses.replace(SMALL, output=folder / "artifacts"), name="mine")

    return made_once("small", export)


@pytest.fixture(scope="session")
def random_model() -> LoadedModel:
    """A timm model that every runtime can make again: 16 patch tokens."""
    return load_model("test_vit", WeightsRequest(WeightsSource.RANDOM), 64)


@pytest.fixture(scope="session")
def featured(random_model: LoadedModel) -> list[Artifact]:
    """That model with its tokens as an output: dense, at density 0.5, adaptive."""
    options = ExportOptions(densities=(HALF,), points=POINTS, outputs=Outputs.LOGITS_AND_FEATURES)
    return made_once("featured", lambda folder: export_model(random_model, dataclasses.replace(options, output=folder)))


@pytest.fixture(scope="session")
def blocked(random_model: LoadedModel) -> list[Artifact]:
    """That model with the tokens of blocks 0, 1 and 3 as outputs: dense, at density 0.5, adaptive."""
    options = ExportOptions(densities=(HALF,), points=POINTS, feature_blocks=(0, 1, 3))
    return made_once("blocked", lambda folder: export_model(random_model, dataclasses.replace(options, output=folder)))


@pytest.fixture(scope="session")
def inlined() -> list[Artifact]:
    """Two blocks, dense and adaptive, without model-local functions."""
    options = {"points": POINTS, "operators": OperatorForm.INLINE}
    return made_once("inlined", lambda folder: sait_deploy.export(small_vit(depth=2), to(folder, **options)))


@pytest.fixture(scope="session")
def pooled() -> list[Artifact]:
    """Two blocks with neither class token nor head, dense and adaptive: the average of its tokens."""
    vit = small_vit(depth=2, class_token=False, global_pool="avg", num_classes=0)
    return made_once("pooled", lambda folder: sait_deploy.export(vit, to(folder, points=POINTS)))
