"""The world of hostile cases, made once in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from tests.exported import TinyExport
from tests.hostile.world import build_world
from tests.shared import made_once


@pytest.fixture(scope="session")
def world(tiny: TinyExport, tiny_adaptive: Artifact, embedders: list[Artifact]) -> Path:
    """A folder with all that cases start from. Read it only."""
    return made_once("hostile-world", lambda folder: build_world(folder, tiny, tiny_adaptive, embedders[-1]))
