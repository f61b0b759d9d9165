"""The figures of other families than plain ViTs, and of int8 and bf16 answers."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.common import read_result
from benchmarks.runtime_figures import GROUPS

_NAMES: Final = {
    "vit_small_patch16_dinov3": "DINOv3 ViT-S/16",
    "vit_base_patch16_siglip_224": "SigLIP ViT-B/16",
    "lvvit_small": "LV-ViT-S",
    "vit_base_patch16_siglip_384": "SigLIP ViT-B/16 at 384 px",
}


def families() -> list[str]:
    """Returns the section on the shares of the MAC ratio that families with other attention reach."""
    found = read_result("families_cpu")
    lines = [
        "### Rotary positions, attention pooling, a head over tokens",
        "",
        "Random weights, 2 threads: speed-up over dense, same runtime and precision, in brackets the share of the",
        "MAC ratio. DINOv3 gathers its rotary positions with the kept tokens, SigLIP pools by attention over them,",
        "LV-ViT has a convolutional stem and a head over every kept token.",
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
            f"Target: a share of {part['target']} at batch {_judged_batches(part)}, of ONNX Runtime and of the fastest "
            "dense; " + ("reached." if not missed else f"missed by {'; '.join(missed)}."),
            *_memory(part),
            "",
        ]
    return lines


def _judged_batches(part: dict[str, Any]) -> str:
    return " and ".join(str(batch) for batch in sorted({one["batch"] for one in part["judged"]}))


def _memory(part: dict[str, Any]) -> list[str]:
    """Returns the line on peak memory over dense's, where it was measured: at the largest batch size."""
    found = part.get("memory")
    if not found:
        return []
    shown = "; ".join(f"{GROUPS[one['group']]}, {one['variant']} {one['over_dense']:.2f}" for one in found)
    missed = [one for one in found if one["over_dense"] > 1]
    verdict = "reached" if not missed else f"missed by {len(missed)} of {len(found)}"
    batch = max(row["batch"] for row in part["rows"])
    return ["", f"Peak memory over dense's at batch {batch}: {shown}. Target: no more than dense; {verdict}."]


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
