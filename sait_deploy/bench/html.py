"""A benchmark report as one self-contained HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sait_deploy.bench.cells import (
    TIMING_TEXT,
    by_batch,
    by_runtime,
    digits,
    interval_text,
    ordered_variants,
    runtimes_text,
)
from sait_deploy.bench.htmltables import (
    Place,
    artifacts,
    figures_table,
    listings,
    refusals_table,
    stages_table,
    tones_of,
)
from sait_deploy.bench.plot import STYLE, Point, Series, Strip, StripGroup, ratio_plot, strip_plot
from sait_deploy.bench.results import Report
from sait_deploy.reports.escape import escape_html, shorten
from sait_deploy.reports.table import Severity, warnings_first

_PAGE_STYLE: Final = """
:root{color-scheme:light dark;--amber:#8a5a00;--amber-paper:#fff6e0;--shade:#f5f7f9}
@media (prefers-color-scheme:dark){:root{--amber:#f0c060;--amber-paper:#2b2414;--shade:#1b2027}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.5rem 1rem 4rem}
h1{font-size:clamp(1.3rem,5vw,1.9rem);line-height:1.2;margin:0 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.6rem 0 .8rem}
p{margin:.3rem 0}.soft{color:var(--muted)}
.notes{list-style:none;margin:1.4rem 0 0;padding:0}
.notes li{margin:.4rem 0;padding:.5rem .8rem;border-left:4px solid var(--rule);background:var(--shade);
overflow-wrap:anywhere}
.notes .warning{border-color:var(--amber);background:var(--amber-paper)}.notes strong{color:var(--amber)}
.plots{display:grid;grid-template-columns:1fr;gap:2.5rem}
@media (min-width:900px){.plots{grid-template-columns:1fr 1fr;gap:3.5rem}
.plots figure{position:sticky;top:0;align-self:start}}
figure{margin:0}figure h2{margin-top:2rem}figcaption{margin-top:.8rem;color:var(--muted);font-size:.9rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;text-align:right;white-space:nowrap}
thead th{vertical-align:bottom;white-space:normal;font-weight:600;color:var(--muted);line-height:1.25}
tbody th{font-weight:400}.variant,.accuracy,.why{text-align:left}
.variant{max-width:18rem;white-space:normal;min-width:8rem}
tbody{border-top:1px solid var(--rule)}table tbody:last-child{border-bottom:1px solid var(--rule)}
tr.baseline>:not(.batch){background:var(--shade)}tbody .batch{font-weight:600;vertical-align:top}
thead .speedup,thead .accuracy{white-space:nowrap}.why{white-space:normal;min-width:14rem}
.swatch{display:inline-block;width:.7em;height:.7em;border-radius:50%;background:var(--tone);margin-right:.5em}
.lists{display:grid;grid-template-columns:1fr;gap:0 3.5rem}
@media (min-width:900px){.lists{grid-template-columns:1fr 1fr}}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.25rem 1.2rem;margin:0;font-size:.9rem}
dt{color:var(--muted);max-width:14rem}dt,dd{margin:0;overflow-wrap:anywhere;min-width:0}
dl.artifacts{grid-template-columns:minmax(6rem,1fr) 3fr}
code{font:.85em ui-monospace,monospace}
@media print{figure,tr{break-inside:avoid}}
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"

_SHARE_TEXT: Final = (
    "Speed-up is the dense time over the variant's time, paired by round, with a 95 % interval. The MAC ratio is the "
    "speed-up there would be if only multiply-accumulates cost time; share is how much of it was reached."
)


def to_html(report: Report) -> str:
    """Returns the report as one HTML page.

    Notes come first, warnings before the others; then of each runtime speed-ups and samples as plots, the tables; then
    the environment, the options and the artifacts with their hashes. All text of the report is escaped.
    """
    parts = by_runtime(report)
    sections = [_section(part, index if len(parts) > 1 else None) for index, part in enumerate(parts)]
    made = "".join((_header(report), _notes(report), *sections, listings(report), artifacts(report)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape_html(report.model)}: benchmark</title>"
        f"<style>{STYLE}{_PAGE_STYLE}</style></head>\n<body><main>\n{made}</main></body></html>\n"
    )


def _section(part: Report, index: int | None) -> str:
    """Returns what there is of one runtime; with an index, one of several, headings name it."""
    place = Place("" if index is None else f" on {runtimes_text(part)}", f"-{index or 0}")
    tones = tones_of(part)
    figures = _ratio_figure(part, tones, place) + _strip_figure(part, tones, place)
    plots = f'<div class="plots">{figures}</div>' if figures else ""
    return plots + figures_table(part, place) + stages_table(part, place) + refusals_table(part, place)


def _header(report: Report) -> str:
    # A long model name breaks after an underscore.
    model = escape_html(report.model).replace("_", "_<wbr>")
    return (
        f"<header><h1>{model}</h1>"
        f"<p>Benchmark on {escape_html(runtimes_text(report))}, measured {escape_html(report.created)}</p>"
        f'<p class="soft">Times are {escape_html(report.timing)}: {TIMING_TEXT[report.timing]}.</p></header>\n'
    )


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = []
    for note in warnings_first(report.notes):
        opening = '<li class="warning"><strong>Warning:</strong> ' if note.severity is Severity.WARNING else "<li>"
        items.append(f"{opening}{escape_html(note.text)}</li>")
    return '<ul class="notes" aria-label="Notes">' + "".join(items) + "</ul>\n"


def _ratio_figure(report: Report, tones: Mapping[str, int], place: Place) -> str:
    series, told = [], []
    for variant in ordered_variants(report):
        rows = [row for _, rows in by_batch(report) for other, row in rows if other is variant and row.speedup]
        points = tuple(
            Point(row.batch, row.speedup.median, row.speedup.low, row.speedup.high) for row in rows if row.speedup
        )
        if not points:
            continue
        ratios = tuple((float(row.batch), row.mac_ratio) for row in rows)
        ends = sorted({f"{ratio:.2f}" for _, ratio in ratios}, key=float)
        legend = f"{shorten(variant.label, 21)} (dashed: MAC ratio {'–'.join(dict.fromkeys((ends[0], ends[-1])))})"
        series.append(Series(legend, tones[variant.id], points, ratios))
        told += [
            f"{variant.label}, batch {row.batch}: {interval_text(row.speedup)}, MAC ratio {row.mac_ratio:.2f}."
            for row in rows
            if row.speedup
        ]
    if not series:
        return ""
    svg = ratio_plot(
        series,
        ident=f"speedup{place.suffix}",
        title=f"Speed-up over dense against batch size{place.where}",
        desc=" ".join(told),
        x_label="images per request (log scale)",
        y_label="times as fast as dense",
        unity="dense",
    )
    return f"<figure><h2>Speed-up{escape_html(place.where)}</h2>{svg}<figcaption>{_SHARE_TEXT}</figcaption></figure>\n"


def _strip_figure(report: Report, tones: Mapping[str, int], place: Place) -> str:
    groups, told = [], []
    firsts = [rows[0][0] for _, rows in by_batch(report)]
    reference = "dense" if all(variant.baseline for variant in firsts) else "first variant's"
    for batch, rows in by_batch(report):
        first = rows[0][1].p50_ms
        strips = []
        for variant, row in rows:
            samples = np.asarray(row.seconds) * 1e3 / first
            p10, p50, p90 = (float(q) for q in np.quantile(samples, (0.1, 0.5, 0.9)))
            value = f"{digits(row.p50_ms)} ms"
            strips.append(Strip(variant.label, value, tones[variant.id], tuple(samples.tolist()), p10, p50, p90))
            told.append(f"Batch {batch}, {variant.label}: median {value}, middle 80 % from {p10:.2f} to {p90:.2f}.")
        groups.append(StripGroup(f"Batch {batch}", tuple(strips)))
    if not groups:
        return ""
    svg = strip_plot(
        groups,
        ident=f"samples{place.suffix}",
        title=f"Every measured time, relative to the {reference} median of its batch size{place.where}",
        desc=" ".join(told),
        x_label=f"time ÷ {reference} median of the same batch size",
    )
    caption = (
        "A dot is one round, the first at a strip's top and the last at its bottom, so a slant is drift. Shaded: the "
        "middle 80 % of the rounds; bar: their median, in milliseconds at the right. Of more than 200 rounds, 200 are "
        "drawn, evenly by rank and with both extremes. Times beyond the axis stand at its end and are counted beside."
    )
    heading = f"Time of each round{escape_html(place.where)}"
    return f"<figure><h2>{heading}</h2>{svg}<figcaption>{caption}</figcaption></figure>\n"
