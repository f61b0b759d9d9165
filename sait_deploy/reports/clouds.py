"""Plots of two counts against each other, as clouds of discs beside each other, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sait_deploy.reports import palette
from sait_deploy.reports.drawing import Names, bare, draw, printable
from sait_deploy.reports.escape import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH: Final = 720.0
_HEIGHT: Final = 400.0
_MARGIN: Final = 1.25
_LARGEST: Final = 260.0
"""Area of the largest disc, in square points."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """How often two counts occur together.

    Attributes:
        heading: text above it; may have several lines.
        points: (x, y, times), x and y above 0; at least one.
    """

    heading: str
    points: tuple[tuple[int, int, int], ...]


def cloud_plot(
    clouds: Sequence[Cloud], names: Names, ticks: Sequence[int], x_label: str, y_label: str, title: str
) -> str:
    """Draws a disc for each pair of counts, its area how often they occur, and a line where both are equal.

    Args:
        clouds: at least one, side by side on the same logarithmic axes.
        names: the drawing's accessible names.
        ticks: numbers at both axes, rising.
        x_label: text below all x axes.
        y_label: text beside the y axis.
        title: text above all; may have several lines.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    most = max(times for cloud in clouds for *_, times in cloud.points)
    lowest = min(ticks[0], *(y for cloud in clouds for _, y, _ in cloud.points))

    def fill(figure: Figure) -> None:
        found = list(figure.subplots(1, len(clouds), sharey=True, squeeze=False)[0])
        for number, (axes, cloud) in enumerate(zip(found, clouds, strict=True)):
            _cloud(axes, cloud, ticks, number + 1, most)
            axes.set_ylim(lowest / _MARGIN, ticks[-1] * _MARGIN)
        found[0].set_ylabel(printable(y_label))
        figure.supxlabel(printable(x_label), fontsize=13, color=palette.MUTED.light)
        figure.suptitle("\n".join(map(printable, title.split("\n"))), x=0.01, ha="left", fontsize=13)

    return draw(names, _WIDTH, _HEIGHT, fill)


def _cloud(axes: Axes, cloud: Cloud, ticks: Sequence[int], series: int, most: int) -> None:
    bare(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = ticks[0] / _MARGIN, ticks[-1] * _MARGIN
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=90, fontsize=10)
    axes.set_yticks(ticks, [str(tick) for tick in ticks], fontsize=10)
    axes.plot([low, high], [low, high], color=palette.BASELINE.light, linewidth=2)
    xs, ys, times = zip(*cloud.points, strict=True)
    sizes = [max(3.0, _LARGEST * one / most) for one in times]
    axes.scatter(xs, ys, s=sizes, color=palette.series_colour(series).light, alpha=0.55, linewidth=0)
    axes.set_title(
        "\n".join(shorten(printable(line), 36) for line in cloud.heading.split("\n")),
        loc="left",
        fontsize=11,
        color=palette.MUTED.light,
    )
