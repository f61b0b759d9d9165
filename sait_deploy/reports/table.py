"""A table of a report, before it is written in any format: columns, rows of cells, and notes.

Build one, and hand it to a writer::

    table = Table.of(
        "Named points",
        [words("point"), figures("mass"), figures("p50", "ms")],
        [
            ["default", "0.95", "4.61"],
            [Cell("fast", Emphasis.STRONG), "0.8", "3.20"],
        ],
        notes=[Note("the machine was busy", Severity.WARNING)],
    )
    cli._render.show_tables(table)      # a command's output: the table on stdout, warnings on stderr
    reports.text.render(table, 80)      # what rich prints in 80 columns
    reports.markdown.table_lines(table) # GitHub Markdown

Whole reports, with headings, plots and listings around their tables, are ``sait_deploy.reports.document.Document``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a note matters."""

    INFO = "info"
    """Worth knowing."""

    WARNING = "warning"
    """To be known before the figures are trusted."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence beside the figures."""

    text: str
    severity: Severity = Severity.INFO


class Align(StrEnum):
    """Where the cells of a column stand."""

    LEFT = "left"
    RIGHT = "right"


class Fold(StrEnum):
    """How the cells of a column may break into lines where a table is too wide."""

    NEVER = "never"
    WORDS = "words"
    """Between words."""

    PHRASES = "phrases"
    """At " / " and before a bracket, so that a figure stays whole: "1.47" above "[1.43, 1.52]"."""


class Emphasis(StrEnum):
    """How a cell stands out."""

    NONE = "none"
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        heading: its name; a table whose columns have none is written without a head.
        unit: of its figures; stands behind the heading.
        align: where its cells stand.
        fold: how its cells may break.
        once: whether only the first row of a group shows it, as the others have the same.
    """

    heading: str
    unit: str = ""
    align: Align = Align.RIGHT
    fold: Fold = Fold.NEVER
    once: bool = False

    @property
    def head(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} {self.unit}".strip()


def words(heading: str = "") -> Column:
    """Returns a column of words: aligned to the left, breaking between words."""
    return Column(heading, align=Align.LEFT, fold=Fold.WORDS)


def figures(heading: str, unit: str = "", *, fold: Fold = Fold.NEVER) -> Column:
    """Returns a column of figures: aligned to the right, whole unless ``fold`` says how they may break."""
    return Column(heading, unit, fold=fold)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says, not escaped for any format.
        emphasis: how it stands out.
        series: number of the series in the report's plots whose colour marks the cell, from 0; None for no mark.
    """

    text: str
    emphasis: Emphasis = Emphasis.NONE
    series: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row.

    Attributes:
        cells: one for each column.
        begins_group: whether a line sets it apart from the row above.
        reference: whether the other rows are compared with it.
    """

    cells: tuple[Cell, ...]
    begins_group: bool = False
    reference: bool = False

    @classmethod
    def of(cls, cells: Iterable[str | Cell], *, begins_group: bool = False, reference: bool = False) -> Row:
        """Returns a row of cells, or of texts without emphasis."""
        made = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
        return cls(made, begins_group, reference)


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: what stands above it; may be empty.
        columns: from left to right.
        rows: from top to bottom.
        notes: what stands below it.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row.cells) != len(self.columns):
                raise ValueError(f"row {index} has {len(row.cells)} cells for {len(self.columns)} columns")

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[Column],
        rows: Iterable[Row | Iterable[str | Cell]],
        notes: Sequence[Note] = (),
    ) -> Table:
        """Returns a table of rows, or of their cells or texts."""
        made = tuple(row if isinstance(row, Row) else Row.of(row) for row in rows)
        return cls(title, tuple(columns), made, tuple(notes))

    @property
    def has_head(self) -> bool:
        """Whether any column has a heading."""
        return any(column.head for column in self.columns)

    @property
    def name_column(self) -> int:
        """Which column names the rows: the first of words, or the first one."""
        return next((index for index, column in enumerate(self.columns) if column.fold is Fold.WORDS), 0)


def warnings_first(notes: Iterable[Note]) -> list[Note]:
    """Returns notes in the order they are shown."""
    return sorted(notes, key=lambda note: note.severity is not Severity.WARNING)
