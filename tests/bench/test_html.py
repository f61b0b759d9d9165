"""The HTML page: well-formed, self-contained, complete, and safe whatever the report's text is."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.bench.cells import HEADINGS, cells
from sait_deploy.bench.html import to_html
from sait_deploy.bench.plot import Point, Series, Strip, StripGroup, nice_ticks, ratio_plot, strip_plot, tone_class
from sait_deploy.bench.results import Report, RuntimeInfo
from sait_deploy.reports.table import Note, Severity
from tests.bench.sample import BATCHES, make_report

REPORT = make_report()
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "wbr"}
HOSTILE = "<script>alert('x')</script> & \"q\" ]]> \x00 </style>"


class Page(HTMLParser):
    """Checks that elements nest, and gathers tags, attributes and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def text(self) -> str:
        """Returns everything a reader sees, without the style sheet."""
        return " ".join(data for tag, data in self.texts if tag != "style")


def drawings(page: str) -> list[ET.Element]:
    """Parses the page's SVG elements as XML."""
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def shown(svg: ET.Element) -> list[str]:
    """Returns the texts drawn, title and description aside."""
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def with_text(text: str) -> Report:
    """Returns the sample report with a text wherever a report has any."""
    variants = tuple(
        dataclasses.replace(variant, label=f"{text}{index}", runtime=text, model_sha256=text)
        for index, variant in enumerate(REPORT.variants)
    )
    return dataclasses.replace(
        REPORT,
        variants=variants,
        model=text,
        runtimes=(RuntimeInfo(text, {text: text}),),
        created=text,
        environment={text: text},
        options={text: text},
        notes=(Note(text), Note(text, Severity.WARNING)),
    )


def test_the_page_is_one_self_contained_file() -> None:
    page = to_html(REPORT)
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(parsed.tags)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in parsed.attributes}
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_serves_light_dark_and_small_screens() -> None:
    page = to_html(REPORT)
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    used = set(re.findall(r"var\((--\w+(?:-\w+)*)\)", style[1]))
    assert used == set(re.findall(r"(--\w+(?:-\w+)*):", style[1]))


def test_every_row_stands_in_the_table_baseline_first() -> None:
    page = to_html(REPORT)
    (found,) = re.findall(r"<table>.*</table>", page, re.DOTALL)
    root = ET.fromstring(found)
    assert ["".join(cell.itertext()) for cell in root.findall("thead/tr/th")] == list(HEADINGS)
    bodies = root.findall("tbody")
    assert len(bodies) == len(BATCHES)
    baseline = REPORT.variants[1]
    for batch, body in zip(BATCHES, bodies, strict=True):
        lines = [["".join(cell.itertext()) for cell in line] for line in body]
        order = (baseline, REPORT.variants[0], REPORT.variants[2])
        rows = [next(r for r in REPORT.rows if (r.batch, r.variant) == (batch, v.id)) for v in order]
        wanted = [list(cells(row, variant, baseline)) for row, variant in zip(rows, order, strict=True)]
        assert [wanted[0], *(line[1:] for line in wanted[1:])] == lines
        assert body[0].get("class") == "baseline"


def test_warnings_come_before_other_notes_and_both_before_the_figures() -> None:
    text = Page(to_html(REPORT)).text()
    places = [text.index(part) for part in ("it ran on another provider", "density 0.6 is faster from", "Speed-up")]
    assert places == sorted(places)


def test_environment_options_and_hashes_are_there() -> None:
    text = Page(to_html(REPORT)).text()
    for wanted in ("processor", "two cores", "rounds", "20", *(variant.model_sha256 for variant in REPORT.variants)):
        assert wanted in text


def test_both_drawings_name_and_describe_themselves() -> None:
    svgs = drawings(to_html(REPORT))
    assert len(svgs) == 2
    for svg in svgs:
        labels = [element.get("id") for element in svg if element.tag in (f"{SVG}title", f"{SVG}desc")]
        assert (svg.get("aria-labelledby") or "").split() == labels
        assert all(element.text for element in svg if element.tag in (f"{SVG}title", f"{SVG}desc"))


def test_the_speed_up_drawing_shows_every_batch_and_every_pruned_variant() -> None:
    ratio, _ = drawings(to_html(REPORT))
    texts = shown(ratio)
    assert [text for text in texts if text in map(str, BATCHES)] == list(map(str, BATCHES))
    for label, mac_ratio in (("density 0.6", "1.44"), ("density 0.5", "1.61")):
        assert f"{label} (dashed: MAC ratio {mac_ratio})" in texts
    marks = [element for element in ratio.iter(f"{SVG}path") if element.get("class") == "mark"]
    assert len(marks) == 2 * (len(BATCHES) + 1)


