"""The tutorial runs as it stands, and prints what it shows, but for figures and what follows from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks are of the extra docs")
pytest.importorskip("nbclient", reason="notebooks are of the extra docs")

from tests.docs import tutorial  # noqa: E402

ALIKE = 0.5
"""Share of the lines that have to be there: which point is found, and what is slow, differs from machine to machine."""


def shape(text: str) -> list[str]:
    """Lines without figures, rules of tables, widths of columns, and warnings of a busy machine."""
    lines = (re.sub(r"[\d.,+−–]+", "0", line) for line in text.splitlines() if not line.startswith("warning: "))
    return [" ".join(re.sub("[─━│┃┏┓└┘├┤]+", " ", line).split()) for line in lines]


def test_the_notebook_is_the_page() -> None:
    notebook: Any = nbformat.read(tutorial.NOTEBOOK, 4)
    nbformat.validate(notebook)
    text = tutorial.PAGE.read_text(encoding="utf-8")
    assert tutorial.page(notebook) == text, "run: python -m tests.docs.tutorial"
    assert [cell["source"] for cell in notebook["cells"]] == [cell["source"] for cell in tutorial.cells(text)]


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    shown: Any = nbformat.read(tutorial.NOTEBOOK, 4)
    ran = tutorial.run(tmp_path)
    for was, now in zip(shown["cells"], ran["cells"], strict=True):
        wanted, found = (set(shape(tutorial.printed(cell))) for cell in (was, now))
        assert len(wanted & found) >= ALIKE * len(wanted), f"{now['source']}\n{tutorial.printed(now)}"
    assert (tmp_path / "artifacts" / "test_vit-adaptive" / "points" / "tuned.json").is_file()
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
