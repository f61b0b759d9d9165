"""The picture of an evaluation: every row where its cost and its figure put it, legible whatever the figures."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.results import Estimate, Evaluation, Kind, Row
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


def drawn(evaluation: Evaluation) -> ET.Element:
    return ET.fromstring(accuracy_plot(evaluation))


def shown(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def frames(root: ET.Element) -> list[list[ET.Element]]:
    """Returns the series of each plot, from the top."""
    return [list(group) for group in root.findall(f"{SVG}g[@clip-path]")]


def marks(series: ET.Element) -> list[tuple[float, float]]:
    """Returns where a series' points stand."""
    paths = " ".join(element.get("d") or "" for element in series.iter(f"{SVG}path") if element.get("class") == "mark")
    return [(float(x), float(y)) for x, y in re.findall(r"M([-\d.]+) ([-\d.]+)", paths)]


def of_kinds(evaluation: Evaluation, *kinds: Kind) -> Evaluation:
    rows = tuple(row for row in evaluation.rows if row.kind in (Kind.DENSE, *kinds))
    return dataclasses.replace(evaluation, rows=rows)


def with_rows(*rows: Row) -> Evaluation:
    return dataclasses.replace(EVALUATION, rows=(make_dense(), *rows))


def test_it_stands_alone_in_light_and_dark() -> None:
    root = drawn(EVALUATION)
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme:dark" in style and "--paper" in style
    assert root.find(f"{SVG}rect[@class='paper']") is not None
    assert not re.search(r"(href|src|url\(\s*[^#])", accuracy_plot(EVALUATION)), "nothing is loaded from elsewhere"


def test_every_row_is_drawn_as_a_point_of_its_kind() -> None:
    *_, whole = frames(drawn(EVALUATION))
    numbers = sorted(len(marks(series)) for series in whole)
    kinds = [row.kind for row in EVALUATION.rows if row.kind is not Kind.DENSE]
    assert numbers == sorted(kinds.count(kind) for kind in set(kinds))


def test_cost_goes_to_the_right_and_accuracy_up() -> None:
    (plot,) = frames(drawn(of_kinds(EVALUATION, Kind.DENSITY)))
    (series,) = plot
    points = marks(series)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True), "0.2, 0.3, 0.5, 0.7"


