"""An evaluation as one SVG file: how good every row is over what it costs, with dense as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sait_deploy.evaluation.report import is_match
from sait_deploy.evaluation.results import Evaluation, Kind, Row
from sait_deploy.reports import svg
from sait_deploy.reports.escape import shorten
from sait_deploy.reports.svg import Frame, Names, nice_ticks

_IDENT: Final = "evaluation"
_WIDTH: Final = 640.0
_LEFT: Final = 50.0
_RIGHT: Final = _WIDTH - 8
_HEAD: Final = 66.0
_TALL: Final = 270.0
_LOW: Final = 150.0
_BELOW: Final = 74.0
"""From a plot's lower edge to where the next begins: ticks, and the heading of what follows."""
_LEGEND_STEP: Final = 22.0
_COLUMN: Final = 344.0
_LETTER: Final = 6.0
_TAG: Final = 80.0
"""Room that a point's name needs beside it."""


class _Look(NamedTuple):
    """How a kind of row is drawn; where ``tag`` is true its points are named."""

    tone: int
    legend: str
    tag: bool


# In the order they are drawn, the last on top.
_LOOKS: Final = {
    Kind.LEAST_IMPORTANT: _Look(5, "control: the least important tokens", tag=False),
    Kind.RANDOM: _Look(4, "control: tokens at random", tag=False),
    Kind.LOWER_RESOLUTION: _Look(3, "dense at a lower resolution", tag=True),
    Kind.DENSITY: _Look(1, "density: all images keep as many", tag=True),
    Kind.MASS: _Look(2, "mass: each image keeps what it needs", tag=True),
}
_OFFERED: Final = (Kind.DENSE, Kind.DENSITY, Kind.MASS)
"""What a user chooses between, and so what the first plot's axis is made for."""


class _Measure(NamedTuple):
    """What the y axis shows: a field of rows, its name and unit, the decimals it is told with, the most it can be."""

    field: str
    name: str
    unit: str
    decimals: int
    most: float


_TOP1: Final = _Measure("top1_percent", "top-1", "%", 1, 100.0)
_AGREEMENT: Final = _Measure("agreement_percent", "agreement with dense", "%", 1, 100.0)
_COSINE: Final = _Measure("cosine_mean", "mean cosine similarity to dense", "", 4, 1.0)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A row in the plot's own units: cost in per cent of dense, value, and the ends of its interval."""

    row: Row
    x: float
    y: float
    low: float
    high: float


def accuracy_plot(evaluation: Evaluation) -> str:
    """Draws top-1 over multiply-accumulates; agreement with dense, or cosine similarity, where there is no top-1.

    Whiskers are 95 % intervals of the difference to dense, paired by image; there are none without labels, and none
    of densities that are there only to be compared with. Where controls or rivals are far below what is offered, a
    first plot shows the upper part and a second one everything.

    Returns:
        An SVG file's text, with its own style for light and dark.
    """
    measure = _measure(evaluation)
    dense, spots = _spots(evaluation, measure)
    costs = nice_ticks(min([spot.x for spot in spots] + [99.0]), max([100.0] + [spot.x for spot in spots]), 8)
    ranges = _ranges(dense, spots)
    parts, top = _head(evaluation, measure), _HEAD
    for index, values in enumerate(ranges):
        bottom = top + (_LOW if index else _TALL)
        frame = Frame(_LEFT, _RIGHT, top, bottom, costs, values)
        if index:
            parts.append(svg.text(0, top - 14, "the whole range", "soft"))
        parts += frame.axes()
        parts.append(svg.path(f"M{_LEFT:g} {frame.up(dense.y):.1f}H{_RIGHT:g}", "unity"))
        drawn = [_series(kind, dense, spots, frame) for kind in _LOOKS]
        parts.append(frame.clipped(f"{_IDENT}-clip{index}", drawn))
        parts += [] if index else _tags(spots, frame)
        top = bottom + _BELOW
    bottom = top - _BELOW
    label = "multiply-accumulates per image, % of dense"
    parts.append(svg.text((_LEFT + _RIGHT) / 2, bottom + 42, label, "mid soft"))
    legend, height = _legend(dense, spots, measure, bottom + 74)
    names = Names(_IDENT, f"{evaluation.model}: {measure.name} over cost", _told(dense, spots, measure))
    return svg.standalone(names, _WIDTH, height, parts + legend)


def _measure(evaluation: Evaluation) -> _Measure:
    for measure in (_TOP1, _AGREEMENT):
        if all(getattr(row, measure.field) is not None for row in evaluation.rows):
            return measure
    return _COSINE


def _spots(evaluation: Evaluation, measure: _Measure) -> tuple[_Spot, list[_Spot]]:
    """Returns dense, and the others from the cheapest to the dearest."""
    dense = next(row for row in evaluation.rows if row.kind is Kind.DENSE)
    baseline = float(getattr(dense, measure.field))
    spots = []
    for row in evaluation.rows:
        value = float(getattr(row, measure.field))
        change = row.top1_change if measure is _TOP1 else None
        ends = (value, value) if change is None else (baseline + change.low, baseline + change.high)
        low, high = (min(max(end, 0.0), measure.most) if change is not None else end for end in ends)
        spots.append(_Spot(row, 100.0 * row.macs / dense.macs, value, low, high))
    first = next(spot for spot in spots if spot.row is dense)
    return first, sorted((spot for spot in spots if spot is not first), key=lambda spot: spot.x)


