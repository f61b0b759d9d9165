"""Two plots as SVG text: ratios over a log2 axis, and samples as strips. They need ``STYLE`` on their page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sait_deploy.bench.markup import escape_html, shorten

TONES: Final = 6
"""Colours besides tone 0, the neutral one of the baseline; tones above repeat them with another marker."""

STYLE: Final = """
:root{--paper:#fff;--ink:#1b1f24;--muted:#57606a;--rule:#d8dee4;
--t0:#57606a;--t1:#1f6fb4;--t2:#b3500a;--t3:#24774a;--t4:#8a3fa0;--t5:#b0304f;--t6:#6b6300}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6eaef;--muted:#9aa5b1;--rule:#323a44;
--t0:#9aa5b1;--t1:#6db3f2;--t2:#f5a15a;--t3:#6fcf97;--t4:#c99be0;--t5:#f28ba0;--t6:#d3c65a}}
.t0{--tone:var(--t0)}.t1{--tone:var(--t1)}.t2{--tone:var(--t2)}.t3{--tone:var(--t3)}
.t4{--tone:var(--t4)}.t5{--tone:var(--t5)}.t6{--tone:var(--t6)}
.plot{display:block;width:100%;height:auto;overflow:visible;font:14px system-ui,sans-serif}
.plot text{fill:var(--ink)}.plot .soft{fill:var(--muted)}.plot .end{text-anchor:end}.plot .mid{text-anchor:middle}
.plot .strong{font-weight:600}.plot path{fill:none}.plot .grid{stroke:var(--rule)}
.plot .unity{stroke:var(--t0);stroke-width:2}.plot .line{stroke:var(--tone);stroke-width:2}
.plot .dash{stroke:var(--tone);stroke-width:1.5;stroke-dasharray:6 5;opacity:.8}
.plot path.mark{fill:var(--tone);stroke:var(--paper)}.plot .band{fill:var(--tone);opacity:.18}
.plot .dots{stroke:var(--tone);stroke-width:3.2;stroke-linecap:round;opacity:.75}
.plot .median{stroke:var(--ink);stroke-width:2.5}
"""

_WIDTH: Final = 480
_LEFT: Final = 42
_RIGHT: Final = 12
_LEGEND_STEP: Final = 22
_MOST_DOTS: Final = 200
_NO_SPAN: Final = 1e-9


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
        tone: its colour, see ``TONES``.
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


def tone_class(tone: int) -> str:
    """Returns the CSS class that gives its element the tone's colour as ``--tone``."""
    return f"t{0 if tone == 0 else (tone - 1) % TONES + 1}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about ``count`` round numbers in even steps, the first at or below low, the last at or above high."""
    size = max(abs(low), abs(high), _NO_SPAN)
    if high - low <= _NO_SPAN * size:
        low, high = low - 0.5 * size, high + 0.5 * size
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    step = ticks[1] - ticks[0]
    decimals = next((d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 7)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _text(x: float, y: float, text: str, classes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape_html(text)}</text>'


def _path(d: str, classes: str) -> str:
    return f'<path d="{d}" class="{classes}"/>'


def _polyline(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _svg(ident: str, title: str, desc: str, height: float, parts: Sequence[str]) -> str:
    ident = escape_html(ident)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-labelledby="{ident}-title {ident}-desc"><title id="{ident}-title">{escape_html(title)}</title>'
        f'<desc id="{ident}-desc">{escape_html(desc)}</desc>'
    )
    return "\n".join([head, *parts, "</svg>"])


def _marker(tone: int, x: float, y: float) -> str:
    """Draws a shape that differs between neighbouring tones, so that colour is not needed to tell them apart."""
    shapes = (
        "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
        "m-4.2 -4.2h8.4v8.4h-8.4z",
        "m0 -5.4l5.2 9h-10.4z",
        "m0 -5.8l5.4 5.8l-5.4 5.8l-5.4 -5.8z",
        "m-5.2 -3.6h10.4l-5.2 9z",
    )
    return f'<path d="M{x:.1f} {y:.1f}{shapes[(tone - 1) % len(shapes)]}" class="mark"/>'


def _series(tone: int, at: Sequence[tuple[float, float, float, float]], dashed: Sequence[tuple[float, float]]) -> str:
    """Draws one series from (x, y, y of the low end, y of the high end), all in the plot's own units."""
    parts = [_path(_polyline(dashed), "dash")] if dashed else []
    parts.append(_path(_polyline((x, y) for x, y, _, _ in at), "line"))
    for x, _, low, high in at:
        parts.append(_path(f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8", "line"))
    parts += [_marker(tone, x, y) for x, y, _, _ in at]
    return f'<g class="{tone_class(tone)}">{"".join(parts)}</g>'


def _legend(series: Sequence[Series], unity: str, top: float) -> list[str]:
    """Draws one line of text per series and one for the ratio of 1."""
    parts, y = [], top
    for one in series:
        swatch = _path(f"M{_LEFT} {y - 5:.1f}h30", "line") + _marker(one.tone, _LEFT + 15, y - 5)
        parts.append(f'<g class="{tone_class(one.tone)}">{swatch}</g>' + _text(_LEFT + 40, y, shorten(one.legend, 52)))
        y += _LEGEND_STEP
    parts.append(_path(f"M{_LEFT} {y - 5:.1f}h30", "unity") + _text(_LEFT + 40, y, shorten(unity, 52)))
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

    parts = [_text(0, 16, y_label, "soft")]
    for tick, text in zip(ticks, _tick_texts(ticks), strict=True):
        parts.append(_path(f"M{_LEFT} {up(tick):.1f}H{right}", "grid"))
        parts.append(_text(_LEFT - 8, up(tick) + 5, text, "end soft"))
    parts += _x_ticks([(across(x), f"{x:g}") for x in xs], bottom)
    parts.append(_text((_LEFT + right) / 2, bottom + 42, x_label, "mid soft"))
    parts.append(_path(f"M{_LEFT} {up(1):.1f}H{right}", "unity"))
    for position, one in enumerate(series):
        # Side by side, or the whiskers of one batch size would cover each other.
        shift = (position - (len(series) - 1) / 2) * min(7.0, 28.0 / len(series))
        at = [(across(p.x) + shift, up(p.y), up(p.low), up(p.high)) for p in one.points]
        dashed = [(across(x), up(y)) for x, y in one.reference]
        if dashed:
            dashed = [(_LEFT, dashed[0][1]), *dashed, (right, dashed[-1][1])]
        parts.append(_series(one.tone, at, dashed))
    parts += _legend(series, unity, bottom + 70)
    return _svg(ident, title, desc, bottom + 78 + len(series) * _LEGEND_STEP, parts)


def _x_ticks(places: Sequence[tuple[float, str]], bottom: float) -> list[str]:
    """Draws a tick at every place, and its text where that leaves room to the one before."""
    parts, free = [], -math.inf
    for x, text in places:
        parts.append(_path(f"M{x:.1f} {bottom:.1f}v5", "grid"))
        half = 4.5 * len(text)
        if x - half > free:
            parts.append(_text(x, bottom + 21, text, "mid soft"))
            free = x + half + 4
    return parts


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
        + _path(drawn, "dots")
        + _path(f"M{across(strip.p50):.1f} {top - 2:.1f}v{height + 4:.0f}", "median")
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
    if high - low <= _NO_SPAN * high:
        low, high = 0.9 * low, 1.1 * high
    ticks = nice_ticks(low, high)

    def across(x: float) -> float:
        return 10 + (min(x, high) - low) / (high - low) * (_WIDTH - 20)

    parts, marks, y = [], [_text(0, 16, x_label, "soft")], 34.0
    for group in groups:
        marks.append(_text(0, y + 14, shorten(group.heading, 58), "strong"))
        y += 24
        for strip in group.strips:
            beyond = sum(sample > high for sample in strip.samples)
            value = f"{strip.value} · {beyond} beyond ›" if beyond else strip.value
            marks.append(_text(0, y + 12, shorten(strip.label, 52 - len(value)), "soft"))
            marks.append(_text(_WIDTH, y + 12, value, "end"))
            marks.append(_strip(strip, [(i, across(x)) for i, x in _drawn(strip.samples)], across, y + 18))
            y += 44
        y += 8
    for tick, text in zip(ticks, _tick_texts(ticks), strict=True):
        if not low <= tick <= high:
            continue
        x = across(tick)
        parts.append(_path(f"M{x:.1f} 34V{y:.1f}", "grid"))
        marks.append(_text(x, y + 17, text, "mid soft"))
    return _svg(ident, title, desc, y + 24, parts + marks)
