"""Progress of a stage: lines in a pipe, bars in a terminal, which end as lines."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from sait_deploy.cli import _render
from sait_deploy.cli._render import live_progress
from tests.cli.calls import child_environment

STEPS = """
from sait_deploy.cli._render import live_progress
with live_progress({}) as report:
    report("loading")
    report("stem [a]", 0.0)
    report("trunk", 0.0)
    report("stem [a]", 0.5)
    report("stem [a]", 1.0)
    report("trunk", 1.0)
    report("comparing")
"""
LINES = ["- loading", "- stem [a]", "- trunk", "- comparing"]


def in_a_terminal(code: str) -> str:
    """Runs code whose stderr is a terminal, and returns what it wrote there."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=child_environment(TERM="xterm"))
        os.close(theirs)
        written = b""
        try:
            while part := terminal.read(4096):
                written += part
        except OSError:  # how Linux says that nobody writes any more
            pass
        assert child.wait(60) == 0
    return written.decode()


@pytest.mark.parametrize("options", ["", "animated=False"])
def test_a_terminal_shows_bars_and_keeps_lines_of_what_may_be_facts(options: str) -> None:
    written = in_a_terminal(STEPS.format(options))
    assert "━" in written
    assert [line for line in LINES if line in written] == ["- loading", "- comparing"]
    assert "stem [a]" in written, "brackets are no markup"


def test_steps_of_no_interest_afterwards_leave_no_line() -> None:
    written = in_a_terminal(STEPS.format("keep_lines=False"))
    assert "━" in written and "loading" in written
    assert not [line for line in LINES if line in written]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr(_render.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def test_a_pipe_gets_a_line_for_each_step_and_how_far_it_is_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with live_progress() as report:
        report("loading")
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            report("answering", share)
            clock(4)
    with live_progress(keep_lines=False) as report:
        report("looking")
    assert capsys.readouterr().err.splitlines() == ["- loading", "- answering", "- answering: 75%"]
