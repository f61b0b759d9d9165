"""A training log as one SVG file: its loss, and below that its accuracies, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from sait_deploy.reports import svg
from sait_deploy.reports.escape import shorten
from sait_deploy.reports.svg import Frame, Names, nice_ticks

_IDENT: Final = "training"
_WIDTH: Final = 640.0
_LEFT: Final = 50.0
_RIGHT: Final = _WIDTH - 8
_HEIGHT: Final = 160.0
_FIRST: Final = 56.0
_GAP: Final = 68.0
"""From the lower edge of the loss to the upper one of the accuracies: ticks, and what these are."""
_LEGEND_STEP: Final = 22.0
_COLUMN: Final = 320.0
_MOST_MARKERS: Final = 12

_Line: TypeAlias = list[tuple[float, float]]


def training_curve(
    epochs: Sequence[float],
    loss: Sequence[float],
    accuracies: Mapping[str, Sequence[float | None]],
    *,
    title: str = "Training",
) -> str:
    """Draws loss over epochs, and accuracies over epochs in a plot of their own.

    Args:
        epochs: how far training was at each entry, ascending; at least one.
        loss: mean training loss of each entry; one that is not finite leaves a gap.
        accuracies: per cent at each entry, by name; None where nothing was measured, which the line passes over.
        title: what was trained.

    Returns:
        An SVG file's text, with its own style for light and dark.

    Raises:
        ValueError: there is no entry, or a sequence is of another length.
    """
    if not epochs or any(len(values) != len(epochs) for values in (loss, *accuracies.values())):
        raise ValueError(f"a curve needs at least one epoch, and a value for each of the {len(epochs)}")
    losses = _unbroken(epochs, loss)
    measured = {name: _measured(epochs, values) for name, values in accuracies.items()}
    measured = {name: line for name, line in measured.items() if line}
    ticks = _epoch_ticks(epochs)
    first = _frame(ticks, [y for line in losses for _, y in line], _FIRST)
    parts = [svg.text(0, 4, shorten(title, 80), "strong"), svg.text(0, _FIRST - 16, "loss", "soft"), *first.axes()]
    parts += [_drawn(1, line, first) for line in losses]
    bottom = first.bottom
    if measured:
        second = _frame(ticks, [y for line in measured.values() for _, y in line], first.bottom + _GAP)
        parts += [svg.text(0, second.top - 16, "accuracy, %", "soft"), *second.axes()]
        parts += [_drawn(2 + index, line, second) for index, line in enumerate(measured.values())]
        bottom = second.bottom
    parts.append(svg.text((_LEFT + _RIGHT) / 2, bottom + 42, "epoch", "mid soft"))
    legend, height = _legend(list(measured), bottom + 72)
    names = Names(_IDENT, f"{title}: loss and accuracy over epochs", _told(losses, measured))
    return svg.standalone(names, _WIDTH, height, [*parts, *legend])


def _unbroken(epochs: Sequence[float], loss: Sequence[float]) -> list[_Line]:
    """Returns the runs of entries whose loss is finite."""
    lines: list[_Line] = [[]]
    for epoch, value in zip(epochs, loss, strict=True):
        if math.isfinite(value):
            lines[-1].append((epoch, value))
        elif lines[-1]:
            lines.append([])
    return [line for line in lines if line]


def _measured(epochs: Sequence[float], values: Sequence[float | None]) -> _Line:
    return [(epoch, y) for epoch, y in zip(epochs, values, strict=True) if y is not None and math.isfinite(y)]


def _epoch_ticks(epochs: Sequence[float]) -> list[float]:
    """Returns ticks at whole epochs, so that the axis ends soon after the last one."""
    first, last = math.floor(min(epochs)), max(math.ceil(max(epochs)), math.floor(min(epochs)) + 1)
    steps = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    step = next(step for step in steps if (last - first) / step <= 10)
    start = first // step * step
    return [float(start + index * step) for index in range(-(-(last - start) // step) + 1)]


def _frame(ticks: Sequence[float], values: Sequence[float], top: float) -> Frame:
    return Frame(_LEFT, _RIGHT, top, top + _HEIGHT, ticks, nice_ticks(min(values, default=0), max(values, default=1)))


def _drawn(tone: int, line: _Line, frame: Frame) -> str:
    at = [(frame.across(x), frame.up(y)) for x, y in line]
    parts = [svg.path(svg.polyline(at), "line")]
    # On a long line markers would hide it: they stand at even distances back from its end.
    step = max(1, math.ceil(len(at) / _MOST_MARKERS))
    parts += [svg.marker(tone, x, y) for x, y in at[::-1][::step]]
    return f'<g class="{svg.tone_class(tone)}">{"".join(parts)}</g>'


def _legend(names: Sequence[str], top: float) -> tuple[list[str], float]:
    """Draws the accuracies' names in two columns; returns how far down the drawing now goes, too."""
    parts = []
    for index, name in enumerate(names):
        x, y = index % 2 * _COLUMN, top + index // 2 * _LEGEND_STEP
        parts.append(svg.key(2 + index, x, y - 5) + svg.text(x + 40, y, shorten(name, 36)))
    rows = -(-len(names) // 2)
    return parts, top - _LEGEND_STEP + rows * _LEGEND_STEP + 6


def _told(losses: Sequence[_Line], measured: Mapping[str, _Line]) -> str:
    flat = [point for line in losses for point in line]
    told = [f"Loss from {flat[0][1]:.4g} to {flat[-1][1]:.4g}."] if flat else ["No loss is finite."]
    told += [f"{name}: {line[-1][1]:.1f} % at epoch {line[-1][0]:g}." for name, line in measured.items()]
    return " ".join(told)
