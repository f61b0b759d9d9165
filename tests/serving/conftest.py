"""Servers over HTTP that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.serving.options import ModelsOptions
from tests.exported import TinyExport
from tests.serving.served import Served, served


@pytest.fixture(scope="module")
def server(tiny: TinyExport, tiny_adaptive: Artifact) -> Iterator[Served]:
    """The small model's adaptive artifact, then its density and dense ones."""
    pytest.importorskip("uvicorn", reason="the server needs Ray, which brings uvicorn and has no wheel here")
    artifacts = tiny_adaptive.path, tiny.half.path, tiny.dense.path
    options = ModelsOptions(artifacts=artifacts, threads=1, queue=32, time_limit_s=5, max_body_mib=8)
    with served(options) as running:
        yield running
