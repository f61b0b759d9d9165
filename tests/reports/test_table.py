"""Tables themselves: what they are made of, and what they refuse."""

from __future__ import annotations

import pytest

from sait_deploy.reports.table import Note, Severity, Table, figures, warnings_first, words


def test_a_row_needs_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Table.of("", [words("a"), figures("b")], [["x", "1"], ["y"]])


def test_a_table_without_headings_has_no_head() -> None:
    assert not Table.of("", [words(), words()], []).has_head
    assert Table.of("", [words(), figures("p50", "ms")], []).columns[1].head == "p50 ms"


def test_warnings_come_first_and_the_others_keep_their_order() -> None:
    notes = [Note("a"), Note("b", Severity.WARNING), Note("c"), Note("d", Severity.WARNING)]
    assert [note.text for note in warnings_first(notes)] == ["b", "d", "a", "c"]