def _ranges(dense: _Spot, spots: Sequence[_Spot]) -> list[list[float]]:
    """Returns ticks of the y axis: of everything, and before that of what is offered where it needs a closer look."""
    everything = [end for spot in (dense, *spots) for end in (spot.low, spot.y, spot.high)]
    offered = [end for s in (dense, *spots) if s.row.kind in _OFFERED for end in (s.low, s.y, s.high)]
    whole, near = nice_ticks(min(everything), max(everything)), nice_ticks(min(offered), max(offered))
    alone = all(spot.row.kind not in _OFFERED for spot in spots)
    if alone or whole[-1] - whole[0] < 2 * (near[-1] - near[0]):
        return [whole]
    return [near, whole]


def _head(evaluation: Evaluation, measure: _Measure) -> list[str]:
    about = f"{evaluation.images:,} images · {evaluation.runtime} · {evaluation.image_source}"
    return [
        svg.text(0, 4, f"{shorten(evaluation.model, 40)}: {measure.name} over cost", "strong"),
        svg.text(0, 24, shorten(about, 86), "soft"),
        svg.text(0, _HEAD - 14, ", ".join(filter(None, (measure.name, measure.unit))), "soft"),
    ]


def _series(kind: Kind, dense: _Spot, spots: Sequence[_Spot], frame: Frame) -> str:
    """Draws the rows of one kind and a line through them to dense, which is where all of them end."""
    own, tone = [spot for spot in spots if spot.row.kind is kind], _LOOKS[kind].tone
    if not own:
        return ""
    at = [(frame.across(spot.x), frame.up(spot.y)) for spot in own]
    # Nothing is measured between the dearest of them and dense.
    parts = [svg.path(svg.polyline([at[-1], (frame.across(dense.x), frame.up(dense.y))]), "dash")]
    parts.append(svg.path(svg.polyline(at), "line"))
    for spot, (x, y) in zip(own, at, strict=True):
        # That of a match would cover that of the row it costs as much as.
        if spot.low < spot.high and not is_match(spot.row):
            parts.append(svg.whisker(x, frame.up(spot.low), frame.up(spot.high), "thin"))
        parts.append(svg.marker(tone, x, y))
    return f'<g class="{svg.tone_class(tone)}">{"".join(parts)}</g>'


def _tags(spots: Sequence[_Spot], frame: Frame) -> list[str]:
    """Names the points that lie inside, masses first, where that leaves the names before legible.

    Those of masses, which are above the others in most plots, stand to the upper left.
    """
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    kinds = list(reversed(_LOOKS))
    for spot in sorted(spots, key=lambda spot: kinds.index(spot.row.kind)):
        look, x, y = _LOOKS[spot.row.kind], frame.across(spot.x), frame.up(spot.y)
        if not look.tag or is_match(spot.row) or not frame.top <= y <= frame.bottom:
            continue
        upper, words = spot.row.kind is Kind.MASS, shorten(_short(spot.row), 12)
        before = x > frame.left + _TAG if upper else x > frame.right - _TAG
        dx, side = (-8, "tag end") if before else (8, "tag")
        width = _LETTER * (len(words) + 1)
        middle, line = x + dx + (-0.5 if before else 0.5) * width, y + (-7 if upper else 15)
        if all(abs(middle - a) > (width + wide) / 2 or abs(line - b) > 2 * _LETTER for a, b, wide in taken):
            taken.append((middle, line, width))
            words = svg.text(x + dx, line, words, side)
            parts.append(f'<g class="{svg.tone_class(look.tone)}">{words}</g>')
    return parts


def _short(row: Row) -> str:
    """Returns a row's name without the word that the legend has."""
    return row.label.removeprefix(f"{row.kind.value} ")


def _legend(dense: _Spot, spots: Sequence[_Spot], measure: _Measure, top: float) -> tuple[list[str], float]:
    """Draws the names in two columns; returns how far down the drawing now goes, too."""
    found = [look for kind, look in reversed(_LOOKS.items()) if any(spot.row.kind is kind for spot in spots)]
    parts, places = [], [((i % 2) * _COLUMN, top + i // 2 * _LEGEND_STEP) for i in range(len(found) + 1)]
    for look, (x, y) in zip(found, places, strict=False):
        parts.append(svg.key(look.tone, x, y - 5) + svg.text(x + 40, y, look.legend))
    x, y = places[-1]
    parts.append(svg.path(f"M{x:g} {y - 5:.1f}h30", "unity"))
    parts.append(svg.text(x + 40, y, f"dense: {_value(dense, measure)}"))
    if any(spot.low < spot.high for spot in spots):
        y += _LEGEND_STEP + 4
        parts.append(svg.text(0, y, "Whiskers: 95 % intervals of the difference to dense, paired by image.", "soft"))
    return parts, y + 6


def _told(dense: _Spot, spots: Sequence[_Spot], measure: _Measure) -> str:
    return " ".join(f"{s.row.label}: {_value(s, measure)} at {s.x:.0f} % of dense's cost." for s in (dense, *spots))


def _value(spot: _Spot, measure: _Measure) -> str:
    return f"{spot.y:.{measure.decimals}f} {measure.unit}".rstrip()
