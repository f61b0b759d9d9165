"""A benchmark as a document: what it is of, notes, of each group plots and tables, then how and where it was run."""

from __future__ import annotations

from typing import Final

import numpy as np

from sait_deploy.bench.common_tables import common_tables
from sait_deploy.bench.results import AccuracyMeasure, BenchRow, Report, Timing, Variant, names_of
from sait_deploy.bench.tables import (
    by_batch,
    by_group,
    groups_text,
    interval_text,
    measured_parts,
    ordered_variants,
    part_tables,
    series_of,
)
from sait_deploy.reports.document import Document, Listing, Plot, Section
from sait_deploy.reports.drawing import NO_PLOTS, Names, has_matplotlib
from sait_deploy.reports.escape import shorten
from sait_deploy.reports.html import to_html as document_to_html
from sait_deploy.reports.markdown import to_markdown as document_to_markdown
from sait_deploy.reports.plots import Line, Point, ratio_plot
from sait_deploy.reports.strips import Strip, StripGroup, strip_plot
from sait_deploy.reports.table import Cell, Row, Table, words
from sait_deploy.reports.wording import digits, signed

_TIMING: Final = {
    Timing.END_TO_END: "from a float32 batch in host memory to logits in host memory",
    Timing.COMPUTE: "the runtime's execution alone, on buffers bound beforehand",
}
_SPEED_CAPTION: Final = (
    "Speed-up is the dense time over the variant's time, paired by round, with a 95 % interval. The MAC ratio is the "
    "speed-up there would be if only multiply-accumulates cost time; share is how much of it was reached."
)
_ROUNDS_CAPTION: Final = (
    "A dot is one round, the first at a strip's top and the last at its bottom, so a slant is drift. Shaded: the "
    "middle 80 % of the rounds; bar: their median, in milliseconds at the right. Of more than 200 rounds, 200 are "
    "drawn, evenly by rank and with both extremes. Times beyond the axis stand at its end and are counted beside."
)


def to_html(report: Report) -> str:
    """Returns the report as one self-contained HTML page; without matplotlib it says that plots are missing."""
    plots = [_plots(part, index) for index, part in enumerate(measured_parts(report))] if has_matplotlib() else None
    return document_to_html(_document(report, plots))


def to_markdown(report: Report) -> str:
    """Returns the report as GitHub Markdown, which has no plots."""
    return document_to_markdown(_document(report, [()] * len(measured_parts(report))))


def _document(report: Report, plots: list[tuple[Plot, ...]] | None) -> Document:
    parts = measured_parts(report)
    sections = [
        Section(groups_text(part) if len(parts) > 1 else "", own, tuple(part_tables(part)))
        for part, own in zip(parts, plots or [()] * len(parts), strict=True)
    ]
    together = tuple(common_tables(report))
    common = (Section("All together" if len(parts) > 1 else "", tables=together),) if together else ()
    about = (
        f"Benchmark on {groups_text(report)}, measured {report.created}.",
        f"Times are {report.timing}: {_TIMING[report.timing]}.",
    )
    listings = [Listing("Environment", report.environment)]
    listings += [Listing(f"Runtime {group.name}", group.environment) for group in report.groups]
    listings.append(Listing("Options", report.options))
    return Document(
        title=report.model,
        headline=headline(report),
        about=about,
        notes=(*report.notes, NO_PLOTS) if plots is None else report.notes,
        sections=(*sections, *common, Section(tables=(_artifacts(report),))),
        listings=tuple(listings),
    )


def headline(report: Report) -> str:
    """Returns the pruned point with the most images a second and what it costs in accuracy; nothing without one."""
    variants, names = {variant.id: variant for variant in report.variants}, names_of(report.variants)
    rows = [row for row in report.rows if row.speedup is not None]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row.images_per_second)
    variant = variants[best.variant]
    dense = next((one for one in report.variants if one.baseline and one.group == variant.group), None)
    assert best.speedup is not None
    speed = f"{names[variant.id]} at batch {best.batch}, {digits(best.images_per_second)} images/s"
    return f"Fastest: {speed}, {interval_text(best.speedup)} times as fast as dense{_change(variant, dense)}."


