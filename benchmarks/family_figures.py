"""The figures of other families than plain ViTs, and of int8 and bf16 answers."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.common import read_result
from benchmarks.runtime_figures import GROUPS

_NAMES: Final = {"vit_small_patch16_dinov3": "DINOv3 ViT-S/16", "vit_base_patch16_siglip_224": "SigLIP ViT-B/16"}


def families() -> list[str]:
    """Returns the section on the shares of the MAC ratio that families with other attention reach."""
    found = read_result("families_cpu")
    lines = [
        "### Rotary positions and attention pooling",
        "",
        "Random weights, 2 threads: speed-up over dense, same runtime and precision, in brackets the share of the",
        "MAC ratio. DINOv3 gathers its rotary positions with the kept tokens, SigLIP pools by attention over them.",
        "",
    ]
    for name, part in found["models"].items():
        rows = {(row["group"], row["variant"], row["batch"]): row for row in part["rows"]}
        batches = sorted({batch for _, _, batch in rows})
        versions = part["environment"]
        software = f"ONNX Runtime {versions['onnxruntime']}, OpenVINO {versions['openvino'].split('-')[0]}"
        missed = [
            f"{GROUPS[one['group']]}, {one['variant']}, batch {one['batch']} ({one['share']:.2f})"
            for one in part["judged"]
            if not one["reached"]
        ]
        lines += [
            f"{_NAMES[name]}, kept {part['kept']}, {versions['processor']}, {software}:",
            "",
            f"| runtime and precision | form | {' | '.join(f'batch {batch}' for batch in batches)} |",
            f"| --- | --- |{' ---: |' * len(batches)}",
            *_rows(rows, batches),
            "",
            f"Target: a share of {part['target']} at batch 8 and 32, of ONNX Runtime and of the fastest dense; "
            + ("reached." if not missed else f"missed by {'; '.join(missed)}."),
            "",
        ]
    return lines


def _rows(rows: dict[tuple[str, str, int], dict[str, Any]], batches: list[int]) -> list[str]:
    lines = []
    for group, variant in dict.fromkeys((group, variant) for group, variant, _ in rows if variant != "dense"):
        cells = [
            f"{row['over_own_dense']['median']:.2f} × ({row['share']:.2f})"
            for row in (rows[group, variant, batch] for batch in batches)
        ]
        lines.append(f"| {GROUPS[group]} | {variant} | {' | '.join(cells)} |")
    return lines


def int8_accuracy() -> list[str]:
    """Returns the section on what int8 and bf16 change in the demonstration model's answers."""
    found = read_result("int8_accuracy")
    lines = [
        "### Answers in int8 and bf16",
        "",
        f"The demonstration model, {found['images']}, the weights of each seed. Change of top-1 from fp32 at the",
        "same point, in points, and how many answers are fp32's; the worst of the seeds.",
        "",
        "| precision | artifact | point | change | same answers |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    by_point: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        name = row["artifact"].removeprefix(f"{found['model']}-")
        by_point.setdefault((row["precision"], name, row["point"] or "–"), []).append(row)
    for (precision, name, point), rows in sorted(by_point.items()):
        worst = max(rows, key=lambda row: abs(row["change"]))
        least = min(row["agreement"] for row in rows)
        lines.append(f"| {precision} | {name} | {point} | {worst['change']:+.2f} | {least:.2f} % |")
    met = sum(row["met"] for row in found["rows"])
    targets = found["targets"]
    return [
        *lines,
        "",
        f"{met} of {len(found['rows'])} rows keep to the targets:",
        f"{targets['largest_change']['int8']} points at most in int8 and {targets['largest_change']['bf16']} in bf16,",
        f"{targets['least_int8_agreement']} % of int8's answers at least.",
        "",
    ]
