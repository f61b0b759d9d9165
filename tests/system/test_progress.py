"""What a stage says where nobody listens goes to the package's logger."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy import demo
from tests.exported import TinyExport

QUICK = sait_deploy.BenchOptions(batches=(1,), duration=0.01, warmup=0, threads=1, images=demo.IMAGES)


def test_steps_are_logged_and_nothing_is_printed(
    tiny: TinyExport, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "sait_deploy"):
        sait_deploy.benchmark(tiny.half.path, QUICK)
    assert caplog.records
    assert {(record.name, record.levelname) for record in caplog.records} == {("sait_deploy", "INFO")}
    assert capsys.readouterr() == ("", "")


def test_a_progress_that_is_given_takes_the_loggers_place(tiny: TinyExport, caplog: pytest.LogCaptureFixture) -> None:
    steps: list[str] = []
    with caplog.at_level(logging.DEBUG, "sait_deploy"):
        sait_deploy.benchmark(tiny.half.path, QUICK, lambda step, share=None: steps.append(step))
    assert steps and not caplog.records


def test_no_module_of_the_library_prints() -> None:
    """But for the process that measures memory, which answers its parent so."""
    root, printing = Path(__file__).parents[2] / "sait_deploy", []
    for file in root.rglob("*.py"):
        if "cli" not in file.parts:
            calls = [
                node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
            ]
            printing += [file.name for call in calls if ast.unparse(call.func) in ("print", "click.echo")]
    assert set(printing) == {"memory_process.py"}
