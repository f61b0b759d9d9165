"""A recommendation as a table, a plot and a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sait_deploy.errors import InvalidArgument
from sait_deploy.recommending.messages import MEASURES, points_text
from sait_deploy.recommending.results import Candidate, Recommendation
from sait_deploy.reports import html, markdown
from sait_deploy.reports.document import Document, Listing, Plot, Section
from sait_deploy.reports.drawing import NO_PLOTS, Names, has_matplotlib
from sait_deploy.reports.plots import Level, Line, Panel, Point, Ring, Tags, panels_plot
from sait_deploy.reports.table import Cell, Emphasis, Row, Table, figures, words
from sait_deploy.reports.wording import NOTHING, digits
from sait_deploy.system.machine import made_by

_MEBIBYTE = 2**20
_TALL = 330.0
_CAPTION = (
    "Whiskers: 95 % intervals of the drop. The dashed line joins the candidates that no other beats in accuracy, speed "
    "and memory at once."
)


def candidates_table(found: Recommendation) -> Table:
    """Returns every candidate, fastest first; those on the Pareto front are marked, the choice stands out."""
    columns = [
        words("candidate"),
        words("runtime"),
        words("precision"),
        figures(_measure(found), "%"),
        figures("drop", "points [95 %]"),
        figures("p50", "ms"),
        figures("p99", "ms"),
        figures("img/s"),
        figures("speed-up", "× fastest dense"),
        figures("memory", "MiB"),
        words("Pareto front"),
    ]
    rows = [Row.of(_cells(one, found), reference=one.baseline) for one in found.candidates]
    return Table.of(f"{found.model} · requests of {found.batch}", columns, rows)


def _measure(found: Recommendation) -> str:
    return next((MEASURES[one.drop.measure] for one in found.candidates if one.drop is not None), "top-1")


def _cells(one: Candidate, found: Recommendation) -> list[Cell]:
    texts = [
        one.label,
        one.runtime,
        one.precision or NOTHING,
        NOTHING if one.accuracy_percent is None else f"{one.accuracy_percent:.2f}",
        NOTHING if one.drop is None else points_text(one.drop),
        digits(one.latency_ms),
        digits(one.p99_ms),
        digits(one.images_per_second),
        NOTHING if one.speedup is None else f"{one.speedup:.2f}",
        NOTHING if one.memory_bytes is None else digits(one.memory_bytes / _MEBIBYTE),
        "chosen" if one.variant == found.chosen else "yes" if one.on_front else "no",
    ]
    faint = Emphasis.NONE if one.on_front else Emphasis.FAINT
    return [Cell(text, Emphasis.STRONG if one.variant == found.chosen else faint) for text in texts]


def front_plot(found: Recommendation) -> str:
    """Draws accuracy over speed: a line for each runtime and precision, the Pareto front, and the choice.

    Returns:
        An SVG file's text, with its own style for light and dark.

    Raises:
        InvalidArgument: no accuracy is known.
        MissingDependency: matplotlib is not installed.
    """
    known = [one for one in found.candidates if one.drop is not None and one.accuracy_percent is not None]
    if not known:
        raise InvalidArgument("there is nothing to draw: no accuracy is known", "write the recommendation as .json")
    measure, groups = _measure(found), dict.fromkeys((one.runtime, one.precision) for one in known)
    front = [(point.x, point.y) for point in _points(one for one in known if one.on_front)]
    lines = []
    for series, (runtime, precision) in enumerate(groups, 1):
        own = [one for one in known if (one.runtime, one.precision) == (runtime, precision)]
        lines.append(Line(" ".join(filter(None, (runtime, precision))), series, tuple(_points(own)), tags=Tags.ABOVE))
    lines.append(Line("Pareto front", 0, (), tuple(front)))
    chosen = next((one for one in known if one.variant == found.chosen), None)
    ring = None if chosen is None else Ring(f"chosen: {chosen.label}", *_place(chosen))
    panel = Panel(f"{measure}, %", tuple(lines), _level(found, known), None, _TALL, ring)
    title = f"{found.model}: {measure} over speed, requests of {found.batch}"
    label = "images per second" if known[0].speedup is None else "speed, % of the fastest dense"
    names = Names("recommendation", title, " ".join(_in_words(one) for one in known))
    return panels_plot([panel], names, label, title=title)


def _place(one: Candidate) -> tuple[float, float]:
    assert one.accuracy_percent is not None
    return one.images_per_second if one.speedup is None else 100 * one.speedup, one.accuracy_percent


def _points(candidates: Iterable[Candidate]) -> list[Point]:
    """Returns points from the slowest on, with the interval of the drop as that of the accuracy."""
    found = []
    for one in sorted(candidates, key=lambda one: one.speed):
        assert one.drop is not None
        (x, y), drop = _place(one), one.drop.points
        low, high = (min(max(y + drop.value - end, 0.0), 100.0) for end in (drop.high, drop.low))
        found.append(Point(x, y, low, high, one.label if one.on_front else ""))
    return found


def _level(found: Recommendation, known: Sequence[Candidate]) -> Level | None:
    """Returns what may be lost, as a line across."""
    reference = next((one for one in known if one.name == found.reference), None)
    if reference is None or reference.accuracy_percent is None or found.max_drop is None:
        return None
    return Level(f"{found.max_drop:g} points below {reference.name}", reference.accuracy_percent - found.max_drop)


def _in_words(one: Candidate) -> str:
    return f"{one.name}: {one.accuracy_percent:.2f} % at {digits(one.images_per_second)} images per second."


def to_markdown(found: Recommendation) -> str:
    """Returns the recommendation as GitHub Markdown, which has no plots."""
    return markdown.to_markdown(_document(found, ()))


def to_html(found: Recommendation) -> str:
    """Returns the recommendation as one self-contained HTML page; without matplotlib it says that plots are missing."""
    judged = any(one.drop is not None for one in found.candidates)
    plots = (Plot("Accuracy over speed", front_plot(found), _CAPTION),) if judged and has_matplotlib() else ()
    return html.to_html(_document(found, plots, missing=judged and not plots))


def _document(found: Recommendation, plots: tuple[Plot, ...], *, missing: bool = False) -> Document:
    reference = () if found.reference is None else (f"Drops are counted from {found.reference}.",)
    return Document(
        title=f"{found.model}: what to deploy",
        about=(f"{found.message[0].upper()}{found.message[1:]}.", *reference),
        notes=(*found.notes, NO_PLOTS) if missing else found.notes,
        sections=(Section("", plots, (candidates_table(found),), found.commands),),
        listings=(Listing("Made by", made_by()),),
    )
