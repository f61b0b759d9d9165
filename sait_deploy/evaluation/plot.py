"""An evaluation as one SVG file: how good every row is over what it costs, with dense as a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.results import OFFERED, Evaluation, EvaluationRow, Kind
from sait_deploy.reports.drawing import Names
from sait_deploy.reports.escape import shorten
from sait_deploy.reports.plots import Level, Line, Panel, Point, Tags, panels_plot

_TALL: Final = 270.0
_LOW: Final = 150.0


class _Look(NamedTuple):
    """How a kind of row is drawn: its series, its text in the legend, and where the names of its points stand."""

    series: int
    legend: str
    tags: Tags | None


# In the order they are drawn, the last on top.
_LOOKS: Final = {
    Kind.LEAST_IMPORTANT: _Look(5, "control: the least important tokens", None),
    Kind.RANDOM: _Look(4, "control: tokens at random", None),
    Kind.LOWER_RESOLUTION: _Look(3, "dense at a lower resolution", Tags.BELOW),
    Kind.DENSITY: _Look(1, "density: all images keep as many", Tags.BELOW),
    Kind.MASS: _Look(2, "mass: each image keeps its own number", Tags.ABOVE),
}


class _Measure(NamedTuple):
    """What the y axis shows: a value of rows and its change from dense, its name and unit, decimals, and its most."""

    value: Callable[[EvaluationRow], float | None]
    change: Callable[[EvaluationRow], Estimate | None]
    name: str
    unit: str
    decimals: int
    most: float


_TOP1: Final = _Measure(lambda row: row.top1_percent, lambda row: row.top1_change, "top-1", "%", 1, 100.0)
_AGREEMENT: Final = _Measure(lambda row: row.agreement_percent, lambda _: None, "agreement with dense", "%", 1, 100.0)
_COSINE: Final = _Measure(lambda row: row.cosine_mean, lambda _: None, "mean cosine similarity to dense", "", 4, 1.0)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A row in the plot: cost in per cent of dense, value, and the ends of its interval."""

    row: EvaluationRow
    x: float
    y: float
    low: float
    high: float


