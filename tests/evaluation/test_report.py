"""An evaluation in tables and words: what it says with labels, without, and of headless models."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser

import pytest

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.report import (
    brief_strata_tables,
    comparison_lines,
    document,
    figures_table,
    strata_tables,
    to_html,
    to_markdown,
)
from sait_deploy.evaluation.results import Evaluation, Stratum
from sait_deploy.reports.drawing import NO_PLOTS
from sait_deploy.reports.table import Table
from tests.evaluation.sample import make_evaluation, make_headless, make_unlabelled

EVALUATION = make_evaluation()


def headings(table: Table) -> list[str]:
    return [column.head for column in table.columns]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def column(table: Table, heading: str) -> dict[str, str]:
    """Returns a column's cells by row."""
    index = headings(table).index(heading)
    return {row[0]: row[index] for row in texts(table)}


def with_many_groups(number: int) -> Evaluation:
    """Makes strata of one row in which the group numbered n loses n points."""
    strata = tuple(
        Stratum("density0.5", "class", f"class {n}", 50, 97.0, Estimate(-n - 1.0, -float(n), 1.0 - n), 72.0)
        for n in range(number)
    )
    return dataclasses.replace(EVALUATION, strata=strata)


def test_every_row_says_what_it_costs_and_how_good_it_is() -> None:
    table = figures_table(EVALUATION)
    assert table.title == "sait_demo_digits · torch · 2,000 images (2000 composed held-out digits)"
    assert [row[0] for row in texts(table)] == [row.label for row in EVALUATION.rows]
    wanted = {
        "kept mean / p95 / max": "44",
        "top-1 %": "95.2",
        "change [95 %]": "−2.1 [−2.6, −1.6]",
        "churn %": "2.6",  # 100 less the agreement
        "lost / gained %": "2.5 / 0.4",
    }
    assert {heading: column(table, heading)["density 0.3"] for heading in wanted} == wanted
    assert column(table, "MAC ratio ×")["density 0.5"] == "1.66"
    assert column(table, "kept mean / p95 / max")["mass 0.9"] == "81.4 / 114 / 130"
    assert column(table, "top-5 %")["dense"] == "99.8"
    assert column(table, "change [95 %]")["dense"] == column(table, "lost / gained %")["dense"] == "–"
    assert [row.reference for row in table.rows] == [row.id == "dense" for row in EVALUATION.rows]


def test_top5_is_left_out_where_no_row_has_it() -> None:
    rows = tuple(dataclasses.replace(row, top5_percent=None) for row in EVALUATION.rows)
    assert "top-5 %" not in headings(figures_table(dataclasses.replace(EVALUATION, rows=rows)))


def test_many_images_earn_a_second_decimal() -> None:
    table = figures_table(dataclasses.replace(EVALUATION, images=50_000))
    assert column(table, "top-1 %")["density 0.3"] == "95.15"
    assert re.fullmatch(r"−2\.10 \[−2\.\d\d, −1\.\d\d\]", column(table, "change [95 %]")["density 0.3"])


def test_without_labels_rows_agree_with_dense_or_not() -> None:
    table = figures_table(make_unlabelled())
    assert column(table, "agrees %")["density 0.3"] == "97.4"
    assert column(table, "cosine mean")["density 0.3"] == "0.9740"
    assert not any("top" in heading or "lost" in heading or "change" in heading for heading in headings(table))


def test_of_a_headless_model_only_cosines_are_told() -> None:
    found = headings(figures_table(make_headless()))
    assert {"cosine mean", "cosine p5"} <= set(found)
    assert not any("top" in heading or "agrees" in heading or "churn" in heading for heading in found)


def test_comparisons_are_told_in_words() -> None:
    assert comparison_lines(EVALUATION) == [
        "mass 0.9 − density 0.7 at equal MACs: +0.8 points [+0.2, +1.4]",
        "density 0.3 − 64 px at equal time: −1.3 points [−1.9, −0.7]",
        "mass 0.8 − density 0.5 at equal MACs: ±0.0 points [−0.1, +0.1]",
    ]
    first, *_ = comparison_lines(make_unlabelled())
    assert "+0.8 points of agreement [" in first


