"""Writes the README's figures from the committed result files, so that none can be there without one.

python -m benchmarks.figures
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import RESULTS

README: Final = Path(__file__).parent.parent / "README.md"
START: Final = "<!-- figures: python -m benchmarks.figures -->"
END: Final = "<!-- end of figures -->"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _speed() -> list[str]:
    found = _read("density_cpu")
    machine = found["environment"]
    where = f"ONNX Runtime {machine['onnxruntime']} on CPU, 2 threads ({machine['processor']})"
    lines = [
        "### Speed",
        "",
        f"DeiT-S, 224 px, fp32, {where},",
        "against the flat dense baseline of the same weights, interleaved run by run. Share is measured speed-up over",
        "MAC ratio; it may pass 1, as softmax shrinks with the square of the tokens and is no MAC.",
        "",
        "| batch | density | speed-up [95 %] | MAC ratio | share |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["shares"]:
        speed = row["speedup"]
        lines.append(
            f"| {row['batch']} | {row['variant'].removeprefix('density ')} "
            f"| {speed['median']:.2f} × [{speed['low']:.2f}, {speed['high']:.2f}] "
            f"| {row['mac_ratio']:.2f} × | {row['share']:.2f} |"
        )
    plain = ", ".join(
        f"{row['plain_over_flat_dense']['median']:.2f} × at batch {row['batch']}" for row in found["against_timm"]
    )
    lines += ["", f"timm's own forward, exported plainly, against flat dense: its time is {plain}.", ""]
    return [*lines, *_single_image()]


def _single_image() -> list[str]:
    found = _read("batch1_profile")
    over, whole = found["over_mac_share_us"], found["profiles"]["density 0.6"]["run_us"]

    def share(name: str) -> str:
        return f"{over[name] / whole:.1%}"

    return [
        f"Where a single image's saved work does not become time (density 0.6, profiled; {share('whole')} of its run):",
        "",
        f"- {share('matrix products on fewer rows (Gemm)')}: matrix products, which run less well on fewer rows;",
        f"- {share('all other operators')}: norms, activations and copies, which are no MACs;",
        f"- {share('between operators')}: between operators;",
        f"- {share('operators that only the pruned graph has')}: the {over['nodes more']} nodes that selection adds.",
        "",
    ]


def _accuracy() -> list[str]:
    found = _read("demo_densities")
    dense = found["dense_top1_percent"]
    lines = [
        "### Accuracy",
        "",
        f"The demonstration model, trained dense only, on {found['images']} held-out compositions: "
        f"{dense:.1f} % right when dense.",
        "Change of top-1 in points when pruned in block 1 or 2, by score, beside random and least-important controls.",
        "With so few images, changes below about a point are within chance.",
        "",
        "| block | density | MAC ratio | `mean` | `cls` | random | least important |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        top1 = row["top1_percent"]
        changes = " | ".join(f"{top1[name] - dense:+.1f}" for name in ("mean", "cls", "random", "least important"))
        lines.append(f"| {row['prune_at']} | {row['density']} | {row['mac_ratio']:.2f} × | {changes} |")
    return [*lines, ""]


def _cost() -> list[str]:
    ratios = _read("export_cost")["ratios"]
    return [
        "### Cost of exporting",
        "",
        f"Against plain `torch.onnx.export` of the same model (DeiT-S, parity left out): a dense artifact takes "
        f"{ratios['dense']['time_ratio']:.2f} ×",
        f"the time and {ratios['dense']['memory_ratio']:.2f} × the peak memory, a density artifact "
        f"{ratios['density']['time_ratio']:.2f} × and {ratios['density']['memory_ratio']:.2f} ×. "
        f"`sait-deploy --help` takes {ratios['help_ratio']:.1f} ×",
        "the time of `python -c pass`.",
        "",
    ]


def section() -> str:
    """Returns the README's section of figures, between its markers."""
    lines = [START, "## Figures", "", *_speed(), *_accuracy(), *_cost()]
    lines.append("Result files and the commands that make them: [benchmarks/](benchmarks/README.md).")
    return "\n".join([*lines, END])


@click.command()
def main() -> None:
    """Rewrite the README's figures."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(before + section() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
