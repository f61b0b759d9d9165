"""Writes RESULTS.md and the README's table from the committed result files, so that no figure is there without one.

python -m benchmarks.figures
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from benchmarks.accuracy_figures import accuracy
from benchmarks.common import read_result
from benchmarks.cost_curve_figures import cost_curve
from benchmarks.dense_task_figures import segmentation
from benchmarks.family_figures import families, int8_accuracy
from benchmarks.runtime_figures import peers, precisions
from benchmarks.serving_figures import serving
from benchmarks.summary_figures import summary

README: Final = Path(__file__).parent.parent / "README.md"
RESULTS: Final = Path(__file__).parent / "RESULTS.md"
START: Final = "<!-- figures: python -m benchmarks.figures -->"
END: Final = "<!-- end of figures -->"


def _speed() -> list[str]:
    found = read_result("density_cpu")
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
    return lines


def _by_batch(entries: list[dict[str, Any]], name: str) -> str:
    return ", ".join(f"{entry[name]['median']:.2f} × at batch {entry['batch']}" for entry in entries)


def _targets(rows: list[dict[str, Any]]) -> str:
    """Returns the targets of rows, one a batch size or one for all, and the batch sizes that miss theirs."""
    targets = [f"{row['target']:.2f}" for row in rows]
    missed = ", ".join(str(row["batch"]) for row in rows if not row["reached"])
    return f"{', '.join(targets if len(set(targets)) > 1 else targets[:1])} (missed at {missed or 'none'})"


def _adaptive() -> list[str]:
    found = read_result("adaptive_cpu")
    lines = [
        "### Speed of the adaptive form",
        "",
        "The same model and machine, each image with its own number of kept tokens, 105 ± 25 of 196, forced, against",
        "the dense baseline. Linear layers run on the sum of the kept tokens, attention is padded to the longest.",
        "",
        "| batch | speed-up [95 %] | MAC ratio | share |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in found["spread_counts"]:
        speed = row["speedup"]
        lines.append(
            f"| {row['batch']} | {speed['median']:.2f} × [{speed['low']:.2f}, {speed['high']:.2f}] "
            f"| {row['mac_ratio']:.2f} × | {row['share']:.2f} |"
        )
    peaks = found["peak_memory"]["batches"]
    memory = ", ".join(f"{max(row['over_dense'].values()):.2f} × at batch {row['batch']}" for row in peaks)
    return [
        *lines,
        "",
        f"With equal counts it takes {_by_batch(found['equal_counts'], 'time_over_density')} of the density",
        "artifact's time;",
        f"at mass 1, where nothing is pruned, {_by_batch(found['mass_1'], 'time_over_dense')} of dense.",
        f"Peak memory over dense, with forced counts or at mass 1: {memory}.",
        f"Targets, and batch sizes that miss them: share of {_targets(found['spread_counts'])};",
        f"time over density {_targets(found['equal_counts'])}; over dense at mass 1 {_targets(found['mass_1'])};",
        f"memory {_targets([{'target': found['peak_memory']['target'], **row} for row in peaks])}.",
        "The dense baseline itself gathers heads; written with transposes,",
        f"the same graph takes {_by_batch(found['against_transposes'], 'transposes_over_dense')} of its time.",
        "",
    ]


def _single_image() -> list[str]:
    found = read_result("batch1_profile")
    lines = [
        "Where a single image's saved work does not become time, profiled, as shares of its run:",
        "",
        "| form | all | matrix products on fewer rows | norms, activations, copies | between operators | added nodes |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = ("whole", "matrix products on fewer rows (Gemm)", "all other operators", "between operators")
    for form, entry in found["forms"].items():
        over, whole = entry["over_mac_share_us"], found["profiles"][form]["run_us"]
        shares = [f"{over[name] / whole:.1%}" for name in (*names, "operators that only the pruned graph has")]
        lines.append(f"| {form} | {' | '.join(shares)} ({over['nodes more']} nodes) |")
    return [*lines, ""]


def _training() -> list[str]:
    step, speed = read_result("training_step"), read_result("evaluation_speed")
    alone, taught = step["labels alone"], step["with a teacher"]
    shown = step["demonstration, bfloat16"]
    by_mass, as_many, fused = (shown[name]["median"] for name in ("mass 0.9", "as many of each", "fused"))
    shares = ", ".join(f"{alone[f'density {d}']['median']:.2f} × at {d}" for d in ("0.7", "0.5", "0.3"))
    return [
        "### Cost of training and evaluating",
        "",
        f"A sparse training step of DeiT-S costs {shares} of a dense one (fp32, batch {step['batch']},",
        f"CPU, 2 threads); with a teacher in both, {taught['density 0.5']['median']:.2f} × at 0.5. In bfloat16 a step",
        f"of the demonstration model by mass 0.9 costs {by_mass:.2f} × of a dense one, with as many tokens of each",
        f"image {as_many:.2f} ×: attention is padded to the longest. On a CPU attention trains as two matrix products:",
        f"with torch's fused attention a dense step takes {fused:.2f} × the time.",
        "Evaluation through an artifact, decoding JPEG files included, runs at "
        f"{speed['dense']['throughput_over_runner']['median']:.2f} × (dense)",
        f"and {speed['adaptive']['throughput_over_runner']['median']:.2f} × (adaptive) the artifact's alone.",
        "",
    ]


def _cost() -> list[str]:
    ratios = read_result("export_cost")["ratios"]
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


def _engines() -> list[str]:
    found = read_result("engine_build")
    ratios, builds, lowering = found["ratios"], found["builds"], found["lowering"]
    lines = [
        "### Cost of building engines",
        "",
        f"TensorRT for RTX {found['environment']['tensorrt-rtx-cu13']}, DeiT-S, fp16, for {found['target']}, on a",
        "machine with no GPU, against the dense engine, interleaved. Time is that of the whole stage: lowering,",
        "starting the builder's process, building. The adaptive form's two engines are built at the same time, a",
        "process each, so their own seconds add up to more.",
        "",
        "| form | fused attention | time | seconds of all parts | size |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for form, label in (("density0.6", "density 0.6"), ("adaptive", "adaptive, stem and trunk")):
        times = " | ".join(f"{ratios[f'{form}_{name}']:.2f} ×" for name in ("command_time", "summed_part_time", "size"))
        lines.append(f"| {label} | {builds[form]['fused']} | {times} |")
    return [
        *lines,
        "",
        f"Cutting and lowering DeiT-B ({lowering['precision']}) takes {ratios['lowering_seconds']:.1f} s and "
        f"{ratios['lowering_memory_ratio']:.2f} × the model's size in memory.",
        "",
    ]


def results() -> str:
    """Returns RESULTS.md: every table, each from its result file."""
    lines = [
        "# Results",
        "",
        "What was measured, written by `python -m benchmarks.figures` from the files in `results/`.",
        "[README](README.md) has the commands that make them.",
        "",
        *_speed(),
        *_adaptive(),
        *_single_image(),
        *precisions(),
        *cost_curve(),
        *families(),
        *int8_accuracy(),
        *peers(),
        *accuracy(),
        *segmentation(),
        *serving(),
        *_training(),
        *_cost(),
        *_engines(),
    ]
    return "\n".join(line.replace("### ", "## ", 1) if line.startswith("### ") else line for line in lines)


def section() -> str:
    """Returns the README's section of figures, between its markers."""
    return "\n".join([START, *summary(), END])


@click.command()
def main() -> None:
    """Rewrite RESULTS.md and the README's table."""
    RESULTS.write_text(results(), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(before + section() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
