"""A command is one entry and one module: it is listed, explains itself, and runs."""

from __future__ import annotations

import pytest

from sait_deploy.cli import COMMANDS, CommandEntry
from tests.cli.calls import Sait


def test_a_command_is_listed_and_run(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "greet-someone", CommandEntry("Greet someone by name.", "tests.adding.greeting"))
    listed = [line.split(maxsplit=1) for line in sait("--help").out.splitlines()]
    assert ["greet-someone", "Greet someone by name."] in listed
    assert sait("greet-someone", "--help").out.startswith("Usage: sait-deploy greet-someone [OPTIONS] NAME\n")
    done = sait("greet-someone", "Ada")
    assert (done.code, done.out, done.err) == (0, "Hello, Ada.\n", "")
    assert "greet-someone" in sait("greet").err
