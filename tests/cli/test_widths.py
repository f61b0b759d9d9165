"""Tables of the commands that make something fit 80 columns, in a pipe and on a terminal; words are whole."""

from __future__ import annotations

import os
import pty
import re
import shutil
import threading
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.cli import run
from tests.cli.calls import Outcome
from tests.cli.test_terminal import QUICK, seen
from tests.exported import IMAGE_SIZE, TinyExport
from tests.training.small import squares

COLUMNS = 80
MODEL = ("--model", "test_vit", "--imgsz", IMAGE_SIZE)
ONE = ("--threads", "1")
LONG = "a_folder_whose_name_is_long_enough_to_fill_most_of_a_line_of_eighty"


@pytest.fixture(scope="module")
def folder(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with artifacts, images in class folders, and a benchmark's report."""
    place = tmp_path_factory.mktemp("widths")
    for artifact in (tiny.dense, tiny_adaptive):
        shutil.copytree(artifact.path, place / LONG / artifact.path.name)
    Workspace(place / LONG).record_last_export([place / LONG / tiny_adaptive.path.name])
    squares(place / "pictures")
    return place


def calls(tiny: TinyExport) -> dict[str, tuple[object, ...]]:
    """A quick call of each command; ``recommend`` reads what ``bench`` wrote."""
    where = ("--workspace", LONG)
    return {
        "export": (*MODEL, "--weights", tiny.weights, "--mass", "0.9", "--mass", "0.5", "-o", "made", "--overwrite"),
        "build-engine": (*where, "--target", "sm89"),
        "bench": (*where, *QUICK, *ONE, "-o", "bench.json"),
        "recommend": ("--bench", "bench.json", "--max-drop", "100", *where),
        "tune": (*where, "--images", demo.IMAGES, "--max-disagreement", "90", "--grid", "0.99,0.9,0.8", *ONE),
        "quantize": (*where, "--images", demo.IMAGES, "--min-agreement", "0", "--overwrite", *ONE),
        "train": (
            *("--model", "test_vit", "--imgsz", 32, "--random-weights", "--new-head", "--data", "pictures"),
            *("--epochs", "1", "--batch", "8", "--mass-range", "0.5:0.9", "-o", LONG),
        ),
    }


def in_a_pipe(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    with pytest.raises(SystemExit) as leaving:
        run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = leaving.value.code or 0
    assert isinstance(code, int)
    return Outcome.of(code, captured.out, captured.err)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Runs a command in this process, on a terminal of its own; returns what that got."""
    ours, theirs = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                written.append(part)
        except OSError:  # how Linux says that nobody writes any more
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as changed, os.fdopen(theirs, "w") as terminal, pytest.raises(SystemExit) as leaving:
        for name in ("stdout", "stderr"):
            changed.setattr(f"sys.{name}", terminal)
        run([str(argument) for argument in arguments])
    reader.join()
    os.close(ours)
    text = b"".join(written).decode()
    assert not leaving.value.code, text
    return text


@pytest.mark.slow
@pytest.mark.parametrize("place", ["pipe", "terminal"])
def test_tables_fit_80_columns(
    place: str, tiny: TinyExport, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built with TensorRT for RTX")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    for name, value in (("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    for name, call in calls(tiny).items():
        if place == "pipe":
            done = in_a_pipe(capsys, name, *call)
            assert done.code == 0, done.err
            lines = done.out.splitlines()
            assert all(line == line.rstrip() for line in lines), name
        else:
            lines = seen(on_a_terminal(monkeypatch, name, *call))
        assert len(lines) > 1, name
        for line in lines:
            whole = len(line.split()) == 1 or re.match("next: |    sait-deploy ", line)
            assert len(line) <= COLUMNS or whole, f"{name}: {line}"
