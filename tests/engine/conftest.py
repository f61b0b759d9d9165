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
from tests.shared import made_once


def built(artifact: Artifact, folder: Path) -> Engine:
    """Builds for one target in a copy of the artifact."""
    builder_version()
    place = Path(shutil.copytree(artifact.path, folder / artifact.path.name))
    return build_engine(Artifact(place, artifact.manifest), ONE_TARGET)


@pytest.fixture(scope="session")
def dense_engine(tiny: TinyExport) -> Engine:
    return made_once("dense-engine", lambda folder: built(tiny.dense, folder))


@pytest.fixture(scope="session")
def half_engine(tiny: TinyExport) -> Engine:
    return made_once("half-engine", lambda folder: built(tiny.half, folder))


@pytest.fixture(scope="session")
def adaptive_engine(tiny_adaptive: Artifact) -> Engine:
    return made_once("adaptive-engine", lambda folder: built(tiny_adaptive, folder))
