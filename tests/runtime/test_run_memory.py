"""The memory of a runner: a request takes what the one before it took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from tests.exported import TinyExport

_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import sait_deploy

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

runner = sait_deploy.load(sys.argv[1], "onnxruntime", sait_deploy.RunOptions(threads=1))
images = np.ones((512, 3, 96, 96), np.float32)
opened = resident()
runner.run(images)
first = resident()
for _ in range(3):
    runner.run(images)
print(first - opened, resident() - first)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_later_requests_take_no_further_memory(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.dense, tiny_adaptive):
        command = [sys.executable, "-c", _SCRIPT, str(artifact.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, later = map(int, done.stdout.split())
        assert later < first / 10, "KiB"
