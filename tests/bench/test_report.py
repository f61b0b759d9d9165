"""The terminal table, Markdown and JSON of a report."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sait_deploy.bench.cells import HEADINGS, accuracy_text, cells, digits
from sait_deploy.bench.report import from_json, tables, to_json, to_markdown
from sait_deploy.bench.results import Accuracy, BenchRow, Interval, Report
from sait_deploy.errors import ArtifactError
from sait_deploy.reports.table import Note
from tests.bench.sample import BATCHES, make_report, make_variant

REPORT = make_report()
ORDER = ("dense", "density 0.6", "density 0.5")


def rendered(report: Report, columns: int) -> str:
    """Renders the tables as a terminal of that width shows them."""
    out = io.StringIO()
    Console(file=out, width=columns, color_system=None).print(*tables(report, columns=columns))
    return out.getvalue()


def relabelled(label: str) -> Report:
    """Returns the sample report with another label on its first variant."""
    first, *others = REPORT.variants
    return dataclasses.replace(REPORT, variants=(dataclasses.replace(first, label=label), *others))


def test_a_wide_table_shows_every_batch_dense_first() -> None:
    lines = [line for line in rendered(REPORT, 120).splitlines() if "dens" in line]
    found = [re.match(r"\s*(\d*)\s+(dense|density 0\.[56])\s", line) for line in lines]
    wanted = [(batch if v == "dense" else "", v) for batch in map(str, BATCHES) for v in ORDER]
    assert [match.groups() for match in found if match] == wanted


def test_batches_are_set_apart_by_a_line() -> None:
    rules = [i for i, line in enumerate(rendered(REPORT, 120).splitlines()) if line.strip("─ ") == "" and "─" in line]
    assert len(rules) == len(BATCHES)
    assert [b - a for a, b in pairwise(rules)] == [len(ORDER) + 1] * (len(BATCHES) - 1)


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_no_figure_is_cut_or_broken_at_any_width(columns: int) -> None:
    text = rendered(REPORT, columns)
    assert max(map(len, text.splitlines())) <= columns
    baseline = REPORT.variants[1]
    for row in REPORT.rows:
        shown = cells(row, next(v for v in REPORT.variants if v.id == row.variant), baseline)
        for figure in (shown.kept, shown.gmacs, shown.p50, shown.p99, shown.images, shown.mac_ratio, shown.share):
            assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text), figure
        if row.speedup is not None:
            assert f"[{row.speedup.low:.2f}, {row.speedup.high:.2f}]" in text


def test_a_label_is_text_and_neither_markup_nor_control_codes() -> None:
    text = rendered(relabelled("[bold]x[/bold]\x1b[31m"), 160)
    assert "[bold]x[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.15, "0.150"), (4.606, "4.61"), (17.58, "17.6"), (1237.4, "1237"), (9.999, "10.0"), (0, "0.00")],
)
def test_three_digits_without_an_exponent(value: float, wanted: str) -> None:
    assert digits(value) == wanted


@given(st.floats(1e-6, 1e9))
def test_digits_stay_within_half_a_percent(value: float) -> None:
    assert float(digits(value)) == pytest.approx(value, rel=0.0051)
    assert "e" not in digits(value)


@pytest.mark.parametrize(
    ("own", "dense", "wanted"),
    [
        (Accuracy(5000, 79.42, 96.0), Accuracy(5000, 79.82, 100.0), "79.4 (−0.4)"),
        (Accuracy(5000, 80.0, 96.0), Accuracy(5000, 79.5, 100.0), "80.0 (+0.5)"),
        (Accuracy(5000, 79.81, 99.0), Accuracy(5000, 79.83, 100.0), "79.8 (±0.0)"),
        (Accuracy(50_000, 79.81, 99.0), Accuracy(50_000, 79.83, 100.0), "79.81 (−0.02)"),
        (Accuracy(100, 79.0, 99.0), Accuracy(5000, 80.0, 100.0), "79.0"),
        (Accuracy(100, 79.0, 99.0), None, "79.0"),
        (Accuracy(100, None, 98.0), Accuracy(100, None, 100.0), "agrees 98.0 %"),
        (None, Accuracy(100, 80.0, 100.0), "–"),
    ],
)
def test_accuracy_stands_beside_the_baselines(own: Accuracy | None, dense: Accuracy | None, wanted: str) -> None:
    baseline = make_variant("dense", "dense", dense)
    assert accuracy_text(make_variant("v", "v", own), baseline) == wanted


def test_the_baseline_has_no_difference_to_itself() -> None:
    for accuracy, wanted in ((Accuracy(10, 80.0, 100.0), "80.0"), (Accuracy(10, None, 100.0), "–"), (None, "–")):
        baseline = make_variant("dense", "dense", accuracy)
        assert accuracy_text(baseline, baseline) == wanted


def test_cells_of_an_adaptive_row() -> None:
    speedup = Interval(1.43, 1.47, 1.52)
    row = BenchRow(8, "v", (0.2,), 1, 98.44, 121.0, 153, 150_000_000, 202.4, 217.0, 39.53, speedup, 1.6, 0.91875, None)
    found = cells(row, make_variant("v", "mass 0.9"), None)
    assert tuple(found) == (
        "8", "mass 0.9", "98.4 / 121 / 153", "0.150", "202", "217", "39.5", "1.47 [1.43, 1.52]", "1.60", "92 %", "–"
    )  # fmt: skip


def markdown_rows(text: str) -> list[list[str]]:
    """Reads the table of a Markdown report back, cells unescaped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    parts = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in parts]


