"""What has to be installed to run an artifact, what does not, and what running imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime.registry import RUNTIMES
from tests.exported import TinyExport

_BLOCKED = """
import sys
blocked = set(sys.argv[3].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import sait_deploy
from sait_deploy.errors import SaitError
try:
    runner = sait_deploy.load(sys.argv[1], sys.argv[2])
    print(runner.run(np.zeros((2, 3, 96, 96), dtype=np.float32)).kept.tolist())
    print(runner.predict(np.zeros((9, 9, 3), dtype=np.uint8))[0].kept)
except SaitError as error:
    print(type(error).__name__, error.exit_code, error.message, error.hint, sep="|")
print(sorted(blocked & set(sys.modules)))
"""


def without(artifact: Artifact, runtime: str, packages: str) -> list[str]:
    command = [sys.executable, "-c", _BLOCKED, str(artifact.path), runtime, packages]
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_onnxruntime_runs_without_torch(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    packages = "torch,timm,torchvision,safetensors,onnxscript,onnx_ir,click,rich,matplotlib,jinja2"
    assert without(tiny.half, "onnxruntime", packages) == ["[18, 18]", "18", "[]"]
    zeros, image, imported = without(tiny_adaptive, "onnxruntime", packages)
    first, second = json.loads(zeros)
    assert first == second and 1 <= first <= 36 and 1 <= int(image) <= 36
    assert imported == "[]"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_package_is_named_with_its_extra(tiny: TinyExport, name: str) -> None:
    runtime = RUNTIMES[name]
    error, _ = without(tiny.half, name, runtime.package)
    _, code, message, hint = error.split("|")
    assert code == "3"
    assert re.search(rf"\b{runtime.package}\b.* is not installed", message)
    assert f"sait-deploy[{runtime.extra}]" in hint


def test_engines_need_the_bindings_to_cuda_too(tiny: TinyExport) -> None:
    pytest.importorskip("tensorrt_rtx")
    error, _ = without(tiny.half, "tensorrt-rtx", "cuda")
    assert error.split("|")[:2] == ["MissingDependency", "3"]
    assert "needs cuda-bindings, which is not installed" in error and "sait-deploy[rtx]" in error
