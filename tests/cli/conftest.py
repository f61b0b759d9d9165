"""Ways to call the command line, in this process and in one of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.cli import run
from tests.cli.calls import Outcome, Sait, child_environment


@pytest.fixture
def sait(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sait:
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = leaving.value.code or 0
        assert isinstance(code, int)
        return Outcome.of(code, captured.out, captured.err)

    return call


@pytest.fixture
def process(tmp_path: Path) -> Sait:
    """Runs the command line in a process of its own, in an empty folder."""

    def call(*arguments: object, **environment: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "sait_deploy", *map(str, arguments)],
            cwd=tmp_path,
            env=child_environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome.of(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def workspace(demo_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the demonstration's artifacts to change at will."""
    return Path(shutil.copytree(demo_workspace, tmp_path / "copied"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder of ten images, one in a subfolder for each class."""
    place = tmp_path / "digits"
    for label in demo.LABELS:
        (place / label).mkdir(parents=True)
        shutil.copy(sorted((demo.IMAGES / label).iterdir())[0], place / label / "digit.png")
    return place