def test_markdown_holds_the_same_table() -> None:
    head, rule, *rows = markdown_rows(to_markdown(REPORT))
    assert head == list(HEADINGS)
    assert len(rule) == len(HEADINGS)
    assert [row[:2] for row in rows] == [[str(batch), name] for batch in BATCHES for name in ORDER]
    assert {len(row) for row in rows} == {len(HEADINGS)}


def test_markdown_shows_warnings_first_and_all_there_is_to_know() -> None:
    text = to_markdown(REPORT)
    assert text.index("**Warning:** it ran on another provider") < text.index("density 0.6 is faster from batch 1")
    for wanted in ("processor: two cores", "rounds: 20", "2026-03-02", *(v.model_sha256 for v in REPORT.variants)):
        assert wanted in text


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc", "Zl", "Zp", "Cf", "Co", "Cn"]), min_size=1))
def test_any_label_survives_markdown_and_the_table_stays_whole(label: str) -> None:
    rows = markdown_rows(to_markdown(relabelled(label)))
    assert rows[3][1] == label


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "![x](y)", "a | b", "`code`", "# h", "1. one", "a\nb"])
def test_markdown_takes_no_markup_from_a_label(label: str) -> None:
    text = to_markdown(relabelled(label))
    assert not re.search(r"(?<!\\)<script|(?<!\\)!?(?<!\\)\[x|a \| b|(?<!\\)`|\| # h|- 1\. one|^b", text, re.MULTILINE)


def test_json_keeps_everything_but_digits_no_clock_has() -> None:
    back = from_json(to_json(REPORT))
    rounded = [dataclasses.replace(r, seconds=tuple(round(s, 7) for s in r.seconds)) for r in REPORT.rows]
    assert back == dataclasses.replace(REPORT, rows=tuple(rounded))
    assert to_json(back) == to_json(REPORT)


def test_json_puts_the_samples_of_a_row_on_one_line() -> None:
    lines = [line for line in to_json(REPORT).splitlines() if '"seconds"' in line]
    assert len(lines) == len(REPORT.rows)
    assert all(line.count(",") == len(REPORT.rows[0].seconds) for line in lines)


@settings(deadline=None, max_examples=50)
@given(label=st.text(), name=st.text(), value=st.text(), note=st.text())
def test_json_keeps_any_text(label: str, name: str, value: str, note: str) -> None:
    report = dataclasses.replace(
        relabelled(label), environment={name: value}, notes=(Note(note), Note('"seconds": [\n1,\n2]'))
    )
    back = from_json(to_json(report))
    assert (back.variants, back.environment, back.notes) == (report.variants, report.environment, report.notes)


def set_at(*path: str | int, to: object) -> Callable[[Any], None]:
    """Returns a change that puts a value at a place of a parsed report."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = to

    return change


def drop_at(*path: str | int) -> Callable[[Any], None]:
    """Returns a change that removes a field of a parsed report."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


def repeat_row(data: Any) -> None:
    """Lists a row twice."""
    data["rows"].append(copy.deepcopy(data["rows"][0]))


