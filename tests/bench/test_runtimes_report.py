"""How several runtimes, stages and refusals are shown: in the terminal, in Markdown and in HTML, and read from JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from sait_deploy.bench.cells import REFUSAL_HEADINGS, STAGE_HEADINGS, by_runtime, refusal_rows, stage_rows
from sait_deploy.bench.html import to_html
from sait_deploy.bench.notes import report_notes
from sait_deploy.bench.report import from_json, tables, to_json, to_markdown
from sait_deploy.bench.results import BenchRow, Report, Stages
from sait_deploy.bench.stats import ENQUEUE_BOUND, row_notes
from sait_deploy.errors import ArtifactError
from sait_deploy.reports.table import Note, Severity
from tests.bench.sample import (
    BATCHES,
    ENGINE,
    NO_GPU,
    RUNTIME,
    TOO_LARGE,
    make_report,
    make_report_of_two,
    make_rows,
    make_variants,
)
from tests.bench.test_report import markdown_rows, set_at
from tests.exported import draft

REPORT = make_report_of_two()
FIRST, SECOND = by_runtime(REPORT)
WHY = {"density 0.6": NO_GPU, "dense": TOO_LARGE}


def terminal(report: Report, columns: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=columns, color_system=None).print(*tables(report, columns=columns))
    return out.getvalue()


def ungrouped(text: str) -> str:
    """Joins what lines were broken at."""
    return " ".join(text.split())


def test_each_part_is_of_one_runtime_and_together_they_are_all() -> None:
    assert [part.runtimes[0].name for part in (FIRST, SECOND)] == [RUNTIME, ENGINE]
    for name in ("variants", "rows", "refusals"):
        assert getattr(FIRST, name) + getattr(SECOND, name) == getattr(REPORT, name)
    assert by_runtime(make_report()) == [make_report()]


def test_the_terminal_has_a_titled_table_of_each_runtime() -> None:
    text = terminal(REPORT)
    titles = [line.strip() for line in text.splitlines() if "end-to-end" in line]
    assert titles == [f"deit_small_patch16_224 · {name} · end-to-end" for name in (RUNTIME, ENGINE)]
    assert text.index(titles[0]) < text.index("79.4 (−0.4)") < text.index(titles[1])


@pytest.mark.parametrize("columns", [80, 120])
def test_the_terminal_shows_where_time_goes_and_why_there_is_none(columns: int) -> None:
    text = terminal(REPORT, columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "Where a request's time goes: medians" in text
    found = [line.split() for line in text.splitlines() if "4.50" in line.split()]
    assert found == [[*row.batch.split(), *row.variant.split(), *row[2:]] for row in stage_rows(SECOND)]
    for line in refusal_rows(SECOND):
        words = ungrouped(" ".join(line))
        assert re.sub(r"\s", "", words[:30]) in re.sub(r"\s", "", text)
    for label, (reason, hint, _) in WHY.items():
        assert reason.split()[-1] in text and hint.split()[-1] in text and label in text


def test_only_a_runtime_that_ran_something_has_figures() -> None:
    gone = dataclasses.replace(REPORT, rows=FIRST.rows)
    text = terminal(gone, 160)
    assert text.count("speed-up") == 1
    assert text.count("Where a request's time") == 0
    (title,) = (line.strip() for line in text.splitlines() if ENGINE in line)
    assert title == f"deit_small_patch16_224 · {ENGINE} · end-to-end"


def test_stage_rows_are_of_the_rows_that_have_them_in_their_order() -> None:
    assert stage_rows(FIRST) == []
    assert [(row.batch, row.variant) for row in stage_rows(SECOND)] == [
        ("1", "dense"), ("1", "density 0.5"), ("8", "dense"), ("8", "density 0.5"), ("32", "density 0.5"),
    ]  # fmt: skip
    assert {row[2:] for row in stage_rows(SECOND)} == {("0.150", "0.200", "4.50", "0.0500")}


def test_refusals_say_which_batch_sizes_why_and_what_to_do() -> None:
    assert [tuple(row) for row in refusal_rows(SECOND)] == [
        ("32", "dense", f"cannot run here: {TOO_LARGE[0]}; {TOO_LARGE[1]}"),
        ("1, 8, 32", "density 0.6", f"cannot run here: {NO_GPU[0]}; {NO_GPU[1]}"),
    ]
    silent = dataclasses.replace(REPORT.refusals[0], hint="")
    (row,) = refusal_rows(dataclasses.replace(SECOND, refusals=(silent,)))
    assert row.why == f"cannot run here: {NO_GPU[0]}"


def test_markdown_has_the_tables_of_each_runtime_under_its_name() -> None:
    text = to_markdown(REPORT)
    assert text.index(f"### {RUNTIME}") < text.index(f"### {ENGINE}") < text.index("### Notes")
    before, after = text.split(f"### {ENGINE}\n")
    assert len(markdown_rows(before)) == 2 + len(FIRST.rows)
    rows = markdown_rows(after)
    assert len(rows) == 6 + len(SECOND.rows) + len(stage_rows(SECOND)) + len(refusal_rows(SECOND))
    for wanted in (STAGE_HEADINGS, REFUSAL_HEADINGS, *stage_rows(SECOND), *refusal_rows(SECOND)):
        assert list(wanted) in rows
    assert f"### Runtime {ENGINE}\n\n- GPU: one of them" in text
    assert f"### Runtime {RUNTIME}\n\n- provider: its own" in text


def test_a_report_of_one_runtime_has_no_heading_for_it() -> None:
    assert f"### {RUNTIME}\n" not in to_markdown(make_report())
    assert f"on {RUNTIME}</h2>" not in to_html(make_report())


def page_tables(page: str) -> list[list[list[str]]]:
    """Reads the page's tables, each as its rows, headings first."""
    found = [ET.fromstring(table) for table in re.findall(r"<table>.*?</table>", page, re.DOTALL)]
    return [[["".join(cell.itertext()) for cell in line] for line in table.iter("tr")] for table in found]


