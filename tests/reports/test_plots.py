"""Plots as SVG: well-formed whatever the data, the same for the same, named, with texts as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.errors import MissingDependency
from sait_deploy.reports import palette
from sait_deploy.reports.drawing import Names
from sait_deploy.reports.plots import (
    Level,
    Line,
    Panel,
    Point,
    Tags,
    panels_plot,
    ratio_plot,
)
from sait_deploy.reports.strips import Strip, StripGroup, strip_plot
from tests.cli.calls import child_environment

SVG = "{http://www.w3.org/2000/svg}"
NAMES = Names("plot", "a <title>", "what it shows & more")
POINTS = tuple(Point(x, 1 + x / 10, x / 10, 2 + x / 10, tag) for x, tag in ((1, "0.2"), (8, "0.3"), (32, "0.5")))
LINE = Line("density 0.6", 1, POINTS, ((1, 1.4), (32, 1.4)))


def shown(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def strip(samples: tuple[float, ...], label: str = "dense") -> Strip:
    ranked = sorted(samples)
    p10, p50, p90 = (ranked[int(share * (len(ranked) - 1))] for share in (0.1, 0.5, 0.9))
    return Strip(label, "42.0 ms", 0, samples, p10, p50, p90)


def all_plots(text: str = "x") -> list[str]:
    names = Names("plot", text, text)
    line = Line(text, 2, tuple(Point(x, x, tag=text) for x in (1.0, 2.0)))
    return [
        ratio_plot([line], names, text, text, text),
        strip_plot([StripGroup(text, (strip((1.0, 2.0), text),))], names, text),
        panels_plot([Panel(text, (line,), Level(text, 1.5))], names, text, title=text),
    ]


def test_a_plot_names_itself_and_says_when_and_where_it_was_drawn_nowhere() -> None:
    svg = ratio_plot([LINE], NAMES, "images", "times as fast", "dense")
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-labelledby") == "plot-title plot-desc"
    assert (root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")) == (NAMES.title, NAMES.desc)
    assert "metadata" not in svg and "DOCTYPE" not in svg
    assert ratio_plot([LINE], NAMES, "images", "times as fast", "dense") == svg


def test_texts_are_text_and_the_legend_names_every_series() -> None:
    texts = shown(ratio_plot([LINE], NAMES, "images per request", "times as fast", "dense"))
    assert {"density 0.6", "dense", "images per request", "times as fast", "1", "8", "32"} <= set(texts)


def test_every_colour_of_a_series_has_another_for_dark_pages() -> None:
    svg = ratio_plot([LINE, Line("b", 2, POINTS)], NAMES, "x", "y", "dense")
    assert "prefers-color-scheme:dark" in svg
    for colour in (palette.SERIES[0], palette.SERIES[1], palette.BASELINE, palette.PAPER):
        assert f"fill: {colour.light}" in svg or f"stroke: {colour.light}" in svg
        assert colour.dark in svg


def test_the_ids_of_two_plots_differ() -> None:
    def ids(ident: str) -> set[str]:
        root = ET.fromstring(ratio_plot([LINE], Names(ident, "t", "d"), "x", "y", "dense"))
        return {element.get("id", "") for element in root.iter() if element.get("id")}

    assert ids("a") and not ids("a") & ids("b")


def test_samples_beyond_the_axis_are_counted_and_200_dots_drawn_of_more() -> None:
    svg = strip_plot([StripGroup("Batch 1", (strip((1.0,) * 30 + (7.0, 9.0)),))], NAMES, "x")
    assert "42.0 ms · 2 beyond ›" in shown(svg) and "Batch 1" in shown(svg)
    many = strip_plot([StripGroup("g", (strip(tuple(1 + i / 1000 for i in range(1000))),))], NAMES, "x")
    dots = [path.get("d", "") for path in ET.fromstring(many).iter(f"{SVG}path") if "round" in path.get("style", "")]
    assert max(d.count("M") for d in dots) == 200


def test_names_of_points_that_would_cover_each_other_give_way() -> None:
    def named(points: tuple[Point, ...], tags: Tags) -> list[str]:
        line = Line("l", 1, (Point(0.0, 0.0), *points, Point(2.0, 2.0)), tags=tags)
        texts = shown(panels_plot([Panel("y", (line,))], NAMES, "x"))
        return [text for text in texts if text.startswith("n")]

    for tags in Tags:
        assert named(tuple(Point(1.0 + i / 1000, 1.0, tag=f"n{i}") for i in range(3)), tags) == ["n2"]
        assert named((Point(0.5, 1.0, tag="n0"), Point(1.5, 1.2, tag="n1")), tags) == ["n0", "n1"]


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    def moves(*ys: float) -> int:
        svg = panels_plot([Panel("y", (Line("l", 1, tuple(map(Point, range(len(ys)), ys))),))], NAMES, "x")
        style = f"stroke: {palette.SERIES[0].light}; stroke-width: 2"
        paths = [p for p in ET.fromstring(svg).iter(f"{SVG}path") if style in p.get("style", "")]
        return max(path.get("d", "").count("M") for path in paths)

    assert (moves(1.0, 2.0, 3.0, 4.0), moves(1.0, 2.0, float("nan"), float("inf"), 3.0, 4.0)) == (1, 2)


FIGURES = st.floats(1e-3, 1e6)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(FIGURES, FIGURES, FIGURES), min_size=1, max_size=6), st.text(max_size=30))
def test_any_data_and_text_is_a_drawing(rows: list[tuple[float, float, float]], text: str) -> None:
    points = tuple(Point(x, y, y / 2, y + high) for x, y, high in sorted(rows))
    ET.fromstring(ratio_plot([Line(text, 1, points)], NAMES, text, text, text))
    ET.fromstring(strip_plot([StripGroup(text, (strip(tuple(y for _, y, _ in rows), text),))], NAMES, text))


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "$\\frac{1}{2}$", "", "\x00\x1b[31m", "語 🎈", "a\nb"])
def test_any_text_is_text(text: str) -> None:
    for svg in all_plots(text):
        root = ET.fromstring(svg)
        assert not list(root.iter(f"{SVG}script"))


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency) as caught:
        all_plots()
    assert caught.value.hint == "pip install 'sait-deploy[report]'"


def test_a_backend_that_is_none_is_named() -> None:
    code = """
from sait_deploy.errors import InvalidArgument
from tests.reports.test_plots import all_plots
try:
    all_plots()
except InvalidArgument as error:
    print(error.hint)
"""
    said = subprocess.check_output([sys.executable, "-c", code], env=child_environment(MPLBACKEND="none"), text=True)
    assert said == "unset MPLBACKEND\n"


def test_settings_in_the_working_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\naxes.grid: True\nlines.linewidth: 9\n")
    code = "from tests.reports.test_plots import all_plots; print(repr(all_plots()))"
    here, there = (
        subprocess.check_output([sys.executable, "-c", code], env=child_environment(), cwd=folder)
        for folder in (Path.cwd(), tmp_path)
    )
    assert here == there


def test_pyplot_and_its_figures_are_left_alone() -> None:
    code = """
import sys
from pathlib import Path
from tests.reports.test_plots import all_plots
assert "matplotlib" not in sys.modules, "it is imported when something is drawn"
all_plots()
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
