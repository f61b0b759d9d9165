"""Tables and documents as Markdown: whole, and safe whatever their text is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.reports.markdown import table_lines, to_markdown
from sait_deploy.reports.table import Cell, Emphasis, Table, figures, words
from tests.reports.sample import HOSTILE, make_document, make_table


def cells_of(lines: list[str]) -> list[list[str]]:
    """Reads the lines of a table back, cells unescaped."""
    parts = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in parts]


def test_a_table_has_every_cell_of_every_row() -> None:
    table = make_table()
    head, rule, *rows = cells_of(table_lines(table))
    assert head == [column.head for column in table.columns]
    assert rule == ["---:", "---", "---:", "---:", "---:"]
    assert rows == [[cell.text for cell in row.cells] for row in table.rows]


def test_a_strong_cell_is_bold() -> None:
    table = Table.of("", [words("a"), figures("b")], [[Cell("x_y", Emphasis.STRONG), Cell("", Emphasis.STRONG)]])
    assert table_lines(table)[-1] == "| **x_y** |  |"


def test_a_document_says_all_there_is_to_know_and_warnings_before_other_notes() -> None:
    text = to_markdown(make_document())
    assert text.index("**Warning:** careful: deit") < text.index("worth knowing")
    wanted = ["## deit", "about deit", "### deit", "#### All figures", "- a table's own note", "- line deit"]
    for line in [*wanted, "- deit: deit"]:
        assert line in text.splitlines()
    assert "svg" not in text
    assert "None" not in text


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc", "Zl", "Zp", "Cf", "Co", "Cn"]), min_size=1))
def test_any_text_survives_and_the_table_stays_whole(label: str) -> None:
    rows = cells_of(table_lines(make_table(label)))
    assert rows[3][1] == label
    assert {len(row) for row in rows} == {5}


@pytest.mark.parametrize("label", [HOSTILE, "![x](y)", "a | b", "`code`", "# h", "1. one", "a\nb", "- item"])
def test_no_text_is_markup(label: str) -> None:
    text = to_markdown(make_document(label))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 8
    assert not re.search(r"(?<!\\)<script|(?<!\\)!?(?<!\\)\[x|a \| b|(?<!\\)`|\| # h|- 1\. one|^b", text, re.MULTILINE)
