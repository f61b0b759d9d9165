"""What all commands have in common: help, exit codes, one line for an error, and output that ends early."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.cli import COMMANDS
from sait_deploy.errors import BuilderUnavailable, MissingDependency, SaitError
from tests.cli.calls import ROOT, Sait, child_environment

CODES_OF_OTHERS = {0, 1, 70, 130, 143}
"""Success, Python's own, an unexpected error, Ctrl-C and SIGTERM."""


def kinds(base: type[SaitError] = SaitError) -> list[type[SaitError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *kinds(child))]


def listed(text: str) -> list[str]:
    return re.findall(r"^  ([a-z-]+)  ", text.partition("Commands:")[2], flags=re.MULTILINE)


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_help_lists_all_commands_in_the_order_they_are_used_in(process: Sait) -> None:
    done = process("--help")
    assert (done.code, done.err) == (0, "")
    assert listed(done.out) == list(COMMANDS)


def test_no_arguments_show_the_commands(sait: Sait) -> None:
    done = sait()
    assert done.code in (0, 2)  # click 8.1 and 8.2
    assert listed(done.out + done.err) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(sait: Sait, command: str) -> None:
    done = sait(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: sait-deploy {command} ")
    assert "--debug" in done.out


def test_an_unknown_command_is_told_the_known_ones(process: Sait) -> None:
    done = process("exprot")
    assert (done.code, done.out) == (2, "")
    first, hint = done.err.splitlines()
    assert first == f"error: no such command 'exprot'. Did you mean export? Commands are: {', '.join(COMMANDS)}"
    assert hint == "hint: see sait-deploy --help"


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["export", "--nonsense"], ["export", "more"], ["predict"], ["bench", "--batch"]]
)
def test_wrong_usage_exits_2_and_names_the_help(sait: Sait, arguments: list[str]) -> None:
    done = sait(*arguments)
    assert (done.code, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert error.startswith("error: ")
    command = "" if arguments[0].startswith("-") else f" {arguments[0]}"
    assert hint == f"hint: see sait-deploy{command} --help"


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(process: Sait, flag: str) -> None:
    done = process(flag)
    assert (done.code, done.out, done.err) == (0, f"sait-deploy, version {sait_deploy.__version__}\n", "")


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    """A kind that states none is a case of its base, as an answer that is not finite is of the model's errors."""
    by_code: dict[int, set[type[SaitError]]] = {}
    for kind in kinds():
        if "exit_code" in vars(kind):
            by_code.setdefault(kind.exit_code, set()).add(kind)
    shared = [found for found in by_code.values() if len(found) > 1]
    assert shared == [{MissingDependency, BuilderUnavailable}]
    assert not CODES_OF_OTHERS & by_code.keys()


def test_the_docs_have_one_table_of_exit_codes() -> None:
    _, _, table = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8").partition("\n## Exit codes\n")
    rows = re.findall(r"^\| (\d+) \| \w", table.partition("\n## ")[0], flags=re.MULTILINE)
    codes = {kind.exit_code for kind in kinds() if "exit_code" in vars(kind)}
    assert list(map(int, rows)) == sorted(codes | CODES_OF_OTHERS - {0, 1})


def test_an_error_is_one_line_and_a_hint_on_stderr(process: Sait) -> None:
    done = process("export", "--density", "2")
    assert (done.code, done.out) == (2, "")
    assert lines(done.err) == [
        "error: density 2 is outside (0, 1]",
        "hint: give the share of tokens to keep, such as 0.6",
    ]


def test_debug_shows_the_traceback_and_keeps_line_and_code(sait: Sait) -> None:
    plain, debug = sait("export", "--density", "2"), sait("export", "--density", "2", "--debug")
    assert debug.code == plain.code == 2
    assert "Traceback (most recent call last)" in debug.err
    assert "tokens.py" in debug.err
    assert debug.err.endswith(plain.err)
    assert "Traceback" not in plain.err


def broken(_: object) -> None:
    raise ZeroDivisionError("nobody thought of this\nsecond line")


def test_an_unexpected_error_is_one_line_and_exits_70(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sait_deploy.cli.doctor.examine", broken)
    done = sait("doctor")
    assert (done.code, done.out) == (70, "")
    assert lines(done.err) == [
        "error: unexpected ZeroDivisionError: nobody thought of this",
        "hint: --debug shows the traceback; please report it",
    ]
    debug = sait("doctor", "--debug")
    assert debug.code == 70
    assert "in broken" in debug.err


def test_a_missing_package_is_named_with_the_extra_that_has_it(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "sait_deploy.models.creation", raising=False)
    done = sait("models")
    assert (done.code, done.out) == (3, "")
    assert lines(done.err) == [
        "error: this command needs timm, which is not installed",
        "hint: pip install 'sait-deploy[export,cpu]'",
    ]


def test_a_missing_module_of_no_extra_is_unexpected(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> None:
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setattr("sait_deploy.cli.doctor.examine", absent)
    assert sait("doctor").code == 70


def test_output_that_ends_early_leaves_no_traceback(tmp_path: Path) -> None:
    """As in ``sait-deploy --help | head -0``."""
    command = f"{sys.executable} -m sait_deploy --help | true"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sait_deploy", "--version"],
            cwd=tmp_path,
            env=child_environment(PYTHONUNBUFFERED="1"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 9
    assert lines(done.stderr)[0] == "error: no space left to write to"


def test_a_terminal_that_knows_only_ascii_gets_its_table(process: Sait, demo_workspace: Path) -> None:
    done = process("inspect", demo_workspace / "sait_demo_digits-dense", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.err
    assert "96 ? 96" in done.out
