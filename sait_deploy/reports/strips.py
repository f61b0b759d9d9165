"""Plots of samples as strips of dots, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.reports import palette
from sait_deploy.reports.drawing import Names, bare, draw, heading, printable
from sait_deploy.reports.escape import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH: Final = 480.0
_MOST_DOTS: Final = 200


@dataclass(frozen=True, slots=True)
class Strip:
    """Samples in the order they were taken, drawn from top to bottom.

    Attributes:
        label: text above the strip, at the left.
        value: text above the strip, at the right.
        series: number of its colour, from 0.
        samples: positions on the x axis; at least one.
        p10: where the band of the middle 80 % begins.
        p50: where the median stands.
        p90: where the band ends.
    """

    label: str
    value: str
    series: int
    samples: tuple[float, ...]
    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class StripGroup:
    """Strips under one heading."""

    heading: str
    strips: tuple[Strip, ...]


def strip_plot(groups: Sequence[StripGroup], names: Names, x_label: str) -> str:
    """Draws samples as dots, a strip for each set, grouped: first sample at a strip's top, last at its bottom.

    The axis ends at 1.2 times the slowest p90 where samples lie beyond it: they stand at its end and are counted in the
    strip's text.

    Args:
        groups: at least one, with at least one strip each.
        names: the drawing's accessible names.
        x_label: text above the axis.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    strips = [strip for group in groups for strip in group.strips]
    end = min(max(max(strip.samples) for strip in strips), 1.2 * max(strip.p90 for strip in strips))
    height = 32.0 * len(groups) + 44.0 * len(strips)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        bare(axes)
        axes.grid(axis="x", linewidth=1)
        heading(axes, x_label)
        y = 0.0
        for group in groups:
            _beside(axes, 0, y + 16, shorten(printable(group.heading), 58), fontweight="bold")
            y += 24
            for strip in group.strips:
                _strip(axes, strip, end, y)
                y += 44
            y += 8
        axes.set_ylim(height, 0)
        axes.set_yticks([])

    return draw(names, _WIDTH, height + 60, fill)


def _beside(axes: Axes, x: float, y: float, words: str, **style: Any) -> None:
    """Writes text whose x is a share of the axes' width."""
    axes.text(x, y, printable(words), transform=axes.get_yaxis_transform(), va="baseline", **style)


def _strip(axes: Axes, strip: Strip, end: float, top: float) -> None:
    colour = palette.series_colour(strip.series).light
    beyond = sum(sample > end for sample in strip.samples)
    value = f"{strip.value} · {beyond} beyond ›" if beyond else strip.value
    _beside(axes, 0, top + 12, shorten(strip.label, 52 - len(value)), color=palette.MUTED.light)
    _beside(axes, 1, top + 12, value, ha="right")
    upper, lower = top + 18, top + 38
    axes.fill_between([strip.p10, strip.p90], upper, lower, color=colour, alpha=0.18, linewidth=0)
    last = max(1, len(strip.samples) - 1)
    dots = [(min(sample, end), upper + 3 + 14 * index / last) for index, sample in _drawn(strip.samples)]
    # Strokes without length, which round ends make dots, in one path.
    xs = [value for x, _ in dots for value in (x, x, math.nan)]
    ys = [value for _, y in dots for value in (y, y, math.nan)]
    axes.plot(xs, ys, color=colour, linewidth=3.2, solid_capstyle="round", alpha=0.75)
    axes.plot([strip.p50] * 2, [upper - 2, lower + 2], color=palette.INK.light, linewidth=2.5)


def _drawn(samples: Sequence[float]) -> list[tuple[int, float]]:
    """Returns (index, sample) of all samples, or of 200 evenly spaced by rank: the extremes are always there."""
    ranked = sorted(enumerate(samples), key=lambda pair: pair[1])
    if len(ranked) <= _MOST_DOTS:
        return ranked
    return [ranked[round(k * (len(ranked) - 1) / (_MOST_DOTS - 1))] for k in range(_MOST_DOTS)]
