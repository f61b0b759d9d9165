"""What every plot is drawn with, as SVG text: shapes, ticks and colours. Drawings need ``STYLE`` on their page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sait_deploy.reports.escape import escape_html

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

NO_SPAN: Final = 1e-9
"""Values closer to each other than this share of their size count as one."""

# What a drawing needs beyond ``STYLE`` where it is a file of its own: a ground to stand on, and a size.
_ALONE: Final = """
:root{color-scheme:light dark}
.plot .paper{fill:var(--paper)}
.plot .tag{fill:var(--tone);font-size:12px;stroke:var(--paper);stroke-width:3;paint-order:stroke}
.plot .thin{stroke:var(--tone)}
"""
_PADDING: Final = 16

# Neighbouring tones differ in shape, so that colour is not needed to tell them apart.
_MARKERS: Final = (
    "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "m-4.2 -4.2h8.4v8.4h-8.4z",
    "m0 -5.4l5.2 9h-10.4z",
    "m0 -5.8l5.4 5.8l-5.4 5.8l-5.4 -5.8z",
    "m-5.2 -3.6h10.4l-5.2 9z",
)


@dataclass(frozen=True, slots=True)
class Names:
    """How a drawing names itself to those who do not see it.

    Attributes:
        ident: prefix of its element ids, unique on the page.
        title: its name.
        desc: what it shows, in words.
    """

    ident: str
    title: str
    desc: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle of a plot whose axes are linear, and end at their outermost ticks.

    Attributes:
        left: x of its left edge; texts of the y axis stand before it.
        right: of the right one.
        top: y of its upper edge.
        bottom: of the lower one; texts of the x axis stand below it.
        x_ticks: at least two, ascending.
        y_ticks: at least two, ascending, in even steps.
    """

    left: float
    right: float
    top: float
    bottom: float
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def across(self, x: float) -> float:
        """Returns where a value of the x axis stands."""
        first, last = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (x - first) / (last - first) * (self.right - self.left)

    def up(self, y: float) -> float:
        """Returns where a value of the y axis stands."""
        first, last = self.y_ticks[0], self.y_ticks[-1]
        return self.bottom - (y - first) / (last - first) * (self.bottom - self.top)

    def axes(self) -> list[str]:
        """Draws the lines and texts of both axes."""
        texts = tick_texts(self.x_ticks)
        places = [(self.across(x), words) for x, words in zip(self.x_ticks, texts, strict=True)]
        return [*y_grid(self.y_ticks, self.up, self.left, self.right), *x_ticks(places, self.bottom)]

    def clipped(self, ident: str, parts: Sequence[str]) -> str:
        """Draws parts, and of them only what lies inside; the id is unique on the page."""
        # Wide enough for the markers of points on an edge.
        x, y, margin = self.left - 6, self.top - 6, 12
        width, height = self.right - self.left + margin, self.bottom - self.top + margin
        area = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        name = escape_html(ident)
        return f'<clipPath id="{name}">{area}</clipPath><g clip-path="url(#{name})">{"".join(parts)}</g>'


def tone_class(tone: int) -> str:
    """Returns the CSS class that gives its element the tone's colour as ``--tone``."""
    return f"t{0 if tone == 0 else (tone - 1) % TONES + 1}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about ``count`` round numbers in even steps, the first at or below low, the last at or above high."""
    size = max(abs(low), abs(high), NO_SPAN)
    if high - low <= NO_SPAN * size:
        low, high = low - 0.5 * size, high + 0.5 * size
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Writes ticks in even steps with as many decimals as their step needs."""
    step = ticks[1] - ticks[0]
    decimals = next((d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 7)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def text(x: float, y: float, words: str, classes: str = "") -> str:
    """Draws text, escaped, from (x, y) on its base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape_html(words)}</text>'


def path(d: str, classes: str) -> str:
    """Draws a path."""
    return f'<path d="{d}" class="{classes}"/>'


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Returns the path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def marker(tone: int, x: float, y: float) -> str:
    """Draws a tone's shape around a point."""
    return f'<path d="M{x:.1f} {y:.1f}{_MARKERS[(tone - 1) % len(_MARKERS)]}" class="mark"/>'


def whisker(x: float, low: float, high: float, classes: str = "line") -> str:
    """Draws an interval upright, from the y of its low end to that of its high end."""
    return path(f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8", classes)


def key(tone: int, x: float, y: float) -> str:
    """Draws a piece of a series' line, 30 wide, with its marker: what stands before its name in a legend."""
    swatch = path(f"M{x:g} {y:.1f}h30", "line") + marker(tone, x + 15, y)
    return f'<g class="{tone_class(tone)}">{swatch}</g>'


def x_ticks(places: Sequence[tuple[float, str]], bottom: float) -> list[str]:
    """Draws a tick at every place, and its text where that leaves room to the one before."""
    parts, free = [], -math.inf
    for x, words in places:
        parts.append(path(f"M{x:.1f} {bottom:.1f}v5", "grid"))
        half = 4.5 * len(words)
        if x - half > free:
            parts.append(text(x, bottom + 21, words, "mid soft"))
            free = x + half + 4
    return parts


def y_grid(ticks: Sequence[float], up: Callable[[float], float], left: float, right: float) -> list[str]:
    """Draws a line across the plot at every tick, with its text at the left; ``up`` gives a value's y."""
    parts = []
    for tick, words in zip(ticks, tick_texts(ticks), strict=True):
        parts.append(path(f"M{left:g} {up(tick):.1f}H{right:g}", "grid"))
        parts.append(text(left - 8, up(tick) + 5, words, "end soft"))
    return parts


def drawing(names: Names, width: float, height: float, parts: Sequence[str]) -> str:
    """Puts parts together to a drawing that stands in a page with ``STYLE``."""
    return _svg(names, f'viewBox="0 0 {width:.0f} {height:.0f}"', parts)


def standalone(names: Names, width: float, height: float, parts: Sequence[str]) -> str:
    """Puts parts together to a file of its own: with its style, a ground in light and in dark, and a margin."""
    left, wide, high = -_PADDING, width + 2 * _PADDING, height + 2 * _PADDING
    size = f".plot{{width:{wide:.0f}px;max-width:100%}}"
    ground = f'<rect x="{left}" y="{left}" width="{wide:.0f}" height="{high:.0f}" class="paper"/>'
    attributes = f'width="{wide:.0f}" height="{high:.0f}" viewBox="{left} {left} {wide:.0f} {high:.0f}"'
    return _svg(names, attributes, [f"<style>{STYLE}{_ALONE}{size}</style>", ground, *parts]) + "\n"


def _svg(names: Names, attributes: str, parts: Sequence[str]) -> str:
    ident = escape_html(names.ident)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" {attributes} role="img" '
        f'aria-labelledby="{ident}-title {ident}-desc"><title id="{ident}-title">{escape_html(names.title)}</title>'
        f'<desc id="{ident}-desc">{escape_html(names.desc)}</desc>'
    )
    return "\n".join([head, *parts, "</svg>"])