def test_html_has_the_tables_of_each_runtime_under_its_name() -> None:
    page = to_html(REPORT)
    figures, others, stages, refusals = page_tables(page)
    assert (len(figures), len(others)) == (1 + len(FIRST.rows), 1 + len(SECOND.rows))
    assert stages == [list(STAGE_HEADINGS), *map(list, stage_rows(SECOND))]
    assert refusals == [list(REFUSAL_HEADINGS), *map(list, refusal_rows(SECOND))]
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    wanted = ["Speed-up", "Time of each round", "All figures"]
    assert headings[:8] == [
        *(f"{heading} on {RUNTIME}" for heading in wanted),
        *(f"{heading} on {ENGINE}" for heading in wanted),
        f"Where a request&#x27;s time goes on {ENGINE}",
        f"Without figures on {ENGINE}",
    ]
    assert f"Runtime {ENGINE}</h2>" in page and "one of them" in page


def test_html_ids_are_there_once_and_every_region_has_its_heading() -> None:
    page = to_html(REPORT)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(" ".join(re.findall(r'aria-labelledby="([^"]*)"', page)).split()) <= set(ids)


def test_html_gives_what_has_the_same_place_in_both_runtimes_the_same_colour() -> None:
    rows = re.findall(r'class="swatch (t\d)" aria-hidden="true"></i>([^<]*)</th>', to_html(REPORT))
    assert {label: {tone for tone, other in rows if other == label} for _, label in rows} == {
        "dense": {"t0"},
        "density 0.6": {"t1"},
        "density 0.5": {"t2"},
    }


def test_html_draws_times_over_dense_only_where_dense_ran() -> None:
    texts = re.findall(r"<svg.*?</svg>", to_html(REPORT), re.DOTALL)
    assert "time ÷ dense median" in texts[1]
    assert "time ÷ first variant&#x27;s median" in texts[3]


def test_html_draws_speed_ups_and_mac_ratios_only_where_dense_ran() -> None:
    svg = ET.fromstring(re.findall(r"<svg.*?</svg>", to_html(REPORT), re.DOTALL)[2])
    assert "8" in svg.itertext() and "32" not in svg.itertext()
    (dashed,) = (path.get("d") or "" for path in svg.iter() if path.get("class") == "dash")
    width = float((svg.get("viewBox") or "").split()[2])
    assert all(0 <= float(x) <= width for x in re.findall(r"[ML](-?[\d.]+) ", dashed))


def test_html_of_what_ran_nowhere_has_no_drawing_but_says_why() -> None:
    nothing = dataclasses.replace(SECOND, rows=())
    page = to_html(nothing)
    assert "<svg" not in page and 'class="plots"' not in page
    assert [line[1] for line in page_tables(page)[0][1:]] == ["dense", "density 0.6"]


