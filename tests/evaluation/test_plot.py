"""The picture of an evaluation: every row in words, what is offered closer, legible whatever the figures."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.results import Evaluation, EvaluationRow, Kind
from sait_deploy.tokens import dense_macs
from tests.evaluation.sample import (
    DENSE_TOP1,
    DIGITS,
    make_dense,
    make_evaluation,
    make_headless,
    make_row,
    make_unlabelled,
)

SVG = "{http://www.w3.org/2000/svg}"
EVALUATION = make_evaluation()
ALL = dense_macs(DIGITS)
WHISKERS = "Whiskers: 95 % intervals of the difference to dense, paired by image."


def shown(evaluation: Evaluation) -> list[str]:
    return [element.text or "" for element in ET.fromstring(accuracy_plot(evaluation)).iter(f"{SVG}text")]


def tags(evaluation: Evaluation) -> list[str]:
    """Returns the names of points: texts of the colour of a series."""
    root = ET.fromstring(accuracy_plot(evaluation))
    return [t.text or "" for t in root.iter(f"{SVG}text") if "font-size: 11px" in t.get("style", "")]


def of_kinds(evaluation: Evaluation, *kinds: Kind) -> Evaluation:
    rows = tuple(row for row in evaluation.rows if row.kind in (Kind.DENSE, *kinds))
    return dataclasses.replace(evaluation, rows=rows)


def with_rows(*rows: EvaluationRow) -> Evaluation:
    return dataclasses.replace(EVALUATION, rows=(make_dense(), *rows))


def test_what_is_offered_gets_a_closer_look_where_controls_are_far_below() -> None:
    assert "the whole range" in shown(EVALUATION)
    assert "the whole range" not in shown(of_kinds(EVALUATION, Kind.DENSITY, Kind.MASS))


def test_points_are_named_by_what_the_legend_leaves_out() -> None:
    assert sorted(tags(EVALUATION)) == ["0.2", "0.3", "0.5", "0.7", "0.8", "0.9", "64 px"]


def test_a_density_of_equal_cost_is_a_point_without_name_and_whisker() -> None:
    """It would cover those of the mass that it costs as much as."""
    named = make_row("density0.4", Kind.DENSITY, 58, -1.0)
    match = dataclasses.replace(named, id="kept58", label="58 tokens")
    assert (tags(with_rows(named)), WHISKERS in shown(with_rows(named))) == (["0.4"], True)
    assert tags(with_rows(match)) == []


def test_names_that_would_cover_each_other_give_way_and_masses_keep_theirs() -> None:
    near = [make_row("density0.5", Kind.DENSITY, 72, -1, ALL // 2), make_row("mass0.9", Kind.MASS, 72, -1.4, ALL // 2)]
    same = [dataclasses.replace(row, id=f"{row.id}{n}", label=f"{row.label}{n}") for row in near for n in range(3)]
    assert sorted(tags(with_rows(*same))) == ["0.52", "0.92"]


def test_the_legend_names_what_is_there_and_nothing_else() -> None:
    texts = shown(of_kinds(EVALUATION, Kind.MASS, Kind.RANDOM))
    assert "dense: 97.2 %" in texts
    assert any(text.startswith("mass:") for text in texts) and any("random" in text for text in texts)
    assert not any(text.startswith("density:") or "least" in text or "resolution" in text for text in texts)


def test_without_labels_agreement_is_shown_without_intervals() -> None:
    texts = shown(make_unlabelled())
    assert "agreement with dense, %" in texts and "dense: 100.0 %" in texts and WHISKERS not in texts
    assert WHISKERS in shown(EVALUATION) and "top-1, %" in shown(EVALUATION)


def test_of_a_headless_model_cosines_are_shown() -> None:
    texts = shown(make_headless())
    assert "mean cosine similarity to dense" in texts and "dense: 1.0000" in texts


def test_it_tells_its_figures_to_those_who_do_not_see_it() -> None:
    desc = ET.fromstring(accuracy_plot(EVALUATION)).findtext(f"{SVG}desc") or ""
    assert "density 0.5: 96.7 % at 60 % of dense's cost." in desc
    assert all(row.label in desc for row in EVALUATION.rows)


def test_dense_alone_is_a_picture_too() -> None:
    assert "dense: 97.2 %" in shown(with_rows())


KINDS = st.sampled_from([kind for kind in Kind if kind is not Kind.DENSE])
CHANGES = st.floats(-DENSE_TOP1, 100 - DENSE_TOP1)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(KINDS, st.floats(0.001, 1), CHANGES), max_size=9), st.text(max_size=60))
def test_any_figures_and_text_are_a_picture(rows: list[tuple[Kind, float, float]], text: str) -> None:
    made = [
        dataclasses.replace(make_row(f"{kind}{index}", kind, 72, change, macs=max(1, int(share * ALL))), label=text)
        for index, (kind, share, change) in enumerate(rows)
    ]
    whole = dataclasses.replace(with_rows(*made), model=text, image_source=text, runtime=text)
    assert "dense: 97.2 %" in shown(whole)
