"""Where the time of a single image goes, operator by operator: dense beside density 0.6, DeiT-S, ONNX Runtime CPU.

    python -m benchmarks.batch1_profile

At batch 1 a pruned model saves less time than multiply-accumulates; the table says which operators keep it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import onnxruntime as ort

from benchmarks.common import THREADS, environment, write
from sait_deploy.artifact import Artifact
from sait_deploy.export_plan import ExportOptions
from sait_deploy.exporting import export_model
from sait_deploy.manifest import WeightsSource
from sait_deploy.zoo import WeightsRequest, load_model

MODEL: Final = "deit_small_patch16_224"
RUNS: Final = 60


def _profile(artifact: Artifact, folder: str) -> dict[str, Any]:
    """Median microseconds a run spends in each operator, and outside of all of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / artifact.path.name)
    session = ort.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
    golden = artifact.golden()
    for _ in range(RUNS):
        session.run(None, {"images": golden.images})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event for event in events if event["name"] == "model_run"][RUNS // 4 :]
    spent: dict[str, list[float]] = defaultdict(list)
    nodes = {event["name"] for event in events if event["name"].endswith("_kernel_time")}
    for run in runs:
        one: dict[str, float] = defaultdict(float)
        for event in events:
            inside = run["ts"] <= event["ts"] < run["ts"] + run["dur"]
            if inside and event["name"].endswith("_kernel_time"):
                one[str(event["args"]["op_name"])] += event["dur"]
        for name, microseconds in one.items():
            spent[name].append(microseconds)
    operators = {name: round(median(values)) for name, values in sorted(spent.items(), key=lambda kv: -median(kv[1]))}
    whole = median(run["dur"] for run in runs)
    return {
        "run_us": round(whole),
        "outside_operators_us": round(whole - sum(operators.values())),
        "nodes": len(nodes),
        "operators_us": operators,
    }


def _summary(found: dict[str, dict[str, Any]], ratio: float) -> dict[str, int]:
    """Splits what the pruned run takes beyond its share of the dense one, in microseconds."""
    dense, pruned = found["dense"], found["density 0.6"]
    before, after = dense["operators_us"], pruned["operators_us"]
    over = {name: after.get(name, 0) - before.get(name, 0) / ratio for name in before | after}
    return {
        "whole": round(pruned["run_us"] - dense["run_us"] / ratio),
        "matrix products on fewer rows (Gemm)": round(over["Gemm"]),
        "operators that only the pruned graph has": round(sum(over[name] for name in over if name not in before)),
        "between operators": round(pruned["outside_operators_us"] - dense["outside_operators_us"] / ratio),
        "all other operators": round(sum(over[name] for name in over if name in before and name != "Gemm")),
        "nodes more": pruned["nodes"] - dense["nodes"],
    }


@click.command()
def main() -> None:
    """Profile and write results/batch1_profile.json."""
    machine = environment("onnxruntime", "torch", "timm")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=(Decimal("0.6"),), output=Path(folder) / "artifacts")
        dense, pruned = export_model(model, options)
        found = {"dense": _profile(dense, folder), "density 0.6": _profile(pruned, folder)}
        ratio = pruned.manifest.macs.ratio
    names = sorted(set(found["dense"]["operators_us"]) | set(found["density 0.6"]["operators_us"]))
    kept = {}
    for name in names:
        before, after = (found[key]["operators_us"].get(name, 0) for key in ("dense", "density 0.6"))
        kept[name] = {"dense_us": before, "pruned_us": after, "over_mac_share_us": round(after - before / ratio)}
    ordered = dict(sorted(kept.items(), key=lambda kv: -kv[1]["over_mac_share_us"]))
    for name, row in ordered.items():
        figures = f"dense {row['dense_us']:6d} µs   pruned {row['pruned_us']:6d} µs"
        click.echo(f"{name:24} {figures}   over {row['over_mac_share_us']:6d} µs")
    summary = _summary(found, ratio)
    click.echo(json.dumps(summary, indent=1))
    result = {"mac_ratio": round(ratio, 4), "over_mac_share_us": summary, "profiles": found, "by_operator": ordered}
    click.echo(write("batch1_profile", "python -m benchmarks.batch1_profile", result, machine))


if __name__ == "__main__":
    main()
