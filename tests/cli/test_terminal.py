"""What is printed fits a terminal of 80 columns, a pipe with COLUMNS, and tells what to type next."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.cli import COMMANDS
from sait_deploy.cli._lines import wrapped
from tests.cli.calls import Outcome, Sait, child_environment
from tests.exported import TinyExport

QUICK = ("--duration", "0.05", "--warmup", "0", "--batch", "1", "--images", demo.IMAGES)


def calls(adaptive: Path) -> dict[str, tuple[object, ...]]:
    """A quick call of each command that prints a table and needs no torch."""
    return {
        "inspect": ("inspect", adaptive),
        "bench": ("bench", adaptive, *QUICK),
        "evaluate": ("evaluate", adaptive, "--images", demo.IMAGES, "--limit", "8", "--lower-resolution", "none"),
        "predict": ("predict", demo.IMAGES / "7", "--artifact", adaptive),
        "doctor": ("doctor",),
        "models": ("models", "deit*"),
    }


@pytest.mark.parametrize("name", ["inspect", "bench", "evaluate", "predict", "doctor", "models"])
def test_a_pipe_of_80_columns_gets_lines_that_fit_and_whole_words(
    sait: Sait, monkeypatch: pytest.MonkeyPatch, tiny_adaptive: Artifact, name: str
) -> None:
    call = calls(tiny_adaptive.path)[name]
    monkeypatch.setenv("COLUMNS", "80")
    narrow = sait(*call)
    assert narrow.code == 0, narrow.err
    for line in narrow.out.splitlines():
        assert line == line.rstrip()
        assert len(line) <= 80 or len(line.split()) == 1, line
    if name in ("inspect", "models"):  # what is measured, and what is there, differs from call to call
        monkeypatch.setenv("COLUMNS", "400")
        assert set(narrow.out.split()) == set(sait(*call).out.split())


def test_without_columns_a_pipe_is_wide(sait: Sait, tiny_adaptive: Artifact) -> None:
    lines = sait("inspect", tiny_adaptive.path).out.splitlines()
    assert max(map(len, lines)) > 80
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("columns", ["nonsense", "0", "-3", ""])
def test_columns_that_cannot_be_are_passed_over(sait: Sait, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert max(map(len, sait("doctor").out.splitlines())) > 80


def on_a_terminal(*arguments: object, columns: int = 80) -> tuple[int, str]:
    """Runs a command whose output is a terminal; returns its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    environment = child_environment(TERM="xterm", COLUMNS=str(columns), NO_COLOR="1")
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        child = subprocess.Popen(
            [sys.executable, "-m", "sait_deploy", *map(str, arguments)], stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        written = b""
        try:
            while part := terminal.read(4096):
                written += part
        except OSError:  # how Linux says that nobody writes any more
            pass
        return child.wait(120), written.decode()


def seen(written: str) -> list[str]:
    """The lines that a terminal is left with, of what no bar draws."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    return [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")]


def test_a_terminal_gets_lines_that_fit(tiny_adaptive: Artifact) -> None:
    code, written = on_a_terminal("inspect", tiny_adaptive.path)
    assert code == 0, written
    for line in seen(written):
        assert len(line) <= 80 or len(line.split()) == 1 or "next: " in line, line


def test_a_terminal_breaks_errors_between_words_and_a_pipe_does_not(process: Sait) -> None:
    code, written = on_a_terminal("exprot", columns=40)
    assert code == 2
    lines = [line for line in seen(written) if line]
    assert len(lines) > 3 and max(map(len, lines)) <= 40
    assert set(" ".join(lines).split()) == set(process("exprot").err.split())
    assert len(process("exprot").err.splitlines()) == 2


def test_commands_are_never_broken() -> None:
    assert wrapped("    sait-deploy bench --point fast", 10) == "    sait-deploy bench --point fast"
    assert wrapped("one two three", 8) == "one two\nthree"
    assert wrapped("/a/path/that-is/longer-than-the-line", 10) == "/a/path/that-is/longer-than-the-line"


def test_a_terminal_is_left_with_no_line_for_every_step(tiny_adaptive: Artifact) -> None:
    code, written = on_a_terminal(*calls(tiny_adaptive.path)["evaluate"])
    assert code == 0, written
    assert "pass 1" in written
    kept = [line for line in written.split("\n") if re.match(r"(\x1b\[[0-9;?]*[A-Za-z]|\r)*- .*answering", line)]
    assert kept == []


def next_of(done: Outcome) -> list[str]:
    """What a command says to type next."""
    assert done.code == 0, done.err
    return shlex.split(done.following)


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("inspect", "inspect"),
        ("bench", "evaluate"),
        ("evaluate", "tune"),
        ("predict", "predict"),
        ("doctor", "export"),
        ("models", "export"),
    ],
)
def test_a_command_ends_with_the_next_one_to_type(
    sait: Sait, tiny_adaptive: Artifact, name: str, following: str
) -> None:
    call = calls(tiny_adaptive.path)[name]
    program, command, *arguments = next_of(sait(*call))
    assert (program, command) == ("sait-deploy", following)
    assert ("--images" in arguments) == ("--images" in call), "images that were named are named again"
    importlib.import_module(COMMANDS[command].module).command.make_context(command, arguments)


def test_json_is_for_programs_and_says_nothing_of_what_to_type(sait: Sait, tiny_adaptive: Artifact) -> None:
    for name, call in calls(tiny_adaptive.path).items():
        done = sait(*call, "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out), name
        assert not done.following


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    options = [option for one in importlib.import_module(COMMANDS[name].module).command.params for option in one.opts]
    assert "--json" in options


def test_no_gpu_is_one_line_whatever_the_runtimes(sait: Sait, tiny: TinyExport) -> None:
    from sait_deploy.engine.cuda import find_device

    if find_device() is not None:
        pytest.skip("there is a GPU")
    runtimes = "onnxruntime,torch-cuda,tensorrt-rtx,onnxruntime-cuda"
    done = sait("bench", tiny.half.path, *QUICK, "--no-accuracy", "--runtime", runtimes)
    table = done.out.partition("Runtimes without figures")[2]
    assert len(set(re.findall(r"torch-cuda|tensorrt-rtx|onnxruntime-cuda", table))) == 3


def test_the_demonstration_model_says_what_it_knows(sait: Sait, demo_workspace: Path) -> None:
    photograph = sorted((Path(demo.__file__).parent / "photographs").glob("*.[jp]*g"))[0]
    done = sait("predict", photograph, "--workspace", demo_workspace)
    assert done.code == 0, done.err
    warning = "warning: the demonstration model knows the digits 0 to 9 alone, and calls any other picture one of them"
    assert warning in done.err.splitlines()
    assert "warning" not in sait("predict", demo.IMAGES / "7", "--workspace", demo_workspace).err
