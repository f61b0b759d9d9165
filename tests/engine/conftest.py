"""Engines of small models, each built once and to be read only, and copies of their artifacts to build in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import Engine
from tests.engine.cases import ONE_TARGET, builder_version
from tests.exported import TinyExport, copied
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


@pytest.fixture(scope="session")
def version() -> str:
    """The builder's version; a test that asks for it is skipped where the builder is not installed."""
    return builder_version()


@pytest.fixture
def dense(tiny: TinyExport, tmp_path: Path) -> Artifact:
    """The dense artifact, to build in."""
    return copied(tiny.dense, tmp_path)


@pytest.fixture
def adaptive(tiny_adaptive: Artifact, tmp_path: Path) -> Artifact:
    """The adaptive artifact, to build in."""
    return copied(tiny_adaptive, tmp_path)
