"""Small exports that many tests read."""

from __future__ import annotations

import dataclasses

import pytest

import sait_deploy
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Outputs, WeightsSource
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.exported import POINTS
from tests.exporting.exports import SMALL, smallest, to
from tests.tiny import HALF, small_vit


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A model from memory at two densities, as Python callers export it."""
    folder = tmp_path_factory.mktemp("small") / "artifacts"
    return sait_deploy.export(smallest(), dataclasses.replace(SMALL, output=folder), name="mine")


@pytest.fixture(scope="session")
def random_model() -> LoadedModel:
    """A timm model that every runtime can make again: 16 patch tokens."""
    return load_model("test_vit", WeightsRequest(WeightsSource.RANDOM), 64)


@pytest.fixture(scope="session")
def featured(random_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """That model with its tokens as an output: dense, at density 0.5, adaptive."""
    options = to(tmp_path_factory.mktemp("featured"), densities=(HALF,), points=POINTS)
    return export_model(random_model, dataclasses.replace(options, outputs=Outputs.LOGITS_AND_FEATURES))


@pytest.fixture(scope="session")
def inlined(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two blocks, dense and adaptive, without model-local functions."""
    options = to(tmp_path_factory.mktemp("inlined"), points=POINTS, operators=OperatorForm.INLINE)
    return sait_deploy.export(small_vit(depth=2), options)


@pytest.fixture(scope="session")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two blocks with neither class token nor head, dense and adaptive: the average of its tokens."""
    vit = small_vit(depth=2, class_token=False, global_pool="avg", num_classes=0)
    return sait_deploy.export(vit, to(tmp_path_factory.mktemp("pooled"), points=POINTS))
