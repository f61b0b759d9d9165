"""The CSV form of a report: a line for each variant and batch size, without the samples."""

from __future__ import annotations

from sait_deploy.bench.results import Report
from sait_deploy.reports.csv_lines import flat, to_csv


def report_to_csv(report: Report) -> str:
    """Returns every row beside its variant's label, runtime, precision and accuracy."""
    variants = {variant.id: variant for variant in report.variants}
    over = {(one.batch, one.variant): one.speedup for one in report.over_fastest}
    lines = []
    for row in report.rows:
        variant = variants[row.variant]
        lines.append(
            {
                "label": variant.label,
                "runtime": variant.runtime,
                "precision": variant.precision,
                "device": variant.device,
                **flat(row),
                **flat(variant.accuracy, "accuracy"),
                **flat(over.get((row.batch, row.variant)), "over_fastest"),
            }
        )
    return to_csv(lines)