def test_a_point_stands_where_the_axes_say() -> None:
    """At half of dense's cost, between the ticks of 40 % and 60 %, and at its own top-1."""
    root = drawn(with_rows(make_row("density0.5", Kind.DENSITY, 72, -3.25, macs=ALL // 2)))
    ((series,),) = frames(root)
    ((x, y),) = marks(series)
    across = {t.text: float(t.get("x", "0")) for t in root.iter(f"{SVG}text") if t.get("class") == "mid soft"}
    up = {t.text: float(t.get("y", "0")) - 5 for t in root.iter(f"{SVG}text") if t.get("class") == "end soft"}
    assert x == pytest.approx(across["50"], abs=0.2)
    assert y == pytest.approx(up["94"], abs=0.2)


def test_whiskers_are_the_interval_of_the_change_added_to_dense() -> None:
    row = dataclasses.replace(
        make_row("density0.5", Kind.DENSITY, 72, -3.25), top1_change=Estimate(-5.25, -3.25, -1.25)
    )
    root = drawn(with_rows(row))
    up = {t.text: float(t.get("y", "0")) - 5 for t in root.iter(f"{SVG}text") if t.get("class") == "end soft"}
    (whisker,) = (p.get("d") or "" for p in root.iter(f"{SVG}path") if p.get("class") == "thin")
    ends = re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", whisker)
    assert ends is not None
    assert [float(end) for end in ends.groups()] == pytest.approx([up["92"], up["96"]], abs=0.2)


def test_an_interval_ends_at_a_hundred_per_cent() -> None:
    best = dataclasses.replace(make_dense(), top1_percent=99.9)
    row = dataclasses.replace(
        make_row("mass0.9", Kind.MASS, 80, 0), top1_percent=99.9, top1_change=Estimate(-0.3, 0.0, 0.6)
    )
    root = drawn(dataclasses.replace(EVALUATION, rows=(best, row)))
    assert max(float(t) for t in shown(root) if re.fullmatch(r"99\.\d|100\.\d|100", t)) == 100


def test_dense_is_a_line_across_every_plot_and_named() -> None:
    root = drawn(EVALUATION)
    lines = [path for path in root.iter(f"{SVG}path") if path.get("class") == "unity"]
    assert len(lines) == len(frames(root)) + 1, "and one in the legend"
    assert "dense: 97.2 %" in shown(root)


def test_what_is_offered_gets_a_closer_look_where_controls_are_far_below() -> None:
    root = drawn(EVALUATION)
    assert len(frames(root)) == 2 and "the whole range" in shown(root)
    near, whole = (float((re.search(r"-?\d+", frame) or ["0"])[0]) for frame in lowest_ticks(root))
    assert near > 85 and whole <= 25
    alone = drawn(of_kinds(EVALUATION, Kind.DENSITY, Kind.MASS))
    assert len(frames(alone)) == 1 and "the whole range" not in shown(alone)


def lowest_ticks(root: ET.Element) -> list[str]:
    """Returns the lowest text of the y axis of each plot."""
    texts = [t.text or "" for t in root.iter(f"{SVG}text") if t.get("class") == "end soft"]
    starts = [i for i, text in enumerate(texts) if i == 0 or float(text) < float(texts[i - 1])]
    return [texts[i] for i in starts]


def test_points_are_named_by_what_the_legend_leaves_out() -> None:
    root = drawn(EVALUATION)
    tags = [t.text for t in root.iter(f"{SVG}text") if (t.get("class") or "").startswith("tag")]
    assert sorted(tags, key=str) == ["0.2", "0.3", "0.5", "0.7", "0.8", "0.9", "64 px"]


def test_a_density_of_equal_cost_is_a_point_without_name_and_whisker() -> None:
    """It would cover those of the mass that it costs as much as."""
    match = dataclasses.replace(make_row("density0.4", Kind.DENSITY, 58, -1.0), id="kept58", label="58 tokens")
    for row, whiskers, tags in ((match, 0, []), (make_row("density0.4", Kind.DENSITY, 58, -1.0), 1, ["0.4"])):
        root = drawn(with_rows(row))
        assert [len(marks(series)) for series in frames(root)[0]] == [1]
        assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "thin"]) == whiskers
        assert [t.text for t in root.iter(f"{SVG}text") if (t.get("class") or "").startswith("tag")] == tags


def test_names_that_would_cover_each_other_give_way_to_those_of_masses() -> None:
    near = [make_row("density0.5", Kind.DENSITY, 72, -1, ALL // 2), make_row("mass0.9", Kind.MASS, 72, -1.4, ALL // 2)]
    same = [dataclasses.replace(row, id=f"{row.id}{n}", label=f"{row.label}{n}") for row in near for n in range(3)]
    root = drawn(with_rows(*same))
    tags = [t.text for t in root.iter(f"{SVG}text") if (t.get("class") or "").startswith("tag")]
    assert tags == ["0.90", "0.50"]


def test_the_legend_names_what_is_there_and_nothing_else() -> None:
    texts = shown(drawn(of_kinds(EVALUATION, Kind.MASS, Kind.RANDOM)))
    assert any(text.startswith("mass:") for text in texts) and any("random" in text for text in texts)
    assert not any(text.startswith("density:") or "least" in text or "resolution" in text for text in texts)


def test_without_labels_agreement_is_shown_without_intervals() -> None:
    root = drawn(make_unlabelled())
    assert "agreement with dense, %" in shown(root) and "dense: 100.0 %" in shown(root)
    assert not [path for path in root.iter(f"{SVG}path") if path.get("class") == "thin"]
    assert not any(text.startswith("Whiskers") for text in shown(root))


def test_of_a_headless_model_cosines_are_shown() -> None:
    texts = shown(drawn(make_headless()))
    assert "mean cosine similarity to dense" in texts and "dense: 1.0000" in texts


def test_it_tells_its_figures_to_those_who_do_not_see_it() -> None:
    desc = drawn(EVALUATION).findtext(f"{SVG}desc") or ""
    assert "density 0.5: 96.7 % at 60 % of dense's cost." in desc
    assert all(row.label in desc for row in EVALUATION.rows)


def test_dense_alone_is_a_picture_too() -> None:
    root = drawn(with_rows())
    assert "dense: 97.2 %" in shown(root)
    assert not marks(root)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=60))
def test_any_text_leaves_it_well_formed(text: str) -> None:
    row = dataclasses.replace(make_row("density0.5", Kind.DENSITY, 72, -1), label=text)
    whole = dataclasses.replace(with_rows(row), model=text, image_source=text, runtime=text)
    assert len(list(drawn(whole).iter())) == len(list(drawn(with_rows(row)).iter()))


KINDS = st.sampled_from([kind for kind in Kind if kind is not Kind.DENSE])
CHANGES = st.floats(-DENSE_TOP1, 100 - DENSE_TOP1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(KINDS, st.floats(0.001, 1), CHANGES), max_size=9))
def test_any_figures_stay_inside(rows: list[tuple[Kind, float, float]]) -> None:
    made = [
        make_row(f"{kind}{index}", kind, 72, change, macs=max(1, int(share * ALL)))
        for index, (kind, share, change) in enumerate(rows)
    ]
    root = drawn(with_rows(*made))
    left, top, width, height = (float(part) for part in (root.get("viewBox") or "").split())
    *_, whole = frames(root)
    places = [place for series in whole for place in marks(series)]
    places += [(float(t.get("x", "0")), float(t.get("y", "0"))) for t in root.iter(f"{SVG}text")]
    assert len(places) >= len(made)
    assert all(left <= x <= left + width and top <= y <= top + height for x, y in places)
