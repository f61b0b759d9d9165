"""One small export that many tests read."""

from __future__ import annotations

import dataclasses

import pytest

import sait_deploy
from sait_deploy.artifact import Artifact
from tests.exporting.exports import SMALL, smallest


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A model from memory at two densities, as Python callers export it."""
    folder = tmp_path_factory.mktemp("small") / "artifacts"
    return sait_deploy.export(smallest(), dataclasses.replace(SMALL, output=folder), name="mine")