def test_json_keeps_runtimes_stages_and_refusals() -> None:
    back = from_json(to_json(REPORT))
    assert (back.runtimes, back.variants, back.refusals) == (REPORT.runtimes, REPORT.variants, REPORT.refusals)
    assert [row.stages for row in back.rows] == [row.stages for row in REPORT.rows]


def add_row(data: Any) -> None:
    """Gives a refused variant figures too."""
    data["rows"].append(data["rows"][0] | {"variant": f"d0.6@{ENGINE}", "batch": 8})


# Rows 9 and 10 are of the second runtime: density 0.5 at batch 32 without dense, then dense at 8.
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_at("variants", 0, "runtime", to="ghost"), r"variants\[0\].runtime 'ghost' is not among the runtimes"),
        (set_at("runtimes", 1, "name", to=RUNTIME), "runtimes .* are repeated"),
        (set_at("runtimes", 1, "environment", "GPU", to=1), r"runtimes\[1\].environment.GPU is 1"),
        (set_at("refusals", 0, "variant", to="ghost"), r"refusals\[0\].variant 'ghost' is not among the variants"),
        (set_at("refusals", 0, "batches", to=[1, 8]), "'d0.6@engine' has 0 rows and refusals at batch 32"),
        (set_at("refusals", 0, "batches", to=[1, 8, 8, 32]), "'d0.6@engine' has 2 rows and refusals at batch 8"),
        (set_at("refusals", 0, "batches", to=[1, 8, 32, 64]), "has 0 rows and refusals at batch 64"),
        (set_at("refusals", 0, "exit_code", to="7"), r"refusals\[0\].exit_code is '7'"),
        (add_row, "'d0.6@engine' has 2 rows and refusals at batch 8"),
        (set_at("rows", 9, "speedup", to={"low": 1, "median": 1, "high": 1}), r"rows\[9\].speedup belongs to"),
        (set_at("rows", 9, "share", to=1.0), r"rows\[9\].share belongs to"),
        (set_at("rows", 11, "speedup", to=None), r"rows\[11\].speedup belongs to"),
        (set_at("rows", 9, "stages", "upload_ms", to=-0.1), r"rows\[9\].stages holds no duration"),
        (set_at("rows", 9, "stages", "upload_ms", to=None), r"rows\[9\].stages.upload_ms is None"),
    ],
)
def test_a_report_of_two_that_is_wrong_is_refused_by_name(change: Callable[[Any], None], named: str) -> None:
    data = json.loads(to_json(REPORT))
    change(data)
    with pytest.raises(ArtifactError, match=named):
        from_json(json.dumps(data))


def test_a_runtime_may_have_run_other_rounds_than_another() -> None:
    rows = [
        dataclasses.replace(row, variant=f"{row.variant}@{ENGINE}") for row in make_rows(make_variants(), rounds=15)
    ]
    report = from_json(to_json(dataclasses.replace(REPORT, rows=(*FIRST.rows, *rows), refusals=())))
    assert [len(row.seconds) for row in report.rows] == [20] * len(FIRST.rows) + [15] * len(rows)


def staged(enqueue: float, compute: float) -> BenchRow:
    return dataclasses.replace(FIRST.rows[0], stages=Stages(enqueue, 0.1, compute, 0.1))


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.89, False), (ENQUEUE_BOUND, True), (1.2, True)])
def test_a_row_that_waits_for_the_host_is_warned_of(share: float, warned: bool) -> None:
    notes = row_notes(staged(2.0 * share, 2.0), "density 0.6")
    assert [note.text.startswith("batch 32, density 0.6: enqueue-bound") for note in notes] == [True] * warned
    assert not warned or f"{2.0 * share:.3g} ms to start" in notes[0].text


def test_a_row_without_stages_is_not_enqueue_bound() -> None:
    assert row_notes(FIRST.rows[0], "density 0.6") == ()


def test_notes_say_where_dense_is_missing_and_of_which_runtime() -> None:
    notes = report_notes(draft(), REPORT.variants, REPORT.rows)
    assert Note(f"no speed-up on {ENGINE} at batch 32: dense cannot run there", Severity.WARNING) in notes
    assert sum("no speed-up on" in note.text for note in notes) == 1
    found = [note.text.partition(" is ")[0] for note in notes if note.text.startswith("break-even: ")]
    assert found == [
        f"break-even: density 0.6 on {RUNTIME}",
        f"break-even: density 0.5 on {RUNTIME}",
        f"break-even: density 0.5 on {ENGINE}",
    ]
    assert BATCHES[-1] == 32
