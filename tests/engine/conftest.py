"""Engines of small models, each built once. Read them only: copy them to change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import Engine
from tests.engine.cases import ONE_TARGET, builder_version
from tests.exported import TinyExport


def built(artifact: Artifact, folder: Path) -> Engine:
    """Builds for one target in a copy of the artifact."""
    builder_version()
    place = Path(shutil.copytree(artifact.path, folder / artifact.path.name))
    return build_engine(Artifact(place, artifact.manifest), ONE_TARGET)


@pytest.fixture(scope="session")
def dense_engine(tiny: TinyExport, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return built(tiny.dense, tmp_path_factory.mktemp("dense-engine"))


@pytest.fixture(scope="session")
def half_engine(tiny: TinyExport, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return built(tiny.half, tmp_path_factory.mktemp("half-engine"))


@pytest.fixture(scope="session")
def adaptive_engine(tiny_adaptive: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return built(tiny_adaptive, tmp_path_factory.mktemp("adaptive-engine"))
