"""What full TensorRT is asked to build of the engines that are tested on a GPU, put to NVIDIA's own front end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.options import PluginChoice
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.request import BuildRequest
from tests.exported import TinyExport, copied
from tests.runtime.engine_cases import CASES, EngineCase
from tests.runtime.host_builder import build_on_host

ROOT = Path(__file__).parents[2]
FULL = [case for case in CASES if case.builder is BuilderName.TENSORRT]


def taken_by_the_front_end(place: Path, request: BuildRequest) -> list[dict[str, Any]]:
    """What the front end in a folder makes of each part; the test is skipped where none has been laid out."""
    paths = {"PYTHONPATH": f"{place / 'py'}{os.pathsep}{ROOT}", "LD_LIBRARY_PATH": str(place / "lib")}
    command = [sys.executable, "-m", "tests.engine.frontend_engines"]
    done = subprocess.run(
        command, input=request.to_json(), env=os.environ | paths, capture_output=True, text=True, check=False
    )
    if "No module named 'tensorrt'" in done.stderr:
        pytest.skip("NVIDIA's front end is not here; the tests of the plugins lay it out")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("case", FULL, ids=str)
def test_the_front_end_takes_every_engine(
    pytestconfig: pytest.Config, tmp_path: Path, tiny: TinyExport, tiny_adaptive: Artifact, case: EngineCase
) -> None:
    """Graphs, profiles and flags; without plugin nodes, which it cannot parse without the whole TensorRT."""
    assert pytestconfig.cache is not None
    place, found = pytestconfig.cache.mkdir("tensorrt-frontend"), list[dict[str, Any]]()
    artifact = {"dense": tiny.dense, "density": tiny.half, "adaptive": tiny_adaptive}[case.form]
    options = dataclasses.replace(case.options, plugin=PluginChoice.NEVER)

    def ask(request: BuildRequest) -> None:
        found.extend(taken_by_the_front_end(place, request))

    manifest = build_on_host(copied(artifact, tmp_path).path, options, ask).manifest
    assert found == [
        {
            "fused": part.network.attention_fused,
            "profiles": len(part.profiles),
            "stripped": options.strip_weights,
            "errors": [],
        }
        for part in manifest.parts
    ]
    assert sum(each["fused"] for each in found) == manifest.attention.expected > 0
