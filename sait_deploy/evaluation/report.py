"""An evaluation as tables of text, in words, and as Markdown; the command line and files show the same cells."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sait_deploy.bench.cells import NOTHING, ordered_notes
from sait_deploy.evaluation.results import Comparison, Estimate, Evaluation, Kind, Row, Stratum
from sait_deploy.reports.escape import escape_markdown

_FINE: Final = 10_000
"""Images from which a hundredth of a point is worth showing."""
_MOST_GROUPS: Final = 12

_OFFERED: Final = (Kind.DENSITY, Kind.MASS)
"""What a user chooses between."""

_Groups: TypeAlias = dict[str, dict[str, Stratum]]
"""Strata of one grouping, by group and row."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text, not yet escaped for any format.

    Attributes:
        title: what stands above it.
        headings: of its columns; the first column holds names, the others figures.
        rows: as many cells each.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def fitted(self, columns: int) -> list[Grid]:
        """Returns the table, or where it is wider than that many columns, parts of it that each repeat the names.

        Headings are broken into lines before that, and a column that is too wide by itself stays whole.
        """
        if self._width() <= columns:
            return [self]
        headings = [_broken(heading, cells) for heading, *cells in zip(self.headings, *self.rows, strict=True)]
        parts, chosen = [], [0]
        for index in range(1, len(headings)):
            if len(chosen) > 1 and self._part(headings, [*chosen, index])._width() > columns:
                parts.append(self._part(headings, chosen))
                chosen = [0]
            chosen.append(index)
        parts.append(self._part(headings, chosen))
        return [part if n == 0 else Grid("", part.headings, part.rows) for n, part in enumerate(parts)]

    def _part(self, headings: Sequence[str], chosen: Sequence[int]) -> Grid:
        rows = tuple(tuple(row[index] for index in chosen) for row in self.rows)
        return Grid(self.title, tuple(headings[index] for index in chosen), rows)

    def _width(self) -> int:
        """Returns how many columns the table needs, with two between its own."""
        columns = zip(self.headings, *self.rows, strict=True)
        widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
        return sum(widths) + 2 * (len(widths) - 1)


def figures(evaluation: Evaluation) -> Grid:
    """Returns what every row costs and how good it is.

    With labels that is top-1 with its change from dense, top-5, churn (how many answers are others than dense's), and
    right answers lost and gained; without labels how many answers agree with dense's; of a headless model the cosine
    similarity of its features to dense's.
    """
    columns = {"": [row.label for row in evaluation.rows], **_costs(evaluation.rows), **_quality(evaluation)}
    columns["images / s"] = [_whole(row.images_per_second) for row in evaluation.rows]
    title = f"{evaluation.model} · {evaluation.runtime} · {evaluation.images:,} images ({evaluation.image_source})"
    return Grid(title, tuple(columns), tuple(zip(*columns.values(), strict=True)))


def comparison_lines(evaluation: Evaluation) -> list[str]:
    """Returns each comparison in words: "mass 0.9 − density 0.43 at equal MACs: +0.8 points [+0.2, +1.4]"."""
    labels = {row.id: row.label for row in evaluation.rows}
    unit = "points" if evaluation.labelled else "points of agreement"
    return [_compared(one, labels, unit, _decimals(evaluation)) for one in evaluation.comparisons]


def strata_grids(evaluation: Evaluation) -> list[Grid]:
    """Returns a table for each grouping of the images: points gained over dense, by group and row, with intervals.

    Rows are the densities and masses that were asked for: those and their rivals would make no table to read.
    """
    return [_strata(evaluation, name, own, change_text) for name, own in _groupings(evaluation).items()]


def strata_briefs(evaluation: Evaluation) -> list[Grid]:
    """Returns the same without intervals, and of many groups those that lose most.

    A change whose interval leaves out zero is marked ``*``, and the title says so.
    """
    grids = []
    for name, own in _groupings(evaluation).items():
        worst = _worst(own)
        grid = _strata(evaluation, name, {group: own[group] for group in worst}, _brief)
        fewer = "" if len(worst) == len(own) else f"; the {len(worst)} of {len(own)} that lose most"
        grids.append(Grid(f"{grid.title}{fewer} (* zero is outside the 95 % interval)", grid.headings, grid.rows))
    return grids


