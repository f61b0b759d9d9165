"""A training log as one SVG file: its loss, and below that its accuracies, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from sait_deploy.reports.drawing import Names
from sait_deploy.reports.plots import Line, Panel, Point, panels_plot

_LOSS: Final = 1
"""Series of the loss; the accuracies follow."""


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
        MissingDependency: matplotlib is not installed.
    """
    if not epochs or any(len(values) != len(epochs) for values in (loss, *accuracies.values())):
        raise ValueError(f"a curve needs at least one epoch, and a value for each of the {len(epochs)}")
    losses = tuple(map(Point, epochs, loss))
    measured = {name: _measured(epochs, values) for name, values in accuracies.items()}
    measured = {name: points for name, points in measured.items() if points}
    panels = [Panel("loss", (Line("loss", _LOSS, losses),))]
    if measured:
        lines = (Line(name, _LOSS + 1 + index, points) for index, (name, points) in enumerate(measured.items()))
        panels.append(Panel("accuracy, %", tuple(lines)))
    names = Names("training", f"{title}: loss and accuracy over epochs", _in_words(loss, measured))
    return panels_plot(panels, names, "epoch", title=title)


def _measured(epochs: Sequence[float], values: Sequence[float | None]) -> tuple[Point, ...]:
    pairs = zip(epochs, values, strict=True)
    return tuple(Point(epoch, y) for epoch, y in pairs if y is not None and math.isfinite(y))


def _in_words(loss: Sequence[float], measured: Mapping[str, Sequence[Point]]) -> str:
    finite = [value for value in loss if math.isfinite(value)]
    words = [f"Loss from {finite[0]:.4g} to {finite[-1]:.4g}." if finite else "No loss is finite."]
    words += [f"{name}: {points[-1].y:.1f} % at epoch {points[-1].x:g}." for name, points in measured.items()]
    return " ".join(words)