def accuracy_plot(evaluation: Evaluation) -> str:
    """Draws top-1 over multiply-accumulates; agreement with dense, retrieval or cosine similarity without top-1.

    Whiskers are 95 % intervals of the difference to dense, paired by image; there are none without labels, and none
    of densities that are there only to be compared with. Where controls or rivals are far below what is offered, a
    first panel shows the upper part and a second one everything.

    Returns:
        An SVG file's text, with its own style for light and dark.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    measure = _measure(evaluation)
    dense, spots = _spots(evaluation, measure)
    level = Level(f"dense: {_value(dense, measure)}", dense.y)
    near, whole = _ranges(dense, spots)
    lines = (*_bound(evaluation), *(line for kind in _LOOKS if (line := _line(kind, dense, spots))))
    panels = [Panel(", ".join(filter(None, (measure.name, measure.unit))), lines, level, near, _TALL)]
    if near != whole:
        plain = tuple(_untagged(line) for line in lines)
        panels.append(Panel("the whole range", plain, level, whole, _LOW))
    title = f"{shorten(evaluation.model, 40)}: {measure.name} over cost"
    about = f"{evaluation.images:,} images · {evaluation.answered_by} · {evaluation.image_source}"
    whiskers = "\nWhiskers: 95 % intervals of the difference to dense, paired by image."
    if not any(spot.low < spot.high for spot in spots):
        whiskers = ""
    names = Names("evaluation", f"{evaluation.model}: {measure.name} over cost", _in_words(dense, spots, measure))
    label = "multiply-accumulates per image, % of dense"
    return panels_plot(panels, names, label + whiskers, title=f"{title}\n{shorten(about, 86)}")


def _measure(evaluation: Evaluation) -> _Measure:
    retrieval = _Measure(_recalled, _recall_change, evaluation.measure, "%", 1, 100.0)
    for measure in (_TOP1, _AGREEMENT, retrieval):
        if all(measure.value(row) is not None for row in evaluation.rows):
            return measure
    return _COSINE


def _recalled(row: EvaluationRow) -> float | None:
    return None if row.retrieval is None else row.retrieval.main.percent


def _recall_change(row: EvaluationRow) -> Estimate | None:
    return None if row.retrieval is None else row.retrieval.main.change


def _spots(evaluation: Evaluation, measure: _Measure) -> tuple[_Spot, list[_Spot]]:
    """Returns dense, and the others from the cheapest to the dearest."""
    dense = next(row for row in evaluation.rows if row.kind is Kind.DENSE)
    baseline = _figure(dense, measure)
    spots = []
    for row in evaluation.rows:
        value, change = _figure(row, measure), measure.change(row)
        ends = (value, value) if change is None else (baseline + change.low, baseline + change.high)
        low, high = (min(max(end, 0.0), measure.most) if change is not None else end for end in ends)
        spots.append(_Spot(row, 100.0 * row.macs / dense.macs, value, low, high))
    first = next(spot for spot in spots if spot.row is dense)
    return first, sorted((spot for spot in spots if spot is not first), key=lambda spot: spot.x)


def _figure(row: EvaluationRow, measure: _Measure) -> float:
    value = measure.value(row)
    assert value is not None
    return float(value)


def _ranges(dense: _Spot, spots: Sequence[_Spot]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the range of what is offered, where that needs a closer look, and the range of everything."""
    everything = [end for spot in (dense, *spots) for end in (spot.low, spot.y, spot.high)]
    offered = [end for s in (dense, *spots) if s.row.kind in OFFERED for end in (s.low, s.y, s.high)]
    whole, near = (min(everything), max(everything)), (min(offered), max(offered))
    alone = all(spot.row.kind not in OFFERED for spot in spots)
    if alone or whole[1] - whole[0] < 2 * (near[1] - near[0]):
        return whole, whole
    return near, whole


def _line(kind: Kind, dense: _Spot, spots: Sequence[_Spot]) -> Line | None:
    """Returns the rows of one kind, and a dashed line from the dearest to dense, which is where all of them end."""
    own, look = [spot for spot in spots if spot.row.kind is kind], _LOOKS[kind]
    if not own:
        return None
    reference = ((own[-1].x, own[-1].y), (dense.x, dense.y))
    points = tuple(_point(spot, look) for spot in own)
    return Line(look.legend, look.series, points, reference, look.tags or Tags.BELOW)


def _bound(evaluation: Evaluation) -> tuple[Line, ...]:
    """Returns the best choice for each image where it was looked for."""
    if evaluation.oracle is None:
        return ()
    steps = evaluation.oracle.steps
    points = tuple(Point(100.0 * step.macs / steps[-1].macs, step.best.right_percent) for step in steps)
    return (Line("bound: the best choice for each image", 6, points),)


def _point(spot: _Spot, look: _Look) -> Point:
    # The name and whiskers of a match would cover those of the row that it costs as much as.
    if spot.row.is_match:
        return Point(spot.x, spot.y)
    # The legend has the word that a row's name begins with.
    tag = spot.row.label.removeprefix(f"{spot.row.kind.value} ") if look.tags is not None else ""
    return Point(spot.x, spot.y, spot.low, spot.high, tag)


def _untagged(line: Line) -> Line:
    points = tuple(Point(p.x, p.y, p.low, p.high) for p in line.points)
    return Line(line.legend, line.series, points, line.reference)


def _in_words(dense: _Spot, spots: Sequence[_Spot], measure: _Measure) -> str:
    return " ".join(f"{s.row.label}: {_value(s, measure)} at {s.x:.0f} % of dense's cost." for s in (dense, *spots))


def _value(spot: _Spot, measure: _Measure) -> str:
    return f"{spot.y:.{measure.decimals}f} {measure.unit}".rstrip()