def test_the_sample_drawing_has_a_dot_per_round_and_every_median() -> None:
    _, strips = drawings(to_html(REPORT))
    dots = [element for element in strips.iter(f"{SVG}path") if element.get("class") == "dots"]
    assert [(dot.get("d") or "").count("h0") for dot in dots] == [len(REPORT.rows[0].seconds)] * len(REPORT.rows)
    assert [text for text in shown(strips) if text.startswith("Batch ")] == [f"Batch {batch}" for batch in BATCHES]
    assert sum(text.endswith(" ms") for text in shown(strips)) == len(REPORT.rows)


def test_a_report_of_dense_alone_has_no_speed_up_to_draw() -> None:
    rows = tuple(row for row in REPORT.rows if row.variant == "dense")
    page = to_html(dataclasses.replace(REPORT, variants=REPORT.variants[1:2], rows=rows, notes=()))
    Page(page)
    assert len(drawings(page)) == 1


def test_hostile_text_stays_text() -> None:
    page = to_html(with_text(HOSTILE))
    parsed = Page(page)
    assert parsed.tags == Page(to_html(with_text("plain"))).tags
    assert "<script" not in page
    assert "alert('x')" in parsed.text()
    assert len(drawings(page)) == 2


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=80))
def test_any_text_leaves_page_and_drawings_well_formed(text: str) -> None:
    page = to_html(with_text(text))
    assert "script" not in Page(page).tags
    assert len(drawings(page)) == 2


BOX = re.compile(r"[MHV](-?[\d.]+)(?: (-?[\d.]+))?")


def inside(svg: ET.Element) -> bool:
    """Whether texts start, and paths move, inside the drawing's own box."""
    width, height = (float(part) for part in (svg.get("viewBox") or "").split()[2:])
    places = [(float(e.get("x", "0")), float(e.get("y", "0"))) for e in svg.iter(f"{SVG}text")]
    for element in svg.iter(f"{SVG}path"):
        moves = re.findall(r"M(-?[\d.]+) (-?[\d.]+)", element.get("d") or "")
        places += [(float(x), float(y)) for x, y in moves]
    return all(-1 <= x <= width + 1 and -1 <= y <= height + 1 for x, y in places)


RATIO = st.floats(0.05, 20)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.integers(1, 4096), st.lists(RATIO, min_size=4, max_size=4), min_size=1, max_size=8), RATIO)
def test_ratios_of_any_size_stay_inside_the_drawing(points: dict[int, list[float]], reference: float) -> None:
    series = []
    for tone in (1, 2, 9):
        line = [(float(x), *sorted(ys[:3])) for x, ys in sorted(points.items())]
        made = tuple(Point(x, median, low, high) for x, low, median, high in line)
        series.append(Series(f"series {tone}", tone, made, tuple((x, reference) for x, *_ in line)))
    svg = ET.fromstring(ratio_plot(series, ident="a", title="t", desc="d", x_label="x", y_label="y", unity="one"))
    assert inside(svg)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=250), min_size=1, max_size=3))
def test_samples_of_any_size_stay_inside_the_drawing(sets: list[list[float]]) -> None:
    strips = tuple(
        Strip(
            f"s{i}", "1 ms", i, tuple(s), sorted(s)[len(s) // 10], sorted(s)[len(s) // 2], sorted(s)[len(s) * 9 // 10]
        )
        for i, s in enumerate(sets)
    )
    svg = ET.fromstring(strip_plot([StripGroup("g", strips)], ident="a", title="t", desc="d", x_label="x"))
    assert inside(svg)
    dots = [(e.get("d") or "").count("h0") for e in svg.iter(f"{SVG}path") if e.get("class") == "dots"]
    assert dots == [min(200, len(samples)) for samples in sets]


def test_samples_beyond_the_axis_are_counted() -> None:
    samples = (1.0,) * 30 + (7.0, 9.0)
    strip = Strip("dense", "42.0 ms", 0, samples, 1.0, 1.0, 1.0)
    svg = ET.fromstring(strip_plot([StripGroup("g", (strip,))], ident="a", title="t", desc="d", x_label="x"))
    assert "42.0 ms · 2 beyond ›" in shown(svg)


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_ticks_are_even_and_enclose_the_values(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    steps = [b - a for a, b in pairwise(ticks)]
    assert ticks[0] <= low + 1e-6 * steps[0]
    assert ticks[-1] >= low + span - 1e-6 * steps[0]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert 2 <= len(ticks) <= 9


def test_tone_zero_is_the_baselines_alone() -> None:
    assert [tone_class(tone) for tone in range(9)] == ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t1", "t2"]
