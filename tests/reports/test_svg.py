"""Drawing: well-formed whatever the text, values where their axis says, and files that stand by themselves."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.reports import svg
from sait_deploy.reports.svg import Frame, Names

SVG = "{http://www.w3.org/2000/svg}"
NAMES = Names("plot", "a title", "what it shows")
FRAME = Frame(50, 250, 20, 120, [0.0, 5.0, 10.0], [90.0, 95.0, 100.0])
HOSTILE = "<script>alert('x')</script> & \"q\" ]]> \x00 </style>"


def test_values_stand_where_the_axes_say() -> None:
    assert [FRAME.across(x) for x in (0, 5, 10)] == [50, 150, 250]
    assert [FRAME.up(y) for y in (90, 95, 100)] == [120, 70, 20], "larger values stand higher"
    assert FRAME.up(92.5) == 95


def test_axes_have_a_text_for_every_tick() -> None:
    drawn = ET.fromstring(svg.drawing(NAMES, 300, 150, FRAME.axes()))
    texts = {text.text: text for text in drawn.iter(f"{SVG}text")}
    assert list(texts) == ["90", "95", "100", "0", "5", "10"]
    assert float(texts["10"].get("x", "0")) == FRAME.across(10)
    assert abs(float(texts["95"].get("y", "0")) - FRAME.up(95)) < 8


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([90.0, 92.0], ["90", "92"]),
        ([0.94, 0.96, 0.98], ["0.94", "0.96", "0.98"]),
        ([-2.5, 0.0, 2.5], ["-2.5", "0.0", "2.5"]),
    ],
)
def test_ticks_are_written_with_the_decimals_they_need(ticks: list[float], texts: list[str]) -> None:
    assert svg.tick_texts(ticks) == texts


def test_texts_of_the_x_axis_leave_room_to_each_other() -> None:
    drawn = svg.x_ticks([(float(x), "1000") for x in range(0, 200, 10)], 100)
    places = [float(found) for part in drawn for found in re.findall(r'<text x="([\d.]+)"', part)]
    assert len(places) > 2 and min(b - a for a, b in pairwise(places)) >= 36
    assert sum("<path" in part for part in drawn) == 20, "a tick without text is still a tick"


def test_a_standalone_file_has_its_style_its_ground_and_its_size() -> None:
    root = ET.fromstring(svg.standalone(NAMES, 300, 150, [svg.text(0, 0, "hello")]))
    style = root.find(f"{SVG}style")
    assert style is not None and svg.STYLE.strip() in (style.text or "")
    assert "prefers-color-scheme:dark" in (style.text or "")
    box = [float(part) for part in (root.get("viewBox") or "").split()]
    assert [float(root.get(name, "0")) for name in ("width", "height")] == box[2:]
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert [float(ground.get(name, "0")) for name in ("x", "y", "width", "height")] == box
    assert box[0] < 0 and box[0] + box[2] > 300, "there is a margin around what is drawn"


def test_a_drawing_for_a_page_leaves_style_and_size_to_the_page() -> None:
    root = ET.fromstring(svg.drawing(NAMES, 300, 150, []))
    assert root.find(f"{SVG}style") is None
    assert (root.get("viewBox"), root.get("width")) == ("0 0 300 150", None)


def test_what_a_drawing_names_itself_by_is_in_it() -> None:
    for text in (svg.drawing(NAMES, 300, 150, []), svg.standalone(NAMES, 300, 150, [])):
        root = ET.fromstring(text)
        ids = {element.get("id"): element.text for element in root if element.get("id")}
        assert [ids[name] for name in (root.get("aria-labelledby") or "").split()] == ["a title", "what it shows"]


@given(st.text(max_size=60) | st.just(HOSTILE))
def test_any_text_stays_text(text: str) -> None:
    parts = [svg.text(0, 0, text), FRAME.clipped(text, [svg.marker(1, 60, 30)])]
    root = ET.fromstring(svg.standalone(Names(text, text, text), 300, 150, parts))
    known = ["svg", "title", "desc", "style", "rect", "text", "clipPath", "rect", "g", "path"]
    assert [element.tag.removeprefix(SVG) for element in root.iter()] == known


def test_clipping_leaves_the_frame_and_the_markers_on_its_edges() -> None:
    root = ET.fromstring(svg.drawing(NAMES, 300, 150, [FRAME.clipped("inside", [svg.marker(1, 50, 20)])]))
    area = root.find(f"{SVG}clipPath/{SVG}rect")
    group = root.find(f"{SVG}g")
    assert area is not None and group is not None
    assert group.get("clip-path") == "url(#inside)"
    x, y, width, height = (float(area.get(name, "0")) for name in ("x", "y", "width", "height"))
    assert x <= 50 - 5 and y <= 20 - 5 and x + width >= 250 + 5 and y + height >= 120 + 5
    assert width < 300 and height < 150