def _change(variant: Variant, dense: Variant | None) -> str:
    if variant.accuracy is None:
        return ""
    if variant.accuracy.measure is AccuracyMeasure.AGREEMENT:
        return f"; it agrees with dense on {variant.accuracy.percent:.1f} % of the images"
    text = f"; top-1 {variant.accuracy.percent:.1f} %"
    known = None if dense is None else dense.accuracy
    return text if known is None else f"{text}, {signed(variant.accuracy.percent - known.percent, 1)} points to dense"


def _artifacts(report: Report) -> Table:
    """Returns every variant with its artifact's id and the hash of its ONNX file."""
    names, rows = names_of(report.variants), []
    for part in by_group(report):
        series = series_of(part)
        for variant in ordered_variants(part):
            weights = "never trained (random)" if variant.random_weights else "trained"
            name = Cell(names[variant.id], series=series[variant.id])
            rows.append(Row.of([name, variant.id, weights, variant.model_sha256]))
    columns = [words("variant"), words("id"), words("weights"), words("SHA-256 of the ONNX file")]
    return Table.of("Artifacts", columns, rows)


def _plots(part: Report, index: int) -> tuple[Plot, ...]:
    made = []
    lines = [line for variant in ordered_variants(part) if (line := _speedups(part, variant))]
    if any(len(line.points) > 1 for line in lines):  # one batch size is a dot, which the table says better
        in_words = [
            f"{variant.label}, batch {batch}: {interval_text(row.speedup)}, MAC ratio {row.mac_ratio:.2f}."
            for batch, rows in by_batch(part)
            for variant, row in rows
            if row.speedup
        ]
        names = Names(f"speedup-{index}", "Speed-up over dense against batch size", " ".join(in_words))
        svg = ratio_plot(lines, names, "images per request (log scale)", "times as fast as dense", "dense")
        made.append(Plot("Speed-up", svg, _SPEED_CAPTION))
    if part.rows:
        made.append(Plot("Time of each round", _rounds(part, index), _ROUNDS_CAPTION))
    return tuple(made)


def _speedups(part: Report, variant: Variant) -> Line | None:
    rows = [row for _, rows in by_batch(part) for other, row in rows if other is variant and row.speedup]
    if not rows:
        return None
    points = tuple(
        Point(row.batch, row.speedup.median, row.speedup.low, row.speedup.high) for row in rows if row.speedup
    )
    ratios = tuple((float(row.batch), row.mac_ratio) for row in rows)
    ends = sorted({f"{ratio:.2f}" for _, ratio in ratios}, key=float)
    legend = f"{shorten(variant.label, 21)} (dashed: MAC ratio {'–'.join(dict.fromkeys((ends[0], ends[-1])))})"
    return Line(legend, series_of(part)[variant.id], points, ratios)


def _rounds(part: Report, index: int) -> str:
    """Draws every measured time over the median of dense at its batch size, or of the first variant without dense."""
    series, groups, in_words = series_of(part), [], []
    firsts = [rows[0][0] for _, rows in by_batch(part)]
    reference = "dense" if all(variant.baseline for variant in firsts) else "first variant's"
    for batch, rows in by_batch(part):
        strips = []
        for variant, row in rows:
            strip = _strip(variant, row, rows[0][1].p50_ms, series[variant.id])
            strips.append(strip)
            middle = f"middle 80 % from {strip.p10:.2f} to {strip.p90:.2f}"
            in_words.append(f"Batch {batch}, {variant.label}: median {strip.value}, {middle}.")
        groups.append(StripGroup(f"Batch {batch}", tuple(strips)))
    title = f"Every measured time, relative to the {reference} median of its batch size"
    label = f"time ÷ {reference} median of the same batch size"
    return strip_plot(groups, Names(f"samples-{index}", title, " ".join(in_words)), label)


def _strip(variant: Variant, row: BenchRow, first_ms: float, series: int) -> Strip:
    samples = np.asarray(row.seconds) * 1e3 / first_ms
    p10, p50, p90 = (float(q) for q in np.quantile(samples, (0.1, 0.5, 0.9)))
    value = f"{digits(row.p50_ms)} ms"
    return Strip(variant.label, value, series, tuple(samples.tolist()), p10, p50, p90)
