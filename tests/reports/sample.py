"""A table and a document with everything that writers know."""

from __future__ import annotations

import dataclasses
from typing import Final

from sait_deploy.reports.document import Document, Listing, Plot, Section
from sait_deploy.reports.table import Cell, Emphasis, Fold, Note, Row, Severity, Table, figures, words

FIGURES: Final = ("98.4", "121", "153", "202", "1.47", "[1.43, 1.52]")
"""What no width may break."""
HOSTILE: Final = "<script>alert('x')</script> & \"q\" ]]> \x00 </style> [bold]x[/bold] | `a` \x1b[31m"


def make_table(label: str = "mass 0.95, block 4") -> Table:
    """Makes a table of two groups with three rows each, the first their reference."""
    rows = []
    for batch in ("1", "8"):
        for series, name in enumerate(("dense", label, "density 0.5")):
            speedup = Cell("–") if series == 0 else Cell("1.47 [1.43, 1.52]", Emphasis.GOOD)
            cells = [batch, Cell(name, series=series), "98.4 / 121 / 153", "202", speedup]
            rows.append(Row.of(cells, begins_group=series == 0, reference=series == 0))
    columns = (
        dataclasses.replace(figures("batch"), once=True),
        words("variant"),
        figures("kept mean / p95 / max", fold=Fold.PHRASES),
        figures("p50", "ms"),
        figures("speed-up", "× [95 %]", fold=Fold.PHRASES),
    )
    return Table.of("All figures", columns, rows, [Note("a table's own note")])


def make_document(text: str = "deit") -> Document:
    """Makes a document whose every free text is the given one or contains it."""
    plot = Plot(f"Speed {text}", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>', text)
    notes = (Note("worth knowing"), Note(f"careful: {text}", Severity.WARNING))
    section = Section(text, (plot,), (make_table(text),), (f"line {text}",))
    return Document(text, (f"about {text}",), notes, (section,), (Listing(text, {text: text}), Listing("None", {})))
