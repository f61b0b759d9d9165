"""How adaptive rows and flips are shown: in the terminal, in Markdown and in HTML, and what of them JSON keeps."""

from __future__ import annotations

import dataclasses
import io
import re
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from sait_deploy.bench.cells import cells, kept_text
from sait_deploy.bench.html import to_html
from sait_deploy.bench.report import from_json, tables, to_json, to_markdown
from tests.bench.sample import ADAPTIVE, make_adaptive_report

REPORT = make_adaptive_report()
BASELINE = REPORT.variants[0]
SHOWN = [cells(row, next(v for v in REPORT.variants if v.id == row.variant), BASELINE) for row in REPORT.rows]
MOVED = "mass 0.95, of 48 images, kept sets and answers differ: 4.2 % and 0.0 % between batch 1 and 8"
STEADY = "no kept set and no answer of 48 images differs between batch 1 and 8: kept 105 ± 25"


def terminal(columns: int) -> str:
    out = io.StringIO()
    Console(file=out, width=columns, color_system=None).print(*tables(REPORT, columns=columns))
    return out.getvalue()


def test_kept_tokens_are_three_figures_where_images_differ_and_one_where_not() -> None:
    row = REPORT.rows[1]
    three = dataclasses.replace(row, kept_mean=98.44, kept_p95=121.0, kept_max=153)
    assert kept_text(three) == "98.4 / 121 / 153"
    assert kept_text(dataclasses.replace(row, kept_mean=87.0, kept_p95=87.0, kept_max=87)) == "87"
    assert kept_text(dataclasses.replace(row, kept_mean=86.9, kept_p95=87.0, kept_max=87)) == "86.9 / 87 / 87"


def test_a_wide_table_has_a_line_for_every_point() -> None:
    lines = terminal(160).splitlines()
    for found in SHOWN:
        (line,) = [line for line in lines if found.variant in line and found.p50 in line.split()]
        assert f" {found.kept} " in line
        assert f" {found.gmacs} " in line
        assert f" {found.speedup} " in line


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_no_figure_of_a_point_is_cut_or_broken_at_any_width(columns: int) -> None:
    text = terminal(columns)
    assert max(map(len, text.splitlines())) <= columns
    for found in SHOWN:
        parts = [*found.kept.split(" / "), found.gmacs, found.p50, found.p99, found.images, found.mac_ratio]
        for part in parts:
            assert re.search(rf"(?<!\S){re.escape(part)}(?!\S)", text), part


def test_forced_counts_show_no_accuracy_and_a_point_its_difference() -> None:
    by_variant = {found.variant: found.accuracy for found in SHOWN}
    assert by_variant == {"dense": "79.0", "mass 0.95": "79.0 (±0.0)", "kept 105 ± 25": "–"}


def test_markdown_has_a_row_for_every_point_and_the_flips_as_notes() -> None:
    text = to_markdown(REPORT)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [[cell.replace("\\", "") for cell in row] for row in rows[2:]] == [list(found) for found in SHOWN]
    assert f"- {MOVED}\n- {STEADY}\n" in text


def test_html_has_a_row_for_every_point_and_the_flips_as_notes() -> None:
    page = to_html(REPORT)
    (found,) = re.findall(r"<table>.*</table>", page, re.DOTALL)
    lines = [["".join(cell.itertext()) for cell in line] for line in ET.fromstring(found).findall("tbody/tr")]
    wanted = [list(shown) if shown.variant == "dense" else list(shown[1:]) for shown in SHOWN]
    assert lines == wanted
    assert f"<li>{MOVED}</li><li>{STEADY}</li>" in page


def test_html_draws_every_point_with_the_range_of_its_mac_ratio() -> None:
    ratio, strips = (ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", to_html(REPORT), re.DOTALL))
    texts = [text for svg in (ratio, strips) for text in svg.itertext()]
    for label in list(ADAPTIVE.values())[1:]:
        ratios = sorted(row.mac_ratio for row in REPORT.rows if ADAPTIVE[row.variant] == label)
        assert f"{label} (dashed: MAC ratio {ratios[0]:.2f}–{ratios[-1]:.2f})" in texts


def test_json_keeps_points_and_flips() -> None:
    back = from_json(to_json(REPORT))
    assert (back.variants, back.flips, back.notes) == (REPORT.variants, REPORT.flips, REPORT.notes)
    assert [(row.batches, row.macs) for row in back.rows] == [(row.batches, row.macs) for row in REPORT.rows]
