"""The samples run as their first lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from sait_deploy.artifact import Artifact
from tests.exported import TinyExport

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_writes_a_checkpoint_and_a_second_cycle_goes_on_from_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("samples/train_demo.py", "--steps", "3", "--output", first)
    run("samples/train_demo.py", "--steps", "2", "--seed", "2", "--start-from", first, "--output", second)
    report = json.loads((second / "report.json").read_text(encoding="utf-8"))
    assert [cycle["options"]["steps"] for cycle in report["cycles"]] == [3, 2]
    assert 0 <= report["held_out"]["top1_percent"] <= 100
    with safe_open(first / "model.safetensors", "pt") as before, safe_open(second / "model.safetensors", "pt") as after:
        assert before.keys() == after.keys()
        weight = "blocks.0.attn.qkv.weight"
        moved = (before.get_tensor(weight) - after.get_tensor(weight)).abs().max()
        assert 0 < moved < 0.1


def test_an_artifact_checks_itself_and_classifies(demo_workspace: Path) -> None:
    digit = ROOT / "sait_deploy" / "demo" / "images" / "3" / "0.png"
    printed = run("samples/run_artifact.py", demo_workspace / "sait_demo_digits-density0.6", digit)
    assert "87 tokens kept" in printed.splitlines()[0]
    assert str(digit) in printed.splitlines()[1]


def test_onnxruntime_alone_reproduces_an_artifact(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.dense, tiny.half):
        (printed,) = run("samples/raw_onnxruntime.py", artifact.path).splitlines()
        assert float(printed.rpartition(" ")[2]) < 1e-4
    difference, kept, two = run("samples/raw_onnxruntime.py", tiny_adaptive.path).splitlines()
    assert float(difference.rpartition(" ")[2]) < 1e-4
    assert kept.endswith(f"[{tiny_adaptive.golden().counts[0]}]")
    assert two.endswith(", 37]")