# Rows come as d0.6, dense, d0.5 for batch 32, then 8, then 1.
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_at("schema_version", to=2), "schema_version 2, not 5"),
        (set_at("schema_version", to=True), "schema_version True"),
        (set_at("timing", to="guessed"), "timing is 'guessed'"),
        (set_at("timing", to=["compute"]), "timing is"),
        (drop_at("created"), "created is missing"),
        (set_at("extra", to=1), "extra is an unknown field"),
        (set_at("environment", "os", to=3), r"environment.os is 3"),
        (set_at("notes", to="one"), "notes is 'one'"),
        (set_at("notes", 0, to="one"), r"notes\[0\] is 'one'"),
        (set_at("notes", 0, "severity", to="grave"), r"notes\[0\].severity is 'grave'"),
        (set_at("variants", 0, "pruning", "score", to="best"), r"variants\[0\].pruning.score is 'best'"),
        (set_at("rows", to=[]), "no rows"),
        (set_at("rows", 0, "batch", to=1.5), r"rows\[0\].batch is 1.5"),
        (set_at("rows", 0, "batch", to=True), r"rows\[0\].batch is True"),
        (set_at("rows", 0, "batch", to=0), r"rows\[0\].batch is 0"),
        (set_at("rows", 0, "batch", to=64), "'d0.6' has 0 rows and refusals at batch 32"),
        (set_at("rows", 0, "variant", to="ghost"), "ghost"),
        (set_at("rows", 0, "seconds", to=[]), r"rows\[0\].seconds"),
        (set_at("rows", 0, "seconds", 3, to=-0.1), r"rows\[0\].seconds"),
        (set_at("rows", 0, "seconds", 3, to="0.1"), r"rows\[0\].seconds\[3\]"),
        (set_at("rows", 0, "seconds", 3, to=10**400), r"rows\[0\].seconds\[3\]"),
        (drop_at("rows", 0, "seconds", 3), r"rows\[0\]"),
        (set_at("rows", 0, "p50_ms", to=1.0), r"rows\[0\].p50_ms"),
        (set_at("rows", 0, "p99_ms", to=1.0), r"rows\[0\].p99_ms"),
        (set_at("rows", 0, "images_per_second", to=0), r"rows\[0\].images_per_second"),
        (set_at("rows", 0, "kept_max", to=3), r"rows\[0\].kept_max"),
        (set_at("rows", 0, "kept_p95", to=-1), r"rows\[0\].kept_max"),
        (set_at("rows", 0, "macs", to=0), r"rows\[0\].macs is 0"),
        (drop_at("rows", 0, "macs"), r"rows\[0\].macs is missing"),
        (set_at("rows", 0, "batches", to=0), r"rows\[0\].batches is 0"),
        (set_at("rows", 0, "batches", to=2.0), r"rows\[0\].batches is 2.0"),
        (set_at("rows", 0, "mac_ratio", to=0), r"rows\[0\].mac_ratio"),
        (set_at("rows", 0, "speedup", to=None), r"rows\[0\].speedup"),
        (set_at("rows", 0, "share", to=None), r"rows\[0\].share"),
        (set_at("rows", 0, "speedup", "low", to=99), r"rows\[0\].speedup"),
        (set_at("rows", 0, "speedup", "low", to=None), r"rows\[0\].speedup.low is None"),
        (set_at("rows", 1, "speedup", to={"low": 1, "median": 1, "high": 1}), r"rows\[1\].speedup"),
        (repeat_row, r"'d0.6' has 2 rows and refusals at batch 32"),
        (set_at("variants", 0, "id", to="dense"), "repeated"),
        (set_at("variants", 0, "baseline", to=True), "2 variants are the baseline on 'ONNX"),
        (set_at("variants", 0, "baseline", to=1), r"variants\[0\].baseline is 1"),
        (set_at("variants", 1, "baseline", to=False), "0 variants are the baseline on 'ONNX"),
        (set_at("variants", 0, "macs", to=1), r"variants\[0\].macs is an unknown field"),
        (drop_at("variants", 0, "weights_sha256"), r"variants\[0\].weights_sha256 is missing"),
        (set_at("variants", 1, "weights_sha256", to=None), r"variants\[1\].weights_sha256 is None"),
        (set_at("variants", 2, "weights_sha256", to="cd"), r"variants\[2\].weights_sha256 'cd'"),
        (set_at("variants", 0, "accuracy", "images", to=0), r"variants\[0\].accuracy.images"),
        (set_at("variants", 0, "accuracy", "top1_percent", to=101), r"variants\[0\].accuracy"),
        (drop_at("flips"), "flips is missing"),
        (set_at("flips", 0, "variant", to="ghost"), r"flips\[0\].variant 'ghost'"),
        (set_at("flips", 0, "images", to=0), r"flips\[0\].images is 0"),
        (set_at("flips", 0, "kept_sets_percent", to=100.5), r"flips\[0\] holds 100.5 percent"),
        (set_at("flips", 0, "answers_percent", to=-1), r"flips\[0\] holds -1.0 percent"),
        (set_at("flips", 0, "between", to=None), r"flips\[0\].between is None"),
    ],
)
def test_a_report_that_is_wrong_is_refused_by_name(change: Callable[[Any], None], named: str) -> None:
    data = json.loads(to_json(REPORT))
    change(data)
    with pytest.raises(ArtifactError, match=named) as caught:
        from_json(json.dumps(data))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema_version": NaN}', "[" * 100_000, "9" * 5000])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        from_json(text)


def test_a_number_that_is_none_is_not_written() -> None:
    bad = dataclasses.replace(REPORT.rows[0], mac_ratio=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        to_json(dataclasses.replace(REPORT, rows=(bad, *REPORT.rows[1:])))
