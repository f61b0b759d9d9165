"""The command line as reports name it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.system.command_line import command_line, remember
from sait_deploy.system.machine import environment


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    remember(())


def test_python_has_no_command_line() -> None:
    remember(())
    assert command_line() is None
    found = environment(1)
    assert found["sait-deploy"] == sait_deploy.__version__
    assert "command" not in found


def test_arguments_stand_as_they_were_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/somewhere/me"))
    folders = ["/somewhere/me/artifacts/a", "/somewhere/me/my artifacts", "/disk/somewhere/me/b"]
    remember(["bench", "--images", "my photos", *folders, "--output=/somewhere/me/r.html", "/other"])
    shown = "~/artifacts/a ~/'my artifacts' /disk/somewhere/me/b"
    wanted = f"sait-deploy bench --images 'my photos' {shown} --output=~/r.html /other"
    assert command_line() == environment(1)["command"] == wanted
