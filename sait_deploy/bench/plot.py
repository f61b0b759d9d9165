"""Two plots as SVG text: ratios over a log2 axis, and samples as strips. They need ``STYLE`` on their page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sait_deploy.reports import svg
from sait_deploy.reports.escape import shorten
from sait_deploy.reports.svg import NO_SPAN, STYLE, Names, nice_ticks, tick_texts, tone_class

__all__ = [
    "STYLE",
    "Point",
    "Series",
    "Strip",
    "StripGroup",
    "nice_ticks",
    "ratio_plot",
    "strip_plot",
    "tone_class",
]

_WIDTH: Final = 480
_LEFT: Final = 42
_RIGHT: Final = 12
_LEGEND_STEP: Final = 22
_MOST_DOTS: Final = 200


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """A line of points in ascending x.

    Attributes:
        legend: its text below the plot.
        tone: its colour, see ``sait_deploy.reports.svg.TONES``.
        points: at least one.
        reference: (x, y) of a dashed line of the same colour.
    """

    legend: str
    tone: int
    points: tuple[Point, ...]
    reference: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """Samples in the order they were taken, drawn from top to bottom.

    Attributes:
        label: text above the strip, at the left.
        value: text above the strip, at the right.
        tone: its colour.
        samples: positions on the x axis; at least one.
        p10: where the band of the middle 80 % begins.
        p50: where the median stands.
        p90: where the band ends.
    """

    label: str
    value: str
    tone: int
    samples: tuple[float, ...]
    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class StripGroup:
    """Strips under one heading."""

    heading: str
    strips: tuple[Strip, ...]


def _series(tone: int, at: Sequence[tuple[float, float, float, float]], dashed: Sequence[tuple[float, float]]) -> str:
    """Draws one series from (x, y, y of the low end, y of the high end), all in the plot's own units."""
    parts = [svg.path(svg.polyline(dashed), "dash")] if dashed else []
    parts.append(svg.path(svg.polyline((x, y) for x, y, _, _ in at), "line"))
    parts += [svg.whisker(x, low, high) for x, _, low, high in at]
    parts += [svg.marker(tone, x, y) for x, y, _, _ in at]
    return f'<g class="{tone_class(tone)}">{"".join(parts)}</g>'


def _legend(series: Sequence[Series], unity: str, top: float) -> list[str]:
    """Draws one line of text per series and one for the ratio of 1."""
    parts, y = [], top
    for one in series:
        parts.append(svg.key(one.tone, _LEFT, y - 5) + svg.text(_LEFT + 40, y, shorten(one.legend, 52)))
        y += _LEGEND_STEP
    parts.append(svg.path(f"M{_LEFT} {y - 5:.1f}h30", "unity") + svg.text(_LEFT + 40, y, shorten(unity, 52)))
    return parts


def ratio_plot(
    series: Sequence[Series], *, ident: str, title: str, desc: str, x_label: str, y_label: str, unity: str
) -> str:
    """Draws ratios with whiskers over a log2 axis, and a line at 1.

    Args:
        series: at least one, with positive x.
        ident: prefix of the element ids, unique on the page.
        title: the accessible name.
        desc: the accessible description.
        x_label: text below the x axis.
        y_label: text above the y axis.
        unity: what a ratio of 1 stands for, in the legend.
    """
    ys = [1.0]
    for one in series:
        ys += [end for point in one.points for end in (point.low, point.high)] + [y for _, y in one.reference]
    ticks = nice_ticks(min(ys), max(ys))
    top, bottom, right = 34.0, 274.0, _WIDTH - _RIGHT
    xs = sorted({point.x for one in series for point in one.points})
    first, last = math.log2(xs[0]), math.log2(xs[-1])
    inset = 24.0

    def across(x: float) -> float:
        share = 0.5 if last == first else (math.log2(x) - first) / (last - first)
        return _LEFT + inset + share * (right - _LEFT - 2 * inset)

    def up(y: float) -> float:
        return bottom - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)

    parts = [svg.text(0, 16, y_label, "soft")]
    parts += svg.y_grid(ticks, up, _LEFT, right)
    parts += svg.x_ticks([(across(x), f"{x:g}") for x in xs], bottom)
    parts.append(svg.text((_LEFT + right) / 2, bottom + 42, x_label, "mid soft"))
    parts.append(svg.path(f"M{_LEFT} {up(1):.1f}H{right}", "unity"))
    for position, one in enumerate(series):
        # Side by side, or the whiskers of one batch size would cover each other.
        shift = (position - (len(series) - 1) / 2) * min(7.0, 28.0 / len(series))
        at = [(across(p.x) + shift, up(p.y), up(p.low), up(p.high)) for p in one.points]
        dashed = [(across(x), up(y)) for x, y in one.reference]
        if dashed:
            dashed = [(_LEFT, dashed[0][1]), *dashed, (right, dashed[-1][1])]
        parts.append(_series(one.tone, at, dashed))
    parts += _legend(series, unity, bottom + 70)
    return svg.drawing(Names(ident, title, desc), _WIDTH, bottom + 78 + len(series) * _LEGEND_STEP, parts)


