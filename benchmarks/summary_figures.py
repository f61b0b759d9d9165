"""The README's one table: what pruning gains over the fastest dense build, and what it costs in accuracy."""

from __future__ import annotations

import statistics
from typing import Any, Final

from benchmarks.common import read_result
from benchmarks.runtime_figures import GROUPS

_MODEL: Final = "deit_small_patch16_224"
_BATCH: Final = 8
_MEASURED: Final = {"onnxruntime fp32": "fp32", "openvino bf16": "bf16", "onnxruntime int8": "int8"}
"""Where the demonstration model's answers were compared, and the precision that they stand under in the result file."""

_FORMS: Final = ("dense", "density 0.5", "kept 98 ± 10")


def summary() -> list[str]:
    """Returns the table of DeiT-S's speed on each runtime and precision, and the demonstration model's accuracy."""
    part = read_result("precisions_cpu")["models"][_MODEL]
    versions, rows = part["environment"], {(row["group"], row["variant"], row["batch"]): row for row in part["rows"]}
    changes = accuracy_by_precision(read_result("int8_accuracy")["rows"])
    software = f"ONNX Runtime {versions['onnxruntime']} and OpenVINO {versions['openvino'].split('-')[0]}"
    fastest = GROUPS[part["fastest_dense"][str(_BATCH)]]
    lines = [
        f"DeiT-S, batch {_BATCH}, 2 threads, {versions['processor']}, {software}.",
        f"Speed is over **the fastest dense of all**, {fastest}. Accuracy is the demonstration model's:",
        "top-1 at density 0.5 less that of dense fp32, in points, over the weights of three seeds.",
        "",
        "| runtime and precision | dense | density 0.5 | 98 ± 10 of 196 tokens | top-1 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for group, name in GROUPS.items():
        speeds = " | ".join(f"{rows[group, form, _BATCH]['over_fastest_dense']['median']:.2f} ×" for form in _FORMS)
        change = changes.get(_MEASURED.get(group, ""))
        lines.append(f"| {name} | {speeds} | {'not measured' if change is None else change} |")
    return [
        *lines,
        "",
        "On the demonstration's data masses are no better than densities at equal cost: a convenience, not a gain.",
        "`--threshold` may gain where few tokens are left ([when adapting pays](docs/when-adapting-pays.md)).",
        "All results: [benchmarks/RESULTS.md](benchmarks/RESULTS.md).",
    ]


def accuracy_by_precision(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Returns top-1 at density 0.5 less that of dense fp32, in points, mean and spread over weights, by precision."""
    dense = {row["weights"]: row["fp32_top1"] for row in rows if row["artifact"].endswith("-dense")}
    half = [row for row in rows if row["artifact"].endswith("-density0.5")]
    changes: dict[str, list[float]] = {}
    for row in half:
        changes.setdefault(row["precision"], []).append(row["top1"] - dense[row["weights"]])
    first = half[0]["precision"]
    changes["fp32"] = [row["fp32_top1"] - dense[row["weights"]] for row in half if row["precision"] == first]
    return {name: _spread(values) for name, values in changes.items()}


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):+.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
