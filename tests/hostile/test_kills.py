"""A few kills of each kind; ``python -m tests.hostile.kills`` has hundreds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calls import child_environment


@pytest.mark.slow
def test_nothing_is_broken_or_left(world: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.hostile.kills", str(world), str(report), "12", "tune", "train"]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text(encoding="utf-8"))["kills"] == 12
