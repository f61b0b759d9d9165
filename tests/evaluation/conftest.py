"""What tests of tuning run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.runtime import Runner, RunOptions, load
from tests.evaluation.tunings import COUNT, draw
from tests.exported import TinyExport


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unlabelled images."""
    folder = tmp_path_factory.mktemp("tune") / "images"
    draw(folder, COUNT, 1)
    return folder


@pytest.fixture(scope="module")
def runner(tiny_adaptive: Artifact) -> Runner:
    return load(tiny_adaptive, options=RunOptions(threads=1))


@pytest.fixture
def adaptive(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path) -> Artifact:
    """The adaptive artifact in a workspace of its own, its baseline beside it."""
    root = tmp_path / "artifacts"
    for artifact in (tiny.dense, tiny_adaptive):
        shutil.copytree(artifact.path, root / artifact.path.name)
    Workspace(root).record_last_export([root / tiny.dense.path.name, root / tiny_adaptive.path.name])
    return open_artifact(root / tiny_adaptive.path.name)
