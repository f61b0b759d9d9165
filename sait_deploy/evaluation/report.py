"""An evaluation as tables, sentences and a document."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_report import EXPLAINED, needed_plot, oracle_tables
from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.results import (
    AGREEMENT,
    TOP1,
    Comparison,
    Evaluation,
    EvaluationRow,
    Kind,
    Recall,
    Retrieval,
    Stratum,
)
from sait_deploy.reports import markdown
from sait_deploy.reports.document import Document, Listing, Plot, Section
from sait_deploy.reports.drawing import NO_PLOTS, below_each_other, has_matplotlib
from sait_deploy.reports.table import Column, Fold, Row, Table, figures, words
from sait_deploy.reports.wording import NOTHING, kept_tokens, signed

_FINE: Final = 10_000
"""Images from which a hundredth of a point is worth showing."""

_MOST_GROUPS: Final = 12
"""Of one grouping in a terminal."""

_OFFERED: Final = (Kind.DENSITY, Kind.MASS)
"""What a user chooses between."""

_TITLES: Final = {TOP1: "accuracy", AGREEMENT: "agreement with dense"}
"""What a whole evaluation is of, by its measure; others are of retrieval."""

_RETRIEVAL: Final = (
    "Recall is the share of queries whose nearest image by dense is among the row's k nearest; class recall, of those "
    "with an image of their class among them; k-NN accuracy, of those whose class most of the k nearest have. Changes "
    "from dense have 95 % intervals, paired by image."
)

_Groups: TypeAlias = dict[str, dict[str, Stratum]]
"""Strata of one grouping, by group and row."""


def figures_table(evaluation: Evaluation) -> Table:
    """Returns what every row costs and how good it is.

    With labels that is top-1 with its change from dense, top-5, churn (how many answers differ from dense's), and right
    answers lost and gained; without labels how many answers agree with dense's. Of a model without classes the cosine
    similarity of its embeddings to dense's, and how right retrieval by them is.
    """
    rows = evaluation.rows
    columns: dict[Column, list[str]] = {
        words(): [row.label for row in rows],
        figures("MAC ratio", "×"): [f"{row.mac_ratio:.2f}" for row in rows],
        figures("kept mean / p95 / max", fold=Fold.PHRASES): [
            kept_tokens(row.kept_mean, row.kept_p95, row.kept_max) for row in rows
        ],
        **_quality(evaluation),
        figures("images / s"): [_whole(row.images_per_second) for row in rows],
    }
    title = f"{evaluation.model} · {evaluation.answered_by} · {evaluation.images:,} images ({evaluation.image_source})"
    cells = zip(rows, zip(*columns.values(), strict=True), strict=True)
    return Table.of(title, list(columns), [Row.of(own, reference=row.kind is Kind.DENSE) for row, own in cells])


def strata_tables(evaluation: Evaluation) -> list[Table]:
    """Returns a table for each grouping of the images: points gained over dense, by group and row, with intervals.

    Rows are the densities and masses that were asked for; their rivals are left out.
    """
    return [_strata(evaluation, name, own, change_text) for name, own in _groupings(evaluation).items()]


def brief_strata_tables(evaluation: Evaluation) -> list[Table]:
    """Returns the same without intervals, and of more than twelve groups those that lose most.

    A change whose interval leaves out zero is marked ``*``, and the title says so.
    """
    tables = []
    for name, own in _groupings(evaluation).items():
        worst = _worst(own)
        fewer = "" if len(worst) == len(own) else f"; the {len(worst)} of {len(own)} that lose most"
        marked = f"{fewer} (* zero is outside the 95 % interval)"
        tables.append(_strata(evaluation, name, {group: own[group] for group in worst}, _marked, marked))
    return tables


def comparison_lines(evaluation: Evaluation) -> list[str]:
    """Returns each comparison in words: "mass 0.9 − density 0.43 at equal MACs: +0.8 points [+0.2, +1.4]"."""
    labels = {row.id: row.label for row in evaluation.rows}
    unit = "points" if evaluation.measure == TOP1 else f"points of {evaluation.measure}"
    return [_compared(one, labels, unit, _decimals(evaluation)) for one in evaluation.comparisons]


def document(evaluation: Evaluation, plots: tuple[Plot, ...] = ()) -> Document:
    """Returns the whole evaluation, with these plots above its figures."""
    whole, what = figures_table(evaluation), _TITLES.get(evaluation.measure, "retrieval")
    sections = [Section(plots=plots, tables=(Table(title="", columns=whole.columns, rows=whole.rows),))]
    if evaluation.oracle is not None:
        drawn = (Plot("", needed_plot(evaluation)),) if plots and evaluation.oracle.masses else ()
        sections.append(Section("What images need", drawn, tuple(oracle_tables(evaluation)), (EXPLAINED,)))
    lines = tuple(comparison_lines(evaluation))
    if lines:
        sections.append(Section("At equal cost", lines=lines))
    return Document(
        title=f"{evaluation.model}: {what} over operating points",
        about=(*_about(evaluation), _explained(evaluation)),
        notes=evaluation.notes,
        sections=(*sections, *(Section(tables=(table,)) for table in strata_tables(evaluation))),
        listings=tuple(
            Listing(heading, facts)
            for heading, facts in (("Environment", evaluation.environment), ("Options", evaluation.options))
            if facts
        ),
    )


def to_markdown(evaluation: Evaluation) -> str:
    """Returns the whole evaluation as GitHub Markdown."""
    return markdown.to_markdown(document(evaluation))


def to_html(evaluation: Evaluation) -> str:
    """Returns the whole evaluation as a page; without matplotlib it says that its plot is missing."""
    from sait_deploy.reports import html

    if has_matplotlib():
        return html.to_html(document(evaluation, (Plot("Over cost", accuracy_plot(evaluation)),)))
    made = document(evaluation)
    return html.to_html(dataclasses.replace(made, notes=(*made.notes, NO_PLOTS)))


def to_svg(evaluation: Evaluation) -> str:
    """Draws accuracy over cost, and below it what images need where that was asked for."""
    plots = [accuracy_plot(evaluation)]
    if evaluation.oracle is not None and evaluation.oracle.masses:
        plots.append(needed_plot(evaluation))
    return plots[0] if len(plots) == 1 else below_each_other(plots)


def change_text(change: Estimate, decimals: int) -> str:
    """Writes a difference with its interval: "−0.8 [−1.4, −0.2]"."""
    low, value, high = (signed(end, decimals) for end in (change.low, change.value, change.high))
    return f"{value} [{low}, {high}]"


def _marked(change: Estimate, decimals: int) -> str:
    certain = change.low > 0 or change.high < 0
    return signed(change.value, decimals) + ("*" if certain else "")


def _decimals(evaluation: Evaluation) -> int:
    return 2 if evaluation.images >= _FINE else 1


def _quality(evaluation: Evaluation) -> dict[Column, list[str]]:
    """Returns the columns that there are figures for."""
    rows, decimals = evaluation.rows, _decimals(evaluation)

    def percents(values: Sequence[float | None]) -> list[str]:
        return [NOTHING if value is None else f"{value:.{decimals}f}" for value in values]

    cosines = {
        figures("cosine mean"): [f"{row.cosine_mean:.4f}" for row in rows],
        figures("cosine p5"): [f"{row.cosine_p5:.4f}" for row in rows],
    }
    agreements = [row.agreement_percent for row in rows]
    found = cosines | _retrieval(rows, decimals)
    if all(agreement is None for agreement in agreements):
        return found
    if not evaluation.labelled:
        return {figures("agrees", "%"): percents(agreements), **found}
    changes = [None if row.top1_change is None else change_text(row.top1_change, decimals) for row in rows]
    columns = {
        figures("top-1", "%"): percents([row.top1_percent for row in rows]),
        figures("change [95 %]", fold=Fold.PHRASES): [change or NOTHING for change in changes],
        figures("top-5", "%"): percents([row.top5_percent for row in rows]),
        figures("churn", "%"): percents([None if one is None else 100.0 - one for one in agreements]),
        figures("lost / gained", "%", fold=Fold.PHRASES): [_lost_and_gained(row, decimals) for row in rows],
    }
    if all(row.top5_percent is None for row in rows):
        del columns[figures("top-5", "%")]
    return columns if rows[0].retrieval is None else columns | found


def _retrieval(rows: Sequence[EvaluationRow], decimals: int) -> dict[Column, list[str]]:
    """Returns the columns of retrieval; those of the main measure with its change from dense."""
    measured = [row.retrieval for row in rows if row.retrieval is not None]
    if not measured:
        return {}
    first, columns = measured[0], dict[Column, list[str]]()

    def shares(name: str, of: Callable[[Retrieval], Sequence[Recall]]) -> None:
        heading = " / ".join(str(recall.neighbours) for recall in of(first))
        cells = [" / ".join(f"{recall.percent:.{decimals}f}" for recall in of(found)) for found in measured]
        columns[figures(f"{name}@{heading}", "%", fold=Fold.PHRASES)] = cells

    shares("recall", lambda found: found.against_dense)
    if first.between_classes:
        shares("class recall", lambda found: found.between_classes)
    if first.knn is not None:
        columns[figures(first.measure, "%")] = [f"{found.main.percent:.{decimals}f}" for found in measured]
    changes = [found.main.change for found in measured]
    name = f"{first.measure.removesuffix(' accuracy')} change [95 %]"
    columns[figures(name, fold=Fold.PHRASES)] = [
        NOTHING if change is None else change_text(change, decimals) for change in changes
    ]
    return columns


def _lost_and_gained(row: EvaluationRow, decimals: int) -> str:
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
    offered = {row.id for row in evaluation.rows if row.kind in _OFFERED and not row.is_match}
    for stratum in (stratum for stratum in evaluation.strata if stratum.row in offered):
        found.setdefault(stratum.grouping, {}).setdefault(stratum.name, {})[stratum.row] = stratum
    return found


def _worst(groups: _Groups) -> list[str]:
    """Returns the names of at most twelve groups, those whose rows lose most, in the report's order."""
    loss = {name: sum(stratum.top1_change.value for stratum in rows.values()) for name, rows in groups.items()}
    worst = set(sorted(loss, key=loss.__getitem__)[:_MOST_GROUPS])
    return [name for name in groups if name in worst]


def _strata(
    evaluation: Evaluation, grouping: str, groups: _Groups, write: Callable[[Estimate, int], str], further: str = ""
) -> Table:
    """Returns one grouping; of rows whose images keep numbers of their own, what they keep in each group as well."""
    measured = {name for rows in groups.values() for name in rows}
    asked, decimals = [row for row in evaluation.rows if row.id in measured], _decimals(evaluation)
    columns = [words(), figures("images"), figures(_dense_heading(evaluation), "%")]
    for row in asked:
        columns.append(figures(row.label, fold=Fold.PHRASES))
        columns += [figures(f"keeps at {row.label}")] if row.kind is Kind.MASS else []
    rows = [_group(name, found, asked, lambda change: write(change, decimals)) for name, found in groups.items()]
    return Table.of(f"Points of {evaluation.measure} gained over dense, by {grouping}{further}", columns, rows)


def _dense_heading(evaluation: Evaluation) -> str:
    return "dense agrees" if evaluation.measure == AGREEMENT else f"dense {evaluation.measure}"


def _group(
    name: str, found: Mapping[str, Stratum], asked: Sequence[EvaluationRow], write: Callable[[Estimate], str]
) -> list[str]:
    first = next(iter(found.values()))
    cells = [name, str(first.images), f"{first.dense_top1_percent:.1f}"]
    for row in asked:
        stratum = found.get(row.id)
        cells.append(NOTHING if stratum is None else write(stratum.top1_change))
        if row.kind is Kind.MASS:
            cells.append(NOTHING if stratum is None else f"{stratum.kept_mean:.1f}")
    return cells


def _about(evaluation: Evaluation) -> tuple[str, str]:
    trained = "trained dense and sparse" if evaluation.trained_sparse else "never trained sparse"
    labels = "labelled" if evaluation.labelled else "unlabelled"
    return (
        f"{evaluation.images:,} {labels} images ({evaluation.image_source}) through {evaluation.answered_by}, "
        f"{evaluation.created}.",
        f"Weights {evaluation.weights_sha256[:12]}…, {trained}; tokens are dropped in block {evaluation.prune_at} by "
        f"score {evaluation.score}.",
    )


def _explained(evaluation: Evaluation) -> str:
    cost = "MAC ratio is dense's multiply-accumulates over the row's; kept counts patch tokens of an image."
    if evaluation.rows[0].retrieval is not None:
        cost = f"{cost} Retrieval: each image is a query, all others are its gallery. {_RETRIEVAL}"
    if evaluation.measure == AGREEMENT:
        return f"{cost} Without labels, rows are compared with dense's answers."
    if evaluation.measure != TOP1:
        return f"{cost} Rows are compared by {evaluation.measure}."
    return (
        f"{cost} Change is in points of top-1 with its 95 % interval, paired by image. Churn is the share of images "
        "whose answer differs from dense's; lost and gained are those that only dense, or only the row, has right."
    )