def to_markdown(evaluation: Evaluation) -> str:
    """Returns the whole evaluation as GitHub Markdown."""
    grid = figures(evaluation)
    what = "accuracy" if evaluation.labelled else "agreement with dense"
    lines = [f"## {escape_markdown(evaluation.model)}: {what} over operating points", "", *_about(evaluation), ""]
    lines += [*_markdown_table(grid), "", _explained(evaluation)]
    lines += _section("At equal cost", [escape_markdown(line) for line in comparison_lines(evaluation)])
    for strata in strata_grids(evaluation):
        lines += ["", f"### {escape_markdown(strata.title)}", "", *_markdown_table(strata)]
    notes = [f"{'**Warning:** ' if warns else ''}{escape_markdown(n)}" for warns, n in ordered_notes(evaluation.notes)]
    lines += _section("Notes", notes)
    lines += _section("Environment", _listed(evaluation.environment))
    lines += _section("Options", _listed(evaluation.options))
    return "\n".join(lines) + "\n"


def _kept_text(row: Row) -> str:
    """Writes mean, p95 and the most kept patch tokens, or one number where every image keeps the same."""
    if row.kept_mean == row.kept_p95 == row.kept_max:
        return str(row.kept_max)
    return f"{row.kept_mean:.1f} / {row.kept_p95:.0f} / {row.kept_max}"


def is_match(row: Row) -> bool:
    """Returns whether a row is a density that nobody named, there because it costs as much as another row."""
    return row.kind is Kind.DENSITY and row.point is not None and row.id == f"kept{row.point.max_keep}"


def signed(value: float, decimals: int) -> str:
    """Writes a difference with its sign, which is ± where it rounds to zero."""
    rounded = round(value, decimals)
    sign = "±" if rounded == 0 else "+" if rounded > 0 else "−"
    return f"{sign}{abs(rounded):.{decimals}f}"


def change_text(change: Estimate, decimals: int) -> str:
    """Writes a difference with its interval: "−0.8 [−1.4, −0.2]"."""
    low, value, high = (signed(end, decimals) for end in (change.low, change.value, change.high))
    return f"{value} [{low}, {high}]"


def _decimals(evaluation: Evaluation) -> int:
    return 2 if evaluation.images >= _FINE else 1


def _costs(rows: Sequence[Row]) -> dict[str, list[str]]:
    return {
        "MAC ratio ×": [f"{row.mac_ratio:.2f}" for row in rows],
        "kept mean / p95 / max": [_kept_text(row) for row in rows],
    }


def _quality(evaluation: Evaluation) -> dict[str, list[str]]:
    """Returns the columns that there are figures for."""
    rows, decimals = evaluation.rows, _decimals(evaluation)
    others = [None if row.agreement_percent is None else 100.0 - row.agreement_percent for row in rows]
    cosines = {
        "cosine mean": [f"{row.cosine_mean:.4f}" for row in rows],
        "cosine p5": [f"{row.cosine_p5:.4f}" for row in rows],
    }
    if all(row.agreement_percent is None for row in rows):
        return cosines
    if not evaluation.labelled:
        return {"agrees %": [_percent(row.agreement_percent, decimals) for row in rows], **cosines}
    columns = {
        "top-1 %": [_percent(row.top1_percent, decimals) for row in rows],
        "change [95 %]": [_maybe_change(row.top1_change, decimals) for row in rows],
        "top-5 %": [_percent(row.top5_percent, decimals) for row in rows],
        "churn %": [_percent(other, decimals) for other in others],
        "lost / gained %": [_lost_and_gained(row, decimals) for row in rows],
    }
    if all(row.top5_percent is None for row in rows):
        del columns["top-5 %"]
    return columns