def test_strata_say_what_each_group_loses_and_what_masses_keep_there() -> None:
    (table,) = strata_tables(EVALUATION)
    assert table.title == "Points of top-1 gained over dense, by digit size"
    assert headings(table) == ["", "images", "dense top-1 %", "density 0.3", "mass 0.8", "keeps at mass 0.8"]
    assert texts(table)[0] == ["2x to 3x", "650", "95.0", "−6.0 [−7.0, −5.0]", "−0.5 [−1.5, +0.5]", "40.0"]
    assert [row[0] for row in texts(table)] == ["2x to 3x", "3x to 4.5x", "4.5x to 6x"]


def test_a_group_that_a_row_was_not_measured_on_has_a_dash() -> None:
    fewer = tuple(s for s in EVALUATION.strata if (s.row, s.name) != ("mass0.8", "2x to 3x"))
    (table,) = strata_tables(dataclasses.replace(EVALUATION, strata=fewer))
    assert texts(table)[0][-2:] == ["–", "–"] and texts(table)[1][-1] == "50.0"


def test_strata_are_shown_of_what_was_asked_for_and_not_of_its_rivals() -> None:
    rivals = [dataclasses.replace(stratum, row="64px") for stratum in EVALUATION.strata[:3]]
    match = dataclasses.replace(EVALUATION.rows[2], id="kept72", label="72 tokens")
    matches = [dataclasses.replace(stratum, row="kept72") for stratum in EVALUATION.strata[:3]]
    strata = (*EVALUATION.strata, *rivals, *matches)
    more = dataclasses.replace(EVALUATION, rows=(*EVALUATION.rows, match), strata=strata)
    assert strata_tables(more) == strata_tables(EVALUATION)
    assert brief_strata_tables(dataclasses.replace(more, strata=tuple(rivals))) == []


def test_brief_strata_mark_what_is_beyond_doubt() -> None:
    (table,) = brief_strata_tables(EVALUATION)
    assert [row[3:] for row in texts(table)] == [
        ["−6.0*", "−0.5", "40.0"],
        ["−3.0*", "−0.2", "50.0"],
        ["−2.0*", "−0.2", "60.0"],
    ]
    assert "* zero is outside" in table.title


def test_of_many_groups_the_brief_form_has_those_that_lose_most() -> None:
    many = with_many_groups(100)
    (brief,), (full,) = brief_strata_tables(many), strata_tables(many)
    assert [row[0] for row in texts(brief)] == [f"class {n}" for n in range(88, 100)]
    assert "the 12 of 100 that lose most" in brief.title
    assert len(full.rows) == 100
    assert "lose most" not in brief_strata_tables(with_many_groups(12))[0].title


def test_markdown_has_all_of_it() -> None:
    text = to_markdown(EVALUATION)
    for wanted in (
        "## sait_demo_digits: accuracy over operating points",
        "trained dense and sparse",
        "in block 1 by score mean",
        "- mass 0.9 − density 0.7 at equal MACs",
        "| density 0.3 | ",
        "### Points of top-1 gained over dense, by digit size",
        "- processor: two cores",
        "- batch: 64",
    ):
        assert wanted in text
    assert text.index("**Warning:** the images are few") < text.index("images per second are of one pass")


@pytest.mark.parametrize("write", [to_markdown, to_html])
def test_a_report_leaves_out_what_there_is_not(write: object) -> None:
    assert callable(write)
    text = write(dataclasses.replace(make_headless(), notes=(), environment={}, options={}))
    for absent in ("At equal cost", "Notes", "Environment", "Options", "Points of"):
        assert absent not in text
    assert "nan" not in text.lower() and ">None<" not in text and "| None" not in text


def test_without_matplotlib_a_page_says_that_its_plot_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = to_html(EVALUATION)
    assert "<svg" not in page and NO_PLOTS.text.partition(":")[0] in page


def test_a_page_has_every_table_and_the_plot() -> None:
    class Tables(HTMLParser):
        found = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.found += tag == "table"

    page = Tables()
    assert to_html(EVALUATION).count("<svg") == 1
    page.feed(to_html(EVALUATION))
    assert page.found == sum(len(section.tables) for section in document(EVALUATION).sections) == 2
