"""An evaluation in tables and words: what it says with labels, without, and of headless models, in any width."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.evaluation.report import (
    Grid,
    comparison_lines,
    figures,
    signed,
    strata_briefs,
    strata_grids,
    to_markdown,
)
from sait_deploy.evaluation.results import Estimate, Evaluation, Stratum
from tests.evaluation.sample import make_evaluation, make_headless, make_unlabelled

EVALUATION = make_evaluation()
HOSTILE = "a | b\n# <script>alert(1)</script> *bold* [x](y) `c`"


def column(grid: Grid, heading: str) -> dict[str, str]:
    """Returns a column's cells by row."""
    index = grid.headings.index(heading)
    return {row[0]: row[index] for row in grid.rows}


def tables(markdown: str) -> list[list[list[str]]]:
    """Returns the cells of every table, as a reader of Markdown splits them."""
    found: list[list[list[str]]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def with_many_groups(number: int) -> Evaluation:
    """Makes strata of one row in which the group numbered n loses n points."""
    strata = tuple(
        Stratum("density0.5", "class", f"class {n}", 50, 97.0, Estimate(-n - 1.0, -float(n), 1.0 - n), 72.0)
        for n in range(number)
    )
    return dataclasses.replace(EVALUATION, strata=strata)


def test_every_row_says_what_it_costs_and_how_good_it_is() -> None:
    grid = figures(EVALUATION)
    assert [row[0] for row in grid.rows] == [row.label for row in EVALUATION.rows]
    assert column(grid, "MAC ratio ×")["density 0.5"] == "1.66"
    assert column(grid, "kept mean / p95 / max")["mass 0.9"] == "81.4 / 114 / 130"
    assert column(grid, "kept mean / p95 / max")["density 0.5"] == "72"
    assert column(grid, "top-1 %")["density 0.3"] == "95.2"
    assert column(grid, "top-5 %")["dense"] == "99.8"
    assert column(grid, "change [95 %]")["density 0.3"] == "−2.1 [−2.6, −1.6]"
    assert column(grid, "churn %")["density 0.3"] == "2.6", "100 less the agreement"
    assert column(grid, "lost / gained %")["density 0.3"] == "2.5 / 0.4"


def test_dense_is_compared_with_nothing() -> None:
    grid = figures(EVALUATION)
    assert column(grid, "change [95 %]")["dense"] == column(grid, "lost / gained %")["dense"] == "–"


def test_top5_is_left_out_where_no_row_has_it() -> None:
    rows = tuple(dataclasses.replace(row, top5_percent=None) for row in EVALUATION.rows)
    assert "top-5 %" not in figures(dataclasses.replace(EVALUATION, rows=rows)).headings


def test_many_images_earn_a_second_decimal() -> None:
    grid = figures(dataclasses.replace(EVALUATION, images=50_000))
    assert column(grid, "top-1 %")["density 0.3"] == "95.15"
    assert re.fullmatch(r"−2\.10 \[−2\.\d\d, −1\.\d\d\]", column(grid, "change [95 %]")["density 0.3"])


def test_without_labels_rows_agree_with_dense_or_not() -> None:
    grid = figures(make_unlabelled())
    assert column(grid, "agrees %")["density 0.3"] == "97.4"
    assert column(grid, "cosine mean")["density 0.3"] == "0.9740"
    assert not any("top" in heading or "lost" in heading or "change" in heading for heading in grid.headings)


def test_of_a_headless_model_only_cosines_are_told() -> None:
    headings = figures(make_headless()).headings
    assert {"cosine mean", "cosine p5"} <= set(headings)
    assert not any("top" in heading or "agrees" in heading or "churn" in heading for heading in headings)


def test_the_title_says_what_was_answered_by_what() -> None:
    assert figures(EVALUATION).title == "sait_demo_digits · torch · 2,000 images (2000 composed held-out digits)"


def test_comparisons_are_told_in_words() -> None:
    assert comparison_lines(EVALUATION) == [
        "mass 0.9 − density 0.7 at equal MACs: +0.8 points [+0.2, +1.4]",
        "density 0.3 − 64 px at equal time: −1.3 points [−1.9, −0.7]",
        "mass 0.8 − density 0.5 at equal MACs: ±0.0 points [−0.1, +0.1]",
    ]
    first, *_ = comparison_lines(make_unlabelled())
    assert "+0.8 points of agreement [" in first


@given(st.floats(-100, 100), st.integers(1, 2))
def test_a_difference_has_the_sign_of_what_is_written(value: float, decimals: int) -> None:
    text = signed(value, decimals)
    number = float(text[1:])
    assert number == abs(round(value, decimals))
    assert text[0] == ("±" if number == 0 else "+" if value > 0 else "−")


def test_strata_say_what_each_group_loses_and_what_masses_keep_there() -> None:
    (grid,) = strata_grids(EVALUATION)
    assert grid.title == "Points of top-1 gained over dense, by digit size"
    assert grid.headings == ("", "images", "dense top-1 %", "density 0.3", "mass 0.8", "keeps at mass 0.8")
    assert grid.rows[0] == ("2x to 3x", "650", "95.0", "−6.0 [−7.0, −5.0]", "−0.5 [−1.5, +0.5]", "40.0")
    assert [row[0] for row in grid.rows] == ["2x to 3x", "3x to 4.5x", "4.5x to 6x"]


def test_a_group_that_a_row_was_not_measured_on_has_a_dash() -> None:
    fewer = tuple(s for s in EVALUATION.strata if (s.row, s.name) != ("mass0.8", "2x to 3x"))
    (grid,) = strata_grids(dataclasses.replace(EVALUATION, strata=fewer))
    assert grid.rows[0][-2:] == ("–", "–") and grid.rows[1][-1] == "50.0"


def test_strata_are_shown_of_what_was_asked_for_and_not_of_its_rivals() -> None:
    rivals = [dataclasses.replace(stratum, row="64px") for stratum in EVALUATION.strata[:3]]
    match = dataclasses.replace(EVALUATION.rows[2], id="kept72", label="72 tokens")
    matches = [dataclasses.replace(stratum, row="kept72") for stratum in EVALUATION.strata[:3]]
    strata = (*EVALUATION.strata, *rivals, *matches)
    more = dataclasses.replace(EVALUATION, rows=(*EVALUATION.rows, match), strata=strata)
    assert strata_grids(more) == strata_grids(EVALUATION)
    assert strata_briefs(dataclasses.replace(more, strata=tuple(rivals))) == []


def test_brief_strata_mark_what_is_beyond_doubt() -> None:
    (grid,) = strata_briefs(EVALUATION)
    assert [row[3:] for row in grid.rows] == [
        ("−6.0*", "−0.5", "40.0"),
        ("−3.0*", "−0.2", "50.0"),
        ("−2.0*", "−0.2", "60.0"),
    ]
    assert "* zero is outside" in grid.title


def test_of_many_groups_the_brief_form_has_those_that_lose_most() -> None:
    many = with_many_groups(100)
    (brief,), (full,) = strata_briefs(many), strata_grids(many)
    assert [row[0] for row in brief.rows] == [f"class {n}" for n in range(88, 100)]
    assert "the 12 of 100 that lose most" in brief.title
    assert len(full.rows) == 100
    assert "lose most" not in strata_briefs(with_many_groups(12))[0].title


@pytest.mark.parametrize("evaluation", [EVALUATION, make_unlabelled(), make_headless()])
@settings(deadline=None, max_examples=40)
@given(columns=st.integers(1, 200))
def test_a_table_is_divided_until_it_fits(evaluation: Evaluation, columns: int) -> None:
    grid = figures(evaluation)
    parts = grid.fitted(columns)
    assert [row[0] for part in parts for row in part.rows] == [row[0] for row in grid.rows] * len(parts)
    told = [" ".join(heading.split()) for part in parts for heading in part.headings[1:]]
    assert told == list(grid.headings[1:]), "every column once, in order"
    for position, row in enumerate(grid.rows):
        assert [cell for part in parts for cell in part.rows[position][1:]] == list(row[1:])
    for part in parts:
        widths = [
            max(len(line) for cell in cells for line in cell.split("\n"))
            for cells in zip(part.headings, *part.rows, strict=True)
        ]
        assert sum(widths) + 2 * (len(widths) - 1) <= columns or len(widths) == 2, "a column alone may be too wide"


def test_a_wide_terminal_gets_one_table_as_it_is() -> None:
    grid = figures(EVALUATION)
    assert grid.fitted(200) == [grid]
    assert [part.title for part in grid.fitted(80)] == [grid.title, ""]


def test_markdown_has_all_of_it() -> None:
    text = to_markdown(EVALUATION)
    whole, strata = tables(text)
    assert [row[0] for row in whole[2:]] == [row.label for row in EVALUATION.rows]
    assert len(strata) == 2 + 3
    for wanted in ("trained dense and sparse", "in block 1 by score mean", "- mass 0.9 − density 0.7 at equal MACs"):
        assert wanted in text
    assert text.index("**Warning:** the images are few") < text.index("images per second are of one pass")
    assert "- processor: two cores" in text and "- batch: 64" in text


def test_markdown_leaves_out_what_there_is_not() -> None:
    text = to_markdown(dataclasses.replace(make_headless(), notes=(), environment={}, options={}))
    assert not re.findall("^###", text, flags=re.MULTILINE)
    assert "nan" not in text.lower() and "None" not in text


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=60) | st.just(HOSTILE))
def test_any_text_leaves_the_tables_whole(text: str) -> None:
    rows = tuple(dataclasses.replace(row, label=text) for row in EVALUATION.rows)
    strata = tuple(dataclasses.replace(s, grouping=text, name=f"{s.name} {text}") for s in EVALUATION.strata)
    named = dataclasses.replace(
        EVALUATION, model=text, image_source=text, runtime=text, rows=rows, strata=strata, notes=(text,)
    )
    markdown = to_markdown(named)
    assert [(len(table), {len(row) for row in table}) for table in tables(markdown)] == [
        (len(table), {len(row) for row in table}) for table in tables(to_markdown(EVALUATION))
    ]
    assert not re.search(r"(?<!\\)<", markdown)