def _percent(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else f"{value:.{decimals}f}"


def _maybe_change(change: Estimate | None, decimals: int) -> str:
    return NOTHING if change is None else change_text(change, decimals)


def _lost_and_gained(row: Row, decimals: int) -> str:
    if row.lost_percent is None or row.gained_percent is None:
        return NOTHING
    return f"{row.lost_percent:.{decimals}f} / {row.gained_percent:.{decimals}f}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _compared(one: Comparison, labels: Mapping[str, str], unit: str, decimals: int) -> str:
    low, value, high = (
        signed(end, decimals) for end in (one.difference.low, one.difference.value, one.difference.high)
    )
    names = f"{labels.get(one.first, one.first)} − {labels.get(one.second, one.second)}"
    return f"{names} at {one.basis}: {value} {unit} [{low}, {high}]"


def _groupings(evaluation: Evaluation) -> dict[str, _Groups]:
    found: dict[str, _Groups] = {}
    offered = {row.id for row in evaluation.rows if row.kind in _OFFERED and not is_match(row)}
    for stratum in (stratum for stratum in evaluation.strata if stratum.row in offered):
        found.setdefault(stratum.grouping, {}).setdefault(stratum.name, {})[stratum.row] = stratum
    return found


def _worst(groups: _Groups) -> list[str]:
    """Returns the names of at most twelve groups, those whose rows lose most, in the report's order."""
    loss = {name: sum(stratum.top1_change.value for stratum in rows.values()) for name, rows in groups.items()}
    worst = set(sorted(loss, key=loss.__getitem__)[:_MOST_GROUPS])
    return [name for name in groups if name in worst]


def _strata(evaluation: Evaluation, grouping: str, groups: _Groups, write: Callable[[Estimate, int], str]) -> Grid:
    """Returns one grouping; of rows whose images keep numbers of their own, what they keep in each group as well."""
    measured = {name for rows in groups.values() for name in rows}
    asked = [row for row in evaluation.rows if row.id in measured]
    headings = ["", "images", "dense top-1 %" if evaluation.labelled else "dense agrees %"]
    for row in asked:
        headings += [row.label, f"keeps at {row.label}"] if row.kind is Kind.MASS else [row.label]
    decimals = _decimals(evaluation)
    lines = [_group(name, found, asked, lambda change: write(change, decimals)) for name, found in groups.items()]
    what = "top-1" if evaluation.labelled else "agreement"
    return Grid(f"Points of {what} gained over dense, by {grouping}", tuple(headings), tuple(lines))


def _group(
    name: str, found: Mapping[str, Stratum], asked: Sequence[Row], write: Callable[[Estimate], str]
) -> tuple[str, ...]:
    first = next(iter(found.values()))
    cells = [name, str(first.images), f"{first.dense_top1_percent:.1f}"]
    for row in asked:
        stratum = found.get(row.id)
        cells.append(NOTHING if stratum is None else write(stratum.top1_change))
        if row.kind is Kind.MASS:
            cells.append(NOTHING if stratum is None else f"{stratum.kept_mean:.1f}")
    return tuple(cells)


def _brief(change: Estimate, decimals: int) -> str:
    certain = change.low > 0 or change.high < 0
    return signed(change.value, decimals) + ("*" if certain else "")


def _broken(heading: str, cells: Sequence[str]) -> str:
    """Returns a heading in lines no longer than its widest cell, or than its longest word."""
    width = max(map(len, [*cells, *heading.split()]), default=1)
    return textwrap.fill(heading, max(width, 1), break_long_words=False, break_on_hyphens=False)


def _about(evaluation: Evaluation) -> list[str]:
    trained = "trained dense and sparse" if evaluation.trained_sparse else "never trained sparse"
    source = escape_markdown(evaluation.image_source)
    labels = "labelled" if evaluation.labelled else "unlabelled"
    return [
        f"{evaluation.images:,} {labels} images ({source}) through {escape_markdown(evaluation.runtime)}, "
        f"{escape_markdown(evaluation.created)}.",
        f"Weights {escape_markdown(evaluation.weights_sha256[:12])}…, {trained}; tokens are dropped in block "
        f"{evaluation.prune_at} by score {escape_markdown(evaluation.score)}.",
    ]


def _explained(evaluation: Evaluation) -> str:
    cost = "MAC ratio is dense's multiply-accumulates over the row's; kept counts patch tokens of an image."
    if not evaluation.labelled:
        return f"{cost} Without labels, rows are compared with dense's answers."
    return (
        f"{cost} Change is in points of top-1 with its 95 % interval, paired by image. Churn is the share of images "
        "whose answer is another than dense's; lost and gained are those that only dense, or only the row, has right."
    )


def _markdown_table(grid: Grid) -> list[str]:
    rule = ["---", *["---:"] * (len(grid.headings) - 1)]
    cells = [[escape_markdown(cell) for cell in row] for row in (grid.headings, *grid.rows)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:])]


def _section(heading: str, items: Sequence[str]) -> list[str]:
    return ["", f"### {heading}", "", *(f"- {item}" for item in items)] if items else []


def _listed(values: Mapping[str, str]) -> list[str]:
    return [f"{escape_markdown(name)}: {escape_markdown(value)}" for name, value in values.items()]
