"""What every rendering of a report shares: the order of its rows, its columns, and how figures are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sait_deploy.bench.results import Accuracy, BenchRow, Interval, Refusal, Report, Timing, Variant
from sait_deploy.bench.stats import WARNING

NOTHING: Final = "–"

TIMING_TEXT: Final = {
    Timing.END_TO_END: "from a float32 batch in host memory to logits in host memory",
    Timing.COMPUTE: "the runtime's execution alone, on buffers bound beforehand",
}


class Cells(NamedTuple):
    """One row of the table, as text."""

    batch: str
    variant: str
    kept: str
    gmacs: str
    p50: str
    p99: str
    images: str
    speedup: str
    mac_ratio: str
    share: str
    accuracy: str


HEADINGS: Final = Cells(
    batch="batch",
    variant="variant",
    kept="kept mean / p95 / max",
    gmacs="GMACs / image",
    p50="p50 ms",
    p99="p99 ms",
    images="img/s",
    speedup="speed-up × [95 %]",
    mac_ratio="MAC ratio ×",
    share="share",
    accuracy="top-1 % (Δ)",
)


class StageCells(NamedTuple):
    """Where the time of one row goes, as text."""

    batch: str
    variant: str
    enqueue: str
    upload: str
    compute: str
    download: str


STAGE_HEADINGS: Final = StageCells(
    batch="batch",
    variant="variant",
    enqueue="enqueue ms",
    upload="host to device ms",
    compute="compute ms",
    download="device to host ms",
)

STAGE_TITLE: Final = "Where a request's time goes"
STAGE_TEXT: Final = (
    "Medians. Enqueue is the host's time to start the work, and passes while the device computes; the other three "
    "follow each other on the runner's own stream, by the device's clock."
)


class RefusalCells(NamedTuple):
    """What could not run, as text."""

    batches: str
    variant: str
    why: str


REFUSAL_HEADINGS: Final = RefusalCells(batches="batch", variant="variant", why="in place of figures")


def digits(value: float, significant: int = 3) -> str:
    """Writes a number with that many significant digits and never an exponent: 0.150, 4.61, 1237."""
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])
    return f"{value:.{max(0, significant - 1 - exponent)}f}"


def interval_text(interval: Interval) -> str:
    """Writes a median with its interval: 1.47 [1.43, 1.52]."""
    return f"{interval.median:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def by_runtime(report: Report) -> list[Report]:
    """Returns a report for each runtime with what was measured on it: dense is compared with nowhere else."""
    parts = []
    for info in report.runtimes:
        own = {variant.id for variant in report.variants if variant.runtime == info.name}
        parts.append(
            dataclasses.replace(
                report,
                runtimes=(info,),
                variants=tuple(variant for variant in report.variants if variant.id in own),
                rows=tuple(row for row in report.rows if row.variant in own),
                refusals=tuple(refusal for refusal in report.refusals if refusal.variant in own),
            )
        )
    return parts


def runtimes_text(report: Report) -> str:
    """Names the runtimes: "onnxruntime, tensorrt-rtx"."""
    return ", ".join(info.name for info in report.runtimes)


def baseline_of(report: Report) -> Variant | None:
    """Returns the dense baseline of a report of one runtime, or None of a report without."""
    return next((variant for variant in report.variants if variant.baseline), None)


def ordered_variants(report: Report) -> tuple[Variant, ...]:
    """Returns the variants, the baseline first, the others in the report's order."""
    return tuple(sorted(report.variants, key=lambda variant: not variant.baseline))


def by_batch(report: Report) -> Iterator[tuple[int, list[tuple[Variant, BenchRow]]]]:
    """Yields every batch size that has rows, ascending, with them in the order of ``ordered_variants``."""
    rows = {(row.batch, row.variant): row for row in report.rows}
    for batch in sorted({row.batch for row in report.rows}):
        found = [(v, rows[batch, v.id]) for v in ordered_variants(report) if (batch, v.id) in rows]
        yield batch, found


def ordered_notes(notes: Sequence[str]) -> list[tuple[bool, str]]:
    """Returns (is a warning, text without the word) for every note, warnings first."""
    split = [(note.startswith(WARNING), note.removeprefix(WARNING)) for note in notes]
    return sorted(split, key=lambda pair: not pair[0])


def accuracy_text(variant: Variant, baseline: Variant | None) -> str:
    """Writes top-1 with its difference to the baseline in points, else agreement with dense, else a dash."""
    own = variant.accuracy
    if own is None or (own.top1_percent is None and (variant.baseline or own.agreement_percent is None)):
        return NOTHING
    if own.top1_percent is None:
        return f"agrees {own.agreement_percent:.1f} %"
    decimals = 2 if own.images >= 10_000 else 1
    text = f"{own.top1_percent:.{decimals}f}"
    reference = None if baseline is None or variant.baseline else _comparable(own, baseline.accuracy)
    if reference is None:
        return text
    delta = round(own.top1_percent - reference, decimals)
    sign = "±" if delta == 0 else "+" if delta > 0 else "−"
    return f"{text} ({sign}{abs(delta):.{decimals}f})"


def _comparable(own: Accuracy, baseline: Accuracy | None) -> float | None:
    return baseline.top1_percent if baseline is not None and baseline.images == own.images else None


def kept_text(row: BenchRow) -> str:
    """Writes mean, p95 and the most kept patch tokens, or one number where every image keeps the same."""
    if row.kept_mean == row.kept_p95 == row.kept_max:
        return str(row.kept_max)
    return f"{row.kept_mean:.1f} / {row.kept_p95:.0f} / {row.kept_max}"


def cells(row: BenchRow, variant: Variant, baseline: Variant | None) -> Cells:
    """Returns one row of the table, not yet escaped for any format."""
    return Cells(
        batch=str(row.batch),
        variant=variant.label,
        kept=kept_text(row),
        gmacs=digits(row.macs / 1e9),
        p50=digits(row.p50_ms),
        p99=digits(row.p99_ms),
        images=digits(row.images_per_second),
        speedup=NOTHING if row.speedup is None else interval_text(row.speedup),
        mac_ratio=NOTHING if row.speedup is None else f"{row.mac_ratio:.2f}",
        share=NOTHING if row.share is None else f"{row.share:.0%}".replace("%", " %"),
        accuracy=accuracy_text(variant, baseline),
    )


def stage_rows(report: Report) -> list[StageCells]:
    """Returns where the time of each row goes, of rows that say so."""
    return [
        StageCells(
            batch=str(batch),
            variant=variant.label,
            enqueue=digits(row.stages.enqueue_ms),
            upload=digits(row.stages.upload_ms),
            compute=digits(row.stages.compute_ms),
            download=digits(row.stages.download_ms),
        )
        for batch, rows in by_batch(report)
        for variant, row in rows
        if row.stages is not None
    ]


def refusal_rows(report: Report) -> list[RefusalCells]:
    """Returns what could not run, in the order of ``ordered_variants``."""
    return [
        RefusalCells(", ".join(map(str, refusal.batches)), variant.label, refusal_text(refusal))
        for variant in ordered_variants(report)
        for refusal in report.refusals
        if refusal.variant == variant.id
    ]


def refusal_text(refusal: Refusal) -> str:
    """Says why there are no figures, and what to do about it."""
    return f"cannot run here: {refusal.reason}" + (f"; {refusal.hint}" if refusal.hint else "")
