"""The tables and lists of a report's HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sait_deploy.bench.cells import (
    HEADINGS,
    REFUSAL_HEADINGS,
    STAGE_HEADINGS,
    STAGE_TEXT,
    STAGE_TITLE,
    Cells,
    baseline_of,
    by_batch,
    by_runtime,
    cells,
    ordered_variants,
    refusal_rows,
    stage_rows,
)
from sait_deploy.bench.plot import tone_class
from sait_deploy.bench.results import Report, Variant, names_of
from sait_deploy.reports.escape import escape_html


class Place(NamedTuple):
    """Where on the page a section stands.

    Attributes:
        where: what its headings end in: nothing, or which runtime it is of.
        suffix: what its element ids end in.
    """

    where: str
    suffix: str


def tones_of(part: Report) -> dict[str, int]:
    """Returns variant id to tone, of a report of one runtime: what has the same place in each has the same colour."""
    return {variant.id: tone for tone, variant in enumerate(ordered_variants(part))}


def figures_table(part: Report, place: Place) -> str:
    """Returns the figures of a report of one runtime, or nothing where it has none."""
    tones, baseline = tones_of(part), baseline_of(part)
    heads = "".join(
        f'<th scope="col" class="{name}">{escape_html(heading)}</th>'
        for name, heading in zip(Cells._fields, HEADINGS, strict=True)
    )
    bodies = []
    for batch, rows in by_batch(part):
        lines = []
        for position, (variant, row) in enumerate(rows):
            texts = cells(row, variant, baseline)._asdict()
            # One cell for all rows of a batch size.
            span = f'<th scope="rowgroup" class="batch" rowspan="{len(rows)}">{batch}</th>' if position == 0 else ""
            name = f'<th scope="row" class="variant">{_swatch(tones[variant.id])}{escape_html(texts["variant"])}</th>'
            rest = "".join(
                f'<td class="{name}">{escape_html(text)}</td>'
                for name, text in texts.items()
                if name not in ("batch", "variant")
            )
            lines.append(f"<tr{_baseline_class(variant)}>{span}{name}{rest}</tr>\n")
        bodies.append("<tbody>" + "".join(lines) + "</tbody>")
    if not bodies:
        return ""
    return _titled(f"All figures{place.where}", f"figures{place.suffix}", heads, "".join(bodies))


def stages_table(part: Report, place: Place) -> str:
    """Returns where the time of rows goes, or nothing where none of them says so."""
    rows = stage_rows(part)
    if not rows:
        return ""
    table = _plain_table(f"{STAGE_TITLE}{place.where}", f"stages{place.suffix}", STAGE_HEADINGS._asdict(), rows)
    return f'{table}<p class="soft">{STAGE_TEXT}</p>\n'


def refusals_table(part: Report, place: Place) -> str:
    """Returns what could not run and why, or nothing where all did."""
    rows = refusal_rows(part)
    if not rows:
        return ""
    return _plain_table(f"Without figures{place.where}", f"refusals{place.suffix}", REFUSAL_HEADINGS._asdict(), rows)


def _plain_table(heading: str, ident: str, headings: Mapping[str, str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f'<th scope="col" class="{name}">{escape_html(text)}</th>' for name, text in headings.items())
    lines = []
    for row in rows:
        texts = "".join(
            f'<td class="{name}">{escape_html(text)}</td>' for name, text in zip(headings, row, strict=True)
        )
        lines.append(f"<tr>{texts}</tr>\n")
    return _titled(heading, ident, heads, f"<tbody>{''.join(lines)}</tbody>")


def _titled(heading: str, ident: str, heads: str, bodies: str) -> str:
    return (
        f'<h2 id="{ident}">{escape_html(heading)}</h2>'
        f'<div class="scroll" role="region" aria-labelledby="{ident}" tabindex="0">'
        f"<table><thead><tr>{heads}</tr></thead>{bodies}</table></div>\n"
    )


def _baseline_class(variant: Variant) -> str:
    return ' class="baseline"' if variant.baseline else ""


def _swatch(tone: int) -> str:
    return f'<i class="swatch {tone_class(tone)}" aria-hidden="true"></i>'


def listings(report: Report) -> str:
    """Returns environment, what is behind each runtime, and options as lists."""
    lists = [_listing("Environment", report.environment)]
    lists += [_listing(f"Runtime {info.name}", info.environment) for info in report.runtimes]
    return '<div class="lists">' + "".join([*lists, _listing("Options", report.options)]) + "</div>"


def _listing(heading: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    items = "".join(f"<dt>{escape_html(name)}</dt><dd>{escape_html(value)}</dd>" for name, value in values.items())
    return f"<section><h2>{escape_html(heading)}</h2><dl>{items}</dl></section>\n"


def artifacts(report: Report) -> str:
    """Returns every variant with the hash of its ONNX file."""
    items, names = [], names_of(report.variants)
    for part in by_runtime(report):
        tones = tones_of(part)
        for variant in ordered_variants(part):
            facts = ["weights never trained (random)" if variant.random_weights else "trained weights"]
            if variant.accuracy is not None:
                facts.append(f"accuracy over {variant.accuracy.images:,} images")
            items.append(
                f"<dt>{_swatch(tones[variant.id])}{escape_html(names[variant.id])}</dt>"
                f"<dd>{escape_html(variant.id)} · {' · '.join(facts)}<br>"
                f'<span class="soft">SHA-256</span> <code>{escape_html(variant.model_sha256)}</code></dd>'
            )
    return f'<h2>Artifacts</h2><dl class="artifacts">{"".join(items)}</dl>\n'
