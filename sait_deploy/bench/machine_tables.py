"""A benchmark's tables of memory, and of each row's share of what the machine can do."""

from __future__ import annotations

from typing import Final

from sait_deploy.bench.machine_results import ProductRate, Roofline
from sait_deploy.bench.results import BenchRow, Report, names_of
from sait_deploy.bench.tables import BATCH
from sait_deploy.reports.table import Note, Row, Severity, Table, figures, words
from sait_deploy.reports.wording import NOTHING, digits
from sait_deploy.runtime.precision import RunPrecision

_WEIGHT_BYTES: Final = {
    RunPrecision.FP32: 4,
    RunPrecision.BF16: 2,
    RunPrecision.FP16: 2,
    RunPrecision.INT8: 1,
    RunPrecision.INT8_BF16: 1,
    RunPrecision.INT8_FP16: 1,
}
_MEMORY_NOTE: Final = Note(
    "Host memory of a process of its own that loads the variant and answers the batch three times. Before: the "
    "interpreter, the imported runtime and the images; its own: the peak less that."
)
_SHARES_NOTE: Final = Note(
    "Products: two operations for each multiply-accumulate, over the rate of matrix products on the same device in "
    "the same precision. Weights: reading every parameter once a request, over the rate of that device's memory; what "
    "else is read is not in it."
)
_MOST_PERCENT: Final = 105
_ABOVE_NOTE: Final = Note(
    "some rows do more than the rate measured: the machine was busier when that was measured; measure again",
    Severity.WARNING,
)


def machine_tables(report: Report) -> tuple[Table, ...]:
    """Returns the tables of memory and of the machine's rates; those of which nothing was measured have no rows."""
    return memory_table(report), rates_table(report), shares_table(report)


def memory_table(report: Report) -> Table:
    """Returns the peak memory of every variant, and over that of dense in its group."""
    variants, names = {variant.id: variant for variant in report.variants}, names_of(report.variants)
    memory = report.memory or ()
    dense = {variants[one.variant].group: one for one in memory if variants[one.variant].baseline}
    rows = []
    for one in memory:
        variant = variants[one.variant]
        base = dense.get(variant.group)
        compared = base is not None and not variant.baseline and base.batch == one.batch
        over = f"{one.own_bytes / base.own_bytes:.2f}" if compared and base is not None else NOTHING
        megabytes = (digits(count / 1e6) for count in (one.imported_bytes, one.own_bytes, one.peak_bytes))
        rows.append(Row.of([names[one.variant], str(one.batch), *megabytes, over], reference=variant.baseline))
    headings = (("before", "MB"), ("its own", "MB"), ("peak", "MB"), ("its own over dense's", "×"))
    columns = [words("variant"), figures("batch"), *(figures(*heading) for heading in headings)]
    return Table.of("Peak memory", columns, rows, [_MEMORY_NOTE] if rows else ())


def rates_table(report: Report) -> Table:
    """Returns the rates of matrix products and of memory."""
    rows: list[tuple[str, str, str]] = []
    if report.roofline is not None:
        processor = report.environment.get("processor", "processors")
        for rate in report.roofline.rates:
            what = f"matrix products on {rate.by or rate.runtime} in {rate.precision}"
            what += "" if rate.by in ("", rate.runtime) else f", for {rate.runtime}"
            rows.append((what, rate.device or processor, f"{digits(rate.operations_per_second / 1e9)} G operations/s"))
        copies = {processor: report.roofline.bytes_per_second, **report.roofline.device_bytes_per_second}
        rows += [
            ("memory, reading and writing", where, f"{digits(copied / 1e9)} GB/s") for where, copied in copies.items()
        ]
    return Table.of("What this machine can do", [words("what"), words("device"), figures("fastest run")], rows)


def shares_table(report: Report) -> Table:
    """Returns each row's share of the rates."""
    rows = []
    if report.roofline is not None:
        variants, names = {variant.id: variant for variant in report.variants}, names_of(report.variants)
        rates = {(rate.runtime, rate.precision.value): rate for rate in report.roofline.rates}
        before: int | None = None
        for row in sorted(report.rows, key=lambda row: row.batch):
            variant = variants[row.variant]
            rate = rates.get((variant.runtime, variant.precision or ""))
            shares = (_products_share(row, rate), _weights_share(row, rate, report.roofline))
            cells = [str(row.batch), names[variant.id], variant.precision or NOTHING, *shares]
            rows.append(Row.of(cells, begins_group=row.batch != before, reference=variant.baseline))
            before = row.batch
    columns = [BATCH, words("variant"), words("in"), figures("of products", "%"), figures("of memory, weights", "%")]
    notes = [_SHARES_NOTE] if rows else []
    if any(row.cells[3].text not in (NOTHING, "") and float(row.cells[3].text) > _MOST_PERCENT for row in rows):
        notes.append(_ABOVE_NOTE)
    return Table.of("Share of what this machine can do", columns, rows, notes)


def _products_share(row: BenchRow, rate: ProductRate | None) -> str:
    if rate is None:
        return NOTHING
    return f"{100 * 2 * row.macs * row.images_per_second / rate.operations_per_second:.0f}"


def _weights_share(row: BenchRow, rate: ProductRate | None, roofline: Roofline) -> str:
    if rate is None:
        return NOTHING
    own = roofline.device_bytes_per_second.get(rate.device) if rate.device else roofline.bytes_per_second
    read = roofline.parameters * _WEIGHT_BYTES[rate.precision]
    return NOTHING if own is None else f"{100 * read * row.images_per_second / row.batch / own:.1f}"
