"""Plots of lines with intervals, as SVG text: in panels below each other, and ratios over a log2 axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.reports import palette
from sait_deploy.reports.drawing import Names, bare, draw, heading, printable
from sait_deploy.reports.escape import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE: Final = 640.0
_NARROW: Final = 480.0
_LEGEND_LINE: Final = 20.0
_MARKERS: Final = "os^Dv"
"""Neighbouring series differ in shape, so that colour is not needed to tell them apart."""
_MOST_MARKERS: Final = 12
_LETTERS: Final = 50
"""Of a legend's text at most."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value, with its interval where it has one, and a name to stand beside it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tag: str = ""


class Tags(Enum):
    """Where the names of a line's points stand: how far to the right and up, and what of them stands there."""

    ABOVE = (-6, 7, "right")
    BELOW = (6, -14, "left")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of points in ascending x.

    Attributes:
        legend: its text below the plot.
        series: number of its colour and marker, from 0.
        points: a point whose y is not finite leaves a gap; of none, the dashed line stands in the legend.
        reference: (x, y) of a dashed line of the same colour.
        tags: where the names of its points stand.
    """

    legend: str
    series: int
    points: tuple[Point, ...]
    reference: tuple[tuple[float, float], ...] = ()
    tags: Tags = Tags.BELOW


@dataclass(frozen=True, slots=True)
class Level:
    """A line across the plot, of series 0: what the others are compared with."""

    legend: str
    y: float


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring around one point, to single it out."""

    legend: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines in axes of their own.

    Attributes:
        heading: what y shows.
        lines: what is drawn.
        level: a line across, if any.
        limits: the lowest and the highest y to show; None for all.
        height: in units of the drawing.
        ring: around the point that matters, if any.
    """

    heading: str
    lines: tuple[Line, ...]
    level: Level | None = None
    limits: tuple[float, float] | None = None
    height: float = 180.0
    ring: Ring | None = None


def panels_plot(panels: Sequence[Panel], names: Names, x_label: str, *, title: str = "") -> str:
    """Draws panels below each other on one x axis, and the legend of all below them.

    Args:
        panels: at least one.
        names: the drawing's accessible names.
        x_label: what x shows; may have several lines.
        title: text above all; may be empty, and have several lines.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    height = sum(panel.height for panel in panels) + 40 * len(panels) + 40
    height += _LEGEND_LINE * (math.ceil(_entries(panels) / 2) + title.count("\n") + bool(title) + x_label.count("\n"))

    def fill(figure: Figure) -> None:
        heights = [panel.height for panel in panels]
        found = list(figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        for panel, axes in zip(panels, found, strict=True):
            _panel(axes, panel)
        found[-1].locator_params(axis="x", integer=True)
        found[-1].set_xlabel(_lines(x_label))
        if title:
            figure.suptitle(_lines(title), x=0.01, ha="left", fontsize=14)
        _legend(figure, found, columns=2)
        figure.draw_without_rendering()
        for axes in found:
            _untangle(axes)

    return draw(names, _WIDE, height, fill)


def ratio_plot(lines: Sequence[Line], names: Names, x_label: str, y_label: str, unity: str) -> str:
    """Draws ratios over a log2 axis, and a line at 1.

    Args:
        lines: at least one, with positive x.
        names: the drawing's accessible names.
        x_label: text below the x axis.
        y_label: text above the y axis.
        unity: what a ratio of 1 stands for, in the legend.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    xs = sorted({point.x for line in lines for point in line.points})
    span = max(math.log2(xs[-1] / xs[0]), 1.0)
    step = min(0.02, 0.08 / len(lines)) * span

    def moved(index: int, line: Line) -> Line:
        # Side by side, or the whiskers of one x would cover each other.
        shift = (index - (len(lines) - 1) / 2) * step
        points = tuple(Point(math.log2(p.x) + shift, p.y, p.low, p.high, p.tag) for p in line.points)
        reference = tuple((math.log2(x), y) for x, y in line.reference)
        if reference:
            (first, start), (last, end) = reference[0], reference[-1]
            reference = ((first - 0.1 * span, start), *reference, (last + 0.1 * span, end))
        return Line(line.legend, line.series, points, reference)

    panel = Panel(y_label, tuple(moved(i, line) for i, line in enumerate(lines)), Level(unity, 1.0))

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        _panel(axes, panel)
        axes.set_xticks([math.log2(x) for x in xs], [f"{x:g}" for x in xs])
        axes.set_xlabel(printable(x_label))
        _legend(figure, [axes], columns=1)

    return draw(names, _NARROW, 330 + _LEGEND_LINE * _entries([panel]), fill)


def _entries(panels: Sequence[Panel]) -> int:
    marks = {mark.legend for panel in panels for mark in (panel.level, panel.ring) if mark is not None}
    return len({line.legend for panel in panels for line in panel.lines} | marks)


def _lines(words: str) -> str:
    return "\n".join(printable(line) for line in words.split("\n"))


def _legend(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    entries: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=columns, fontsize=12)


def _panel(axes: Axes, panel: Panel) -> None:
    bare(axes)
    heading(axes, panel.heading)
    if panel.level is not None:
        colour = palette.BASELINE.light
        axes.axhline(panel.level.y, color=colour, linewidth=2, label=shorten(printable(panel.level.legend), _LETTERS))
    for line in panel.lines:
        _line(axes, line)
    if panel.ring is not None:
        _ring(axes, panel.ring)
    if panel.limits is not None:
        low, high = panel.limits
        margin = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _ring(axes: Axes, ring: Ring) -> None:
    label = shorten(printable(ring.legend), _LETTERS)
    axes.plot(
        [ring.x],
        [ring.y],
        linestyle="",
        marker="o",
        markersize=17,
        markerfacecolor="none",
        markeredgecolor=palette.INK.light,
        markeredgewidth=2,
        label=label,
    )


def _line(axes: Axes, line: Line) -> None:
    colour = palette.series_colour(line.series).light
    marker = _MARKERS[(line.series - 1) % len(_MARKERS)]
    label = shorten(printable(line.legend), _LETTERS)
    if line.reference:
        dashed = axes.plot(*zip(*line.reference, strict=True), color=colour, linestyle="--", linewidth=1.5, alpha=0.8)
        if not line.points:
            dashed[0].set_label(label)
            return
    ys = [point.y if math.isfinite(point.y) else math.nan for point in line.points]
    xs = [point.x for point in line.points]
    # On a long line markers would hide it: they stand at even distances back from its end.
    step = max(1, math.ceil(len(xs) / _MOST_MARKERS))
    marked = list(range(len(xs)))[::-1][::step]
    axes.plot(xs, ys, color=colour, linewidth=2, marker=marker, markersize=7, markevery=marked, label=label)
    for point in line.points:
        if point.low is not None and point.high is not None and point.low < point.high:
            ends = [[point.y - point.low], [point.high - point.y]]
            axes.errorbar([point.x], [point.y], ends, color=colour, linewidth=1.5, capsize=4)
        if point.tag:
            right, up, side = line.tags.value
            axes.annotate(
                shorten(printable(point.tag), 12),
                (point.x, point.y),
                (right, up),
                textcoords="offset points",
                fontsize=11,
                ha=side,
                color=colour,
                annotation_clip=True,
            )


def _untangle(axes: Axes) -> None:
    """Removes names of points that stand outside, or would cover those of lines drawn later, which lie on top."""
    taken: list[Any] = []
    frame = axes.get_window_extent()
    for text in reversed(list(axes.texts)):
        own = text.get_window_extent()
        if any(own.overlaps(other) for other in taken) or not (frame.y0 <= own.y0 and own.y1 <= frame.y1):
            text.remove()
        else:
            taken.append(own)
