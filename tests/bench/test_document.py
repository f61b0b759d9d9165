"""A benchmark as a page and as Markdown: all of it is there, of each runtime under its name, with and without plots."""

from __future__ import annotations

import dataclasses
import re
import sys
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.bench.document import headline, to_html, to_markdown
from sait_deploy.bench.group_results import Group
from sait_deploy.bench.results import Report
from sait_deploy.bench.tables import by_group, part_tables
from sait_deploy.reports.table import Note, Severity
from tests.bench.sample import ADAPTIVE, ENGINE, RUNTIME, make_adaptive_report, make_report, make_report_of_two
from tests.reports.sample import HOSTILE
from tests.reports.test_html import Page

REPORT, TWO = make_report(), make_report_of_two()
SVG = "{http://www.w3.org/2000/svg}"


def drawings(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def with_text(text: str) -> Report:
    """Returns the sample with the text wherever a report can hold one."""
    variants = tuple(dataclasses.replace(variant, label=text, runtime=text) for variant in REPORT.variants)
    return dataclasses.replace(
        REPORT,
        created=text,
        model=text,
        environment={text: text},
        options={text: text},
        groups=(Group(text, None, {text: text}),),
        variants=variants,
        notes=(Note(text), Note(text, Severity.WARNING)),
    )


def test_a_page_has_all_there_is_to_know() -> None:
    page = Page(to_html(REPORT))
    assert page.inside("h1") == ["deit_small_patch16_224"]
    assert page.inside("h3") == [
        "Speed-up", "Time of each round", "All figures", "Artifacts", "Environment", f"Runtime {RUNTIME}", "Options",
    ]  # fmt: skip
    assert page.inside("li") == ["it ran on another provider", "density 0.6 is faster from batch 1"]
    assert not page.inside("h2"), "one runtime needs no heading"
    shown = [text for _, text in page.texts]
    for variant in REPORT.variants:
        assert variant.id in shown and variant.model_sha256 in shown
    for row in (row for table in part_tables(REPORT) for row in table.rows):
        assert all(cell.text in shown for cell in row.cells)


def test_markdown_has_all_there_is_to_know() -> None:
    text = to_markdown(REPORT)
    assert text.index("**Warning:** it ran on another provider") < text.index("density 0.6 is faster from batch 1")
    for wanted in ("processor: two cores", "rounds: 20", "2026-03-02", *(v.model_sha256 for v in REPORT.variants)):
        assert wanted in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + len(REPORT.rows) + 2 + len(REPORT.variants)


def test_each_runtime_has_its_plots_and_tables_under_its_name() -> None:
    page, text = to_html(TWO), to_markdown(TWO)
    assert Page(page).inside("h2") == [RUNTIME, ENGINE]
    assert text.index(f"### {RUNTIME}") < text.index(f"### {ENGINE}") < text.index("### Notes")
    tables = [table.title for part in by_group(TWO) for table in part_tables(part)]
    assert re.findall(r"^#### (.*)$", text, re.MULTILINE) == tables
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(" ".join(re.findall(r'aria-labelledby="([^"]*)"', page)).split()) <= set(ids)
    first, second, third, fourth = drawings(page)
    assert ["dense median" in "".join(svg.itertext()) for svg in (second, fourth)] == [True, False]
    assert ["32" in svg.itertext() for svg in (first, third)] == [True, False], "dense ran at 32 on the first alone"


def test_what_has_the_same_place_on_both_runtimes_has_the_same_colour() -> None:
    found = re.findall(r'class="swatch (s\d)" aria-hidden="true"></i>\s*([^<]*)</th>', to_html(TWO))
    assert {(colour, name.partition(" on ")[0].strip()) for colour, name in found} == {
        ("s0", "dense"), ("s1", "density 0.6"), ("s2", "density 0.5"),
    }  # fmt: skip


def test_plots_tell_their_figures_to_those_who_do_not_see_them() -> None:
    speed, rounds = drawings(to_html(REPORT))
    told = speed.findtext(f"{SVG}desc") or ""
    assert all(f"density {d}, batch {b}: " in told for d in (0.5, 0.6) for b in (1, 8, 32)) and "MAC ratio 1.44" in told
    assert "Batch 8, dense: median 28" in (rounds.findtext(f"{SVG}desc") or "")


def test_every_point_is_drawn_with_the_range_of_its_mac_ratio() -> None:
    report = make_adaptive_report()
    texts = [text for svg in drawings(to_html(report)) for text in svg.itertext()]
    for label in list(ADAPTIVE.values())[1:]:
        ratios = sorted(row.mac_ratio for row in report.rows if ADAPTIVE[row.variant] == label)
        assert f"{label} (dashed: MAC ratio {ratios[0]:.2f}–{ratios[-1]:.2f})" in texts


def test_what_ran_nowhere_has_no_plot_but_says_why() -> None:
    _, second = by_group(TWO)
    page = to_html(dataclasses.replace(second, rows=()))
    assert "<svg" not in page and "no GPU can be used; a driver is needed" in page


def test_the_headline_is_the_fastest_point_with_what_it_costs() -> None:
    said = headline(REPORT)
    assert re.fullmatch(
        r"Fastest: density 0\.5 at batch 8, [\d.,]+ images/s, 1\.\d\d \[.*\] times as fast as dense; "
        r"top-1 79\.2 %, −0\.6 points to dense\.",
        said,
    ), said
    assert Page(to_html(REPORT)).inside("p")[0] == said
    assert to_markdown(REPORT).splitlines()[2].startswith("Fastest: ")
    dense = tuple(row for row in REPORT.rows if row.variant == "dense")
    assert headline(dataclasses.replace(REPORT, rows=dense)) == ""


def test_one_batch_size_is_no_plot_over_batch_sizes() -> None:
    one = dataclasses.replace(REPORT, rows=tuple(row for row in REPORT.rows if row.batch == 8))
    assert "Speed-up" not in Page(to_html(one)).inside("h3")
    assert "Time of each round" in Page(to_html(one)).inside("h3")


def test_the_same_report_is_the_same_page() -> None:
    assert to_html(REPORT) == to_html(make_report())


def test_without_matplotlib_a_page_says_that_plots_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = to_html(REPORT)
    assert "<svg" not in page and "plots are missing" in page and "pip install" in page
    assert len(Page(page).inside("td")) > len(REPORT.rows)
    assert "plots" not in to_markdown(REPORT)


@settings(deadline=None, max_examples=10)
@given(st.one_of(st.text(min_size=1, max_size=40), st.just(HOSTILE)))
def test_any_text_is_text(text: str) -> None:
    page = to_html(with_text(text))
    assert "script" not in Page(page).tags
    assert len(drawings(page)) == 2, "and each is well-formed"
