"""Tables in a terminal: figures whole at every width, words broken first, names repeated in every part of a table."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from sait_deploy.reports.table import Cell, Emphasis, Table, figures, words
from sait_deploy.reports.text import render
from tests.reports.sample import FIGURES, HOSTILE, make_table


def shown(table: Table, columns: int) -> str:
    out = io.StringIO()
    Console(file=out, width=columns, color_system=None).print(*render(table, columns))
    return out.getvalue()


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 200])
def test_no_figure_is_cut_or_broken_at_any_width(columns: int) -> None:
    text = shown(make_table(), columns)
    assert max(map(len, text.splitlines())) <= columns
    for figure in FIGURES:
        assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text), figure


def test_a_wide_terminal_has_a_line_for_each_row_and_a_rule_above_each_group() -> None:
    lines = [line.rstrip() for line in shown(make_table(), 200).splitlines()]
    assert lines[0] == "All figures"
    assert [bool(re.fullmatch("─+", line)) for line in lines[2:]] == [True, False, False, False] * 2
    found = [re.match(r"\s*(\d*)\s+(dense|mass 0.95, block 4|density 0.5)\s", line) for line in lines]
    wanted = [("1", "dense"), ("", "mass 0.95, block 4"), ("", "density 0.5")]
    assert [match.groups() for match in found if match] == [*wanted, ("8", "dense"), *wanted[1:]]


def test_a_narrow_terminal_has_parts_that_repeat_the_names_of_the_rows() -> None:
    parts = render(make_table(), 34)
    assert len(parts) > 1
    assert [str(part.title) for part in parts] == ["All figures"] + ["None"] * (len(parts) - 1)
    assert shown(make_table(), 34).count("density") == 2 * len(parts)


def test_words_break_and_lose_nothing() -> None:
    story = "a long story " * 12
    text = shown(Table.of("", [words(), words()], [["attention", story]]), 50)
    assert text.split() == ["attention", *story.split()]


def test_cells_are_text_and_neither_markup_nor_control_codes() -> None:
    text = shown(make_table(HOSTILE), 200)
    assert "[bold]x[/bold]" in text
    assert "\x1b" not in text
    assert "\x00" not in text


def test_emphasis_is_a_style() -> None:
    table = Table.of("", [figures("x")], [[Cell("1", Emphasis.GOOD)], [Cell("2", Emphasis.BAD)], ["3"]])
    out = io.StringIO()
    Console(file=out, width=40, force_terminal=True, color_system="standard").print(*render(table, 40))
    assert [bool(re.search(rf"\x1b\[{code}m *{n}", out.getvalue())) for code, n in ((32, 1), (31, 2))] == [True, True]
