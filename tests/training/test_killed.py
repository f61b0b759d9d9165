"""A training in a process of its own that is killed in the middle of an epoch, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sait_deploy.cli import run
from sait_deploy.models.weights import read_state_dict
from sait_deploy.training.log import LogEntry
from sait_deploy.training.state import CURVE_FILE, LOG_JSON, WEIGHTS_FILE, read_state
from tests.cli.calls import child_environment
from tests.training.small import assert_same_weights, untimed

OPTIONS = (
    *("--random-weights", "--epochs", "3", "--epoch-images", "64", "--val-images", "20", "--batch", "16"),
    *("--lr", "1e-3", "--opt", "momentum", "--amp", "bf16", "--ema-decay", "0.9", "--drop-path", "0.2"),
    *("--mixup", "0.2", "--density-range", "0.2:0.8"),
)
PATIENCE = 240
"""Seconds, on a machine with other things to do."""


def started(output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sait_deploy", "train", *OPTIONS, "-o", str(output)],
        cwd=output.parent,
        env=child_environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The same training in this process, to its end; returns what it said of its progress."""
    with pytest.raises(SystemExit) as leaving:
        run(["train", *OPTIONS, "-o", str(output)])
    said = capsys.readouterr().err
    assert not leaving.value.code, said
    return said


def killed_in_the_second_epoch(output: Path) -> None:
    training = started(output)
    until = time.monotonic() + PATIENCE
    while not (output / CURVE_FILE).exists():  # what an epoch writes last
        assert training.poll() is None, training.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)
    training.send_signal(signal.SIGKILL)
    training.communicate(timeout=PATIENCE)
    assert training.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "whole", capsys)
    killed_in_the_second_epoch(tmp_path / "killed")
    left = read_state(tmp_path / "killed")
    assert left is not None
    assert 1 <= left.epochs < 3
    said = finished(tmp_path / "killed", capsys)
    assert f"resumed after epoch {left.epochs} of 3" in said
    assert (tmp_path / "killed" / WEIGHTS_FILE).read_bytes() == (tmp_path / "whole" / WEIGHTS_FILE).read_bytes()
    ends = [read_state(tmp_path / name) for name in ("killed", "whole")]
    assert ends[0] is not None and ends[1] is not None
    assert_same_weights(ends[0].model, ends[1].model)
    logs = [
        tuple(LogEntry(**entry) for entry in json.loads((tmp_path / name / LOG_JSON).read_text()))
        for name in ("killed", "whole")
    ]
    assert untimed(logs[0]) == untimed(logs[1])
    weights = read_state_dict(tmp_path / "whole" / WEIGHTS_FILE).tensors
    assert any(not (weights[name] == tensor).all() for name, tensor in ends[1].model.items()), "an average of nothing"
