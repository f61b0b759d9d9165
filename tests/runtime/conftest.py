"""Runners of the small model's artifacts, on one runtime after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.folder import Engine
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport
from tests.runtime import engines
from tests.runtime.cases import ONE_THREAD, RUNTIMES
from tests.runtime.engines import Opened, Opener, opened_on_host


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


@pytest.fixture(scope="session")
def engine_of() -> Callable[[Artifact], Engine]:
    """Builds an artifact's engine, in a copy, once."""
    pytest.importorskip("tensorrt_rtx", reason="engines are built by TensorRT for RTX")
    return engines.engine_of


@pytest.fixture
def opened(engine_of: Callable[[Artifact], Engine], monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens an artifact's engine on the stand-in device, as an engine of either TensorRT."""

    def opener(artifact: Artifact, runtime: str = "tensorrt-rtx", **changes: Any) -> Opened:
        return opened_on_host(engine_of(artifact), runtime, monkeypatch, **changes)

    return opener
