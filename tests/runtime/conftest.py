"""Runners of the small model's artifacts, on one runtime after the other."""

from __future__ import annotations

import pytest

from sait_deploy.artifact import Artifact
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, RUNTIMES


@pytest.fixture(scope="session", params=RUNTIMES)
def runner(request: pytest.FixtureRequest, tiny: TinyExport) -> Runner:
    """The artifact of half the tokens."""
    return load(tiny.half, request.param, ONE_THREAD)


@pytest.fixture(scope="session", params=RUNTIMES)
def dense_runner(request: pytest.FixtureRequest, tiny: TinyExport) -> Runner:
    """The dense artifact."""
    return load(tiny.dense, request.param, ONE_THREAD)


@pytest.fixture(scope="session", params=RUNTIMES)
def adaptive_runner(request: pytest.FixtureRequest, tiny_adaptive: Artifact) -> Runner:
    """The adaptive artifact."""
    return load(tiny_adaptive, request.param, ONE_THREAD)


@pytest.fixture(scope="session")
def adaptive_runners(tiny_adaptive: Artifact) -> list[Runner]:
    """The adaptive artifact on every runtime, to compare them."""
    return [load(tiny_adaptive, runtime, ONE_THREAD) for runtime in RUNTIMES]
