"""A benchmark's tables: what their cells say, and that a terminal of 80 columns shows all of it."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from sait_deploy.bench.common_tables import report_tables
from sait_deploy.bench.results import Accuracy, AccuracyMeasure, Interval, Report
from sait_deploy.bench.tables import accuracy_text, by_group, figures_table, part_tables
from sait_deploy.reports.table import Emphasis, Table
from sait_deploy.reports.text import render
from tests.bench.sample import (
    ADAPTIVE,
    BATCHES,
    ENGINE,
    NO_GPU,
    RUNTIME,
    TOO_LARGE,
    TOP1,
    make_adaptive_report,
    make_report,
    make_report_of_two,
    make_variant,
)

REPORT, ADAPTIVE_REPORT, TWO = make_report(), make_adaptive_report(), make_report_of_two()
FIRST, SECOND = by_group(TWO)
AGREEMENT = AccuracyMeasure.AGREEMENT


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def terminal(report: Report, columns: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=columns, color_system=None)
    for table in report_tables(report):
        console.print(*render(table, columns))
    return out.getvalue()


def test_every_batch_is_a_group_with_dense_first_whatever_the_report_s_order() -> None:
    table = figures_table(REPORT)
    names = ("dense", "density 0.6", "density 0.5")
    assert [row[:2] for row in texts(table)] == [[str(batch), name] for batch in BATCHES for name in names]
    assert [row.begins_group for row in table.rows] == [row.reference for row in table.rows] == [True, False, False] * 3
    assert [row.cells[1].series for row in table.rows] == [0, 1, 2] * 3


@pytest.mark.parametrize("report", [REPORT, ADAPTIVE_REPORT, TWO], ids=["densities", "points", "two runtimes"])
@pytest.mark.parametrize("columns", [80, 100, 160])
def test_a_terminal_shows_every_figure_whole(report: Report, columns: int) -> None:
    text = terminal(report, columns)
    assert max(map(len, text.splitlines())) <= columns
    for part in by_group(report):
        for row in texts(figures_table(part)):
            for figure in (part for cell in row[2:] for part in re.split(r" / | (?=[\[(])", cell)):
                assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text), figure


def test_a_row_in_words() -> None:
    speedup = Interval(1.43, 1.47, 1.52)
    row = dataclasses.replace(
        ADAPTIVE_REPORT.rows[1], kept_mean=98.44, kept_p95=121.0, kept_max=153, macs=150_000_000, p50_ms=202.4,
        p99_ms=217.0, images_per_second=39.53, speedup=speedup, mac_ratio=1.6, share=0.91875,
    )  # fmt: skip
    (found,) = texts(figures_table(dataclasses.replace(ADAPTIVE_REPORT, rows=(row,))))
    assert found == [
        "1", "mass 0.95", "98.4 / 121 / 153", "0.150", "202", "217", "39.5", "1.47 [1.43, 1.52]", "1.60", "92 %",
        "79.0 (±0.0)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(1.1, 1.2, Emphasis.GOOD), (0.8, 0.9, Emphasis.BAD), (0.9, 1.1, Emphasis.NONE)]
)
def test_a_speed_up_stands_out_where_its_whole_interval_is_on_one_side_of_1(
    low: float, high: float, wanted: Emphasis
) -> None:
    row = dataclasses.replace(ADAPTIVE_REPORT.rows[1], speedup=Interval(low, (low + high) / 2, high))
    (found,) = figures_table(dataclasses.replace(ADAPTIVE_REPORT, rows=(row,))).rows
    assert found.cells[7].emphasis is wanted


@pytest.mark.parametrize(
    ("own", "dense", "wanted"),
    [
        (Accuracy(TOP1, 5000, 79.42), Accuracy(TOP1, 5000, 79.82), "79.4 (−0.4)"),
        (Accuracy(TOP1, 5000, 80.0), Accuracy(TOP1, 5000, 79.5), "80.0 (+0.5)"),
        (Accuracy(TOP1, 5000, 79.81), Accuracy(TOP1, 5000, 79.83), "79.8 (±0.0)"),
        (Accuracy(TOP1, 50_000, 79.81), Accuracy(TOP1, 50_000, 79.83), "79.81 (−0.02)"),
        (Accuracy(TOP1, 100, 79.0), Accuracy(TOP1, 5000, 80.0), "79.0"),
        (Accuracy(TOP1, 100, 79.0), None, "79.0"),
        (Accuracy(AGREEMENT, 100, 98.0), Accuracy(AGREEMENT, 100, 100.0), "98.0"),
        (None, Accuracy(TOP1, 100, 80.0), "–"),
    ],
)
def test_accuracy_stands_beside_the_baselines(own: Accuracy | None, dense: Accuracy | None, wanted: str) -> None:
    baseline = make_variant("dense", "dense", dense)
    assert accuracy_text(make_variant("v", "v", own), baseline) == wanted


def test_the_baseline_has_no_difference_to_itself() -> None:
    for accuracy, wanted in ((Accuracy(TOP1, 10, 80.0), "80.0"), (Accuracy(AGREEMENT, 10, 100.0), "–"), (None, "–")):
        baseline = make_variant("dense", "dense", accuracy)
        assert accuracy_text(baseline, baseline) == wanted


def test_the_column_of_accuracy_says_what_was_measured_and_is_left_out_where_nothing_was() -> None:
    def last_heading(accuracy: Accuracy | None) -> str:
        variants = tuple(dataclasses.replace(variant, accuracy=accuracy) for variant in REPORT.variants)
        return figures_table(dataclasses.replace(REPORT, variants=variants)).columns[-1].head

    found = [last_heading(accuracy) for accuracy in (Accuracy(TOP1, 9, 80.0), Accuracy(AGREEMENT, 9, 90.0), None)]
    assert found == ["top-1 % (Δ)", "agrees %", "share"]


def test_forced_counts_show_no_accuracy() -> None:
    found = {row[1]: row[-1] for row in texts(figures_table(ADAPTIVE_REPORT))}
    assert found == dict(zip(ADAPTIVE.values(), ("79.0", "79.0 (±0.0)", "–"), strict=True))


def test_each_part_is_of_one_runtime_and_together_they_are_all() -> None:
    assert [part.groups[0].name for part in (FIRST, SECOND)] == [RUNTIME, ENGINE]
    for name in ("variants", "rows", "refusals"):
        assert getattr(FIRST, name) + getattr(SECOND, name) == getattr(TWO, name)
    assert by_group(REPORT) == [REPORT]


def test_the_first_table_of_each_runtime_says_what_was_measured() -> None:
    titles = [table.title for table in report_tables(TWO)]
    assert titles == [
        f"deit_small_patch16_224 · {RUNTIME} · end-to-end",
        f"deit_small_patch16_224 · {ENGINE} · end-to-end",
        "Where a request's time goes",
        "Without figures",
    ]
    refused = report_tables(dataclasses.replace(TWO, rows=FIRST.rows))
    assert [table.title for table in refused] == [titles[0], "Runtimes without figures"]


def test_stages_are_those_of_the_rows_that_have_them() -> None:
    (_,) = part_tables(FIRST)
    _, stages, _ = part_tables(SECOND)
    times = ["0.150", "0.200", "4.50", "0.0500"]
    assert texts(stages) == [
        ["1", "dense", *times], ["1", "density 0.5", *times], ["8", "dense", *times], ["8", "density 0.5", *times],
        ["32", "density 0.5", *times],
    ]  # fmt: skip


def test_refusals_say_which_batch_sizes_why_and_what_to_do() -> None:
    *_, refusals = part_tables(SECOND)
    assert texts(refusals) == [
        ["32", "dense", f"cannot run here: {TOO_LARGE[0]}; {TOO_LARGE[1]}"],
        ["1, 8, 32", "density 0.6", f"cannot run here: {NO_GPU[0]}; {NO_GPU[1]}"],
    ]
    silent = dataclasses.replace(TWO.refusals[0], hint="")
    *_, refusals = part_tables(dataclasses.replace(SECOND, refusals=(silent,)))
    assert texts(refusals)[0][-1] == f"cannot run here: {NO_GPU[0]}"
