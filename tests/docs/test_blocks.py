"""Every block of the pages is what it says: commands parse, Python compiles and names what there is."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import click
import pytest

import sait_deploy
from sait_deploy.cli import COMMANDS
from tests.docs.blocks import PAGES, ROOT, blocks, commands

OTHERS = {"pip", "make", "python", "curl", "openssl", "serve", "tritonserver", "SAIT_DEPLOY_TESTS_NEED_GPU=1"}
"""What shell blocks call beside sait-deploy."""

CALLS = [(page, words) for page in PAGES for words in commands(page)]
OWN = [(page, words) for page, words in CALLS if words[0] == "sait-deploy"]
PYTHON = [(page, block) for page in PAGES for block in blocks(page, "python")]


def named(page: Path, words: list[str]) -> str:
    return f"{page.name}: {' '.join(words)[:90]}"


def test_pages_have_blocks_of_known_languages_alone() -> None:
    assert len(OWN) > 60 and len(PYTHON) > 8
    assert {words[0] for _, words in CALLS} <= {"sait-deploy", *OTHERS}


@pytest.mark.parametrize(("page", "words"), OWN, ids=[named(page, words) for page, words in OWN])
def test_a_command_parses(page: Path, words: list[str]) -> None:
    command: click.Command = importlib.import_module(COMMANDS[words[1]].module).command
    arguments = words[2 : words.index(">")] if ">" in words else words[2:]
    command.make_context(words[1], arguments)


def test_scripts_and_modules_that_are_called_are_there() -> None:
    for _, words in CALLS:
        if words[0] == "python":
            place = Path(*words[2].split(".")) if words[1] == "-m" else Path(words[1])
            module = importlib.util.find_spec(words[2]) if words[1] == "-m" else None
            assert module is not None or (ROOT / place).exists(), words
        if words[0] == "make":
            assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text(encoding="utf-8"), words


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page.name} {i}" for i, (page, _) in enumerate(PYTHON)])
def test_python_names_what_there_is(page: Path, block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sait_deploy"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) or alias.name == "demo" for alias in node.names), block
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sait_deploy":
            assert node.attr in sait_deploy.__all__, block


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "architecture.md"], ids=lambda page: page.name)
def test_blocks_are_fenced_and_say_their_language(page: Path) -> None:
    """An indented block has no language, and so nothing would look at it."""
    text = re.sub(r"^```\w*\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^\n    \S", text, flags=re.MULTILINE)
