"""A workspace with one artifact in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import (
    Workspace,
)
from sait_deploy.artifacts.manifest import Manifest
from tests.artifacts.places import put
from tests.exported import draft


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return draft()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "artifacts")


@pytest.fixture
def place(workspace: Workspace, manifest: Manifest) -> Path:
    """A whole artifact in the workspace."""
    return put(workspace, manifest)


@pytest.fixture(scope="session")
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def running() -> Iterator[int]:
    """The number of another process that runs."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()