def _drawn(samples: Sequence[float]) -> list[tuple[int, float]]:
    """Returns (index, sample) of all samples, or of 200 evenly spaced by rank: the extremes are always there."""
    ranked = sorted(enumerate(samples), key=lambda pair: pair[1])
    if len(ranked) <= _MOST_DOTS:
        return ranked
    return [ranked[round(k * (len(ranked) - 1) / (_MOST_DOTS - 1))] for k in range(_MOST_DOTS)]


def _strip(strip: Strip, dots: Sequence[tuple[int, float]], across: Callable[[float], float], top: float) -> str:
    height, last = 20.0, max(1, len(strip.samples) - 1)
    left, width = across(strip.p10), across(strip.p90) - across(strip.p10)
    drawn = "".join(f"M{x:.1f} {top + 3 + (height - 6) * i / last:.1f}h0" for i, x in dots)
    return (
        f'<g class="{tone_class(strip.tone)}">'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(width, 1):.1f}" height="{height:.0f}" class="band"/>'
        + svg.path(drawn, "dots")
        + svg.path(f"M{across(strip.p50):.1f} {top - 2:.1f}v{height + 4:.0f}", "median")
        + "</g>"
    )


def strip_plot(groups: Sequence[StripGroup], *, ident: str, title: str, desc: str, x_label: str) -> str:
    """Draws samples as dots, a strip for each set, grouped: first sample at a strip's top, last at its bottom.

    The axis ends at 1.2 times the slowest p90 where samples lie beyond it: they stand at its end and are counted in the
    strip's text.

    Args:
        groups: at least one, with at least one strip each.
        ident: prefix of the element ids, unique on the page.
        title: the accessible name.
        desc: the accessible description.
        x_label: text above the axis.
    """
    strips = [strip for group in groups for strip in group.strips]
    low = min(min(strip.samples) for strip in strips)
    high = min(max(max(strip.samples) for strip in strips), 1.2 * max(strip.p90 for strip in strips))
    if high - low <= NO_SPAN * high:
        low, high = 0.9 * low, 1.1 * high
    ticks = nice_ticks(low, high)

    def across(x: float) -> float:
        return 10 + (min(x, high) - low) / (high - low) * (_WIDTH - 20)

    parts, marks, y = [], [svg.text(0, 16, x_label, "soft")], 34.0
    for group in groups:
        marks.append(svg.text(0, y + 14, shorten(group.heading, 58), "strong"))
        y += 24
        for strip in group.strips:
            beyond = sum(sample > high for sample in strip.samples)
            value = f"{strip.value} · {beyond} beyond ›" if beyond else strip.value
            marks.append(svg.text(0, y + 12, shorten(strip.label, 52 - len(value)), "soft"))
            marks.append(svg.text(_WIDTH, y + 12, value, "end"))
            marks.append(_strip(strip, [(i, across(x)) for i, x in _drawn(strip.samples)], across, y + 18))
            y += 44
        y += 8
    for tick, words in zip(ticks, tick_texts(ticks), strict=True):
        if not low <= tick <= high:
            continue
        x = across(tick)
        parts.append(svg.path(f"M{x:.1f} 34V{y:.1f}", "grid"))
        marks.append(svg.text(x, y + 17, words, "mid soft"))
    return svg.drawing(Names(ident, title, desc), _WIDTH, y + 24, parts + marks)
