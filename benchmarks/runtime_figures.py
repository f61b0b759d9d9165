"""The figures across runtimes and precisions, and beside other methods."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.common import OPENVINO_LOWERING, read_result
from sait_deploy.exporters.lower_openvino import LOWERING

GROUPS: Final = {
    "onnxruntime fp32": "ONNX Runtime fp32",
    "openvino fp32": "OpenVINO fp32",
    "openvino bf16": "OpenVINO bf16",
    "onnxruntime int8": "ONNX Runtime int8",
    "openvino int8": "OpenVINO int8",
    "openvino int8+bf16": "OpenVINO int8, rest bf16",
}
"""Runtimes and precisions as the result files name them, and in words."""

_BATCH: Final = 8
"""Batch size whose times stand beside the accuracies of methods."""

_MODELS: Final = {"deit_small_patch16_224": "DeiT-S", "vit_base_patch16_224": "ViT-B"}
_METHODS: Final = {
    "density": "density (SaiT)",
    "adaptive": "mass, packed (SaiT)",
    "padded": "mass, padded to the longest",
    "fused": "top-k and a fused token (EViT)",
    "merging": "bipartite merging (ToMe)",
    "lower resolution": "dense at a lower resolution",
}


def precisions() -> list[str]:
    """Returns the section on runtimes and precisions."""
    found = read_result("precisions_cpu")
    lines = [
        "### Runtimes and precisions",
        "",
        "224 px, random weights, 2 threads, density 0.5 (98 of 196 patch tokens) and the adaptive form at 98 ± 10. The",
        "first number is the speed-up over **the fastest dense of all these runtimes and precisions** at that batch",
        "size, the second the share of the MAC ratio against dense of the same runtime and precision.",
        "",
    ]
    for name, part in found["models"].items():
        lines += _of_model(name, part)
    return lines


def _of_model(name: str, part: dict[str, Any]) -> list[str]:
    batches = sorted({row["batch"] for row in part["rows"]})
    heads = " | ".join(f"batch {batch}" for batch in batches)
    label, versions = _MODELS[name], part["environment"]
    lines = [
        f"{label}, ONNX Runtime {versions['onnxruntime']}, OpenVINO {versions['openvino'].split('-')[0]}, "
        f"{versions['processor']}; the fastest dense is "
        + ", ".join(f"{GROUPS[group]} at batch {batch}" for batch, group in part["fastest_dense"].items())
        + ":",
        "",
        f"| runtime and precision | form | {heads} |",
        f"| --- | --- |{' ---: |' * len(batches)}",
    ]
    rows = {(row["group"], row["variant"], row["batch"]): row for row in part["rows"]}
    for group in GROUPS:
        for variant in dict.fromkeys(variant for one, variant, _ in rows if one == group):
            cells = " | ".join(_cell(rows.get((group, variant, batch))) for batch in batches)
            lines.append(f"| {GROUPS[group]} | {variant} | {cells} |")
    sizes = part["int8_size_over_fp32"].values()
    memory: dict[str, float] = {}
    for row in part["memory"]:
        memory[row["group"]] = max(memory.get(row["group"], 0.0), row["over_dense"])
    peaks = ", ".join(f"{GROUPS[group]} {value:.2f} ×" for group, value in memory.items())
    return [
        *lines,
        "",
        f"int8 files are {min(sizes):.2f} to {max(sizes):.2f} of the fp32 ones. Peak memory of the pruned forms over",
        f"their own dense, at most: {peaks}.",
        *_earlier_lowering(versions),
        "",
    ]


def _earlier_lowering(environment: dict[str, str]) -> list[str]:
    """Returns a sentence where the graphs measured on OpenVINO were not lowered as this version lowers them."""
    measured = environment.get(OPENVINO_LOWERING)
    if measured == str(LOWERING):
        return []
    ran = "an earlier lowering" if measured is None else f"lowering {measured}"
    return [f"OpenVINO ran graphs of {ran} here; those of lowering {LOWERING}, which you run, are not measured."]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["over_fastest_dense"] is None:
        return "–"
    share = "" if row["share"] is None else f" ({row['share']:.2f})"
    return f"{row['over_fastest_dense']['median']:.2f} ×{share}"


def peers() -> list[str]:
    """Returns the section on other methods of saving tokens."""
    found = read_result("peers_cpu")
    levels = list(dict.fromkeys(row["density"] for row in found["accuracy"]["rows"]))
    accuracy = {(row["density"], row["method"]): row["top1_percent"] for row in found["accuracy"]["rows"]}
    dense = next(accuracy[level, "dense"] for level in levels)
    cells = [cell for cell in found["times"]["cells"] if cell["batch"] == _BATCH]
    heads = [GROUPS[f"{cell['runtime']} {cell['precision']}"] for cell in cells]
    lines = [
        "### Beside other methods",
        "",
        "The same weights, runtimes and layout of the graphs, at equal MACs (but a lower resolution, which has some",
        f"more). Accuracy is that of the demonstration model on {found['accuracy']['images']}, at the MACs of three",
        f"densities; dense answers {dense:.1f} % right. Its weights were trained for this selection and for no other",
        "method. Times are",
        f"those of DeiT-S over dense at batch {_BATCH}, with the share of the MAC ratio.",
        "",
        f"| method | {' | '.join(f'right at {level}' for level in levels)} | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * (len(levels) + len(heads))}",
    ]
    for method, label in _METHODS.items():
        right = [f"{accuracy[level, method]:.1f} %" if (level, method) in accuracy else "–" for level in levels]
        timed = [cell["methods"].get(method) for cell in cells]
        fast = ["–" if row is None else f"{row['speedup']['median']:.2f} × ({row['share']:.2f})" for row in timed]
        lines.append(f"| {label} | {' | '.join([*right, *fast])} |")
    earlier = _earlier_lowering(found["environment"])
    return [*lines, "", *([*earlier, ""] if earlier else [])]
