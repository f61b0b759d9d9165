"""Where the time of a single image goes, operator by operator, DeiT-S, ONNX Runtime CPU: dense beside density 0.6, and
beside the adaptive form with 105 of 196 tokens kept.

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
import numpy as np
import onnxruntime as ort

from benchmarks.common import THREADS, environment, write
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.tokens import default_prune_at, dense_macs, kept_at_density, pruned_macs

MODEL: Final = "deit_small_patch16_224"
RUNS: Final = 60
KEPT: Final = 105
DENSITY, ADAPTIVE = "density 0.6", f"adaptive, {KEPT} kept"


def _profile(artifact: Artifact, folder: str) -> dict[str, Any]:
    """Median microseconds a run spends in each operator, and outside of all of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / artifact.path.name)
    session = ort.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {"images": artifact.golden().images}
    if artifact.manifest.form is Form.ADAPTIVE:
        feeds |= {"mass": np.ones(1, np.float32), "keep_limits": np.array([[KEPT, KEPT]], np.int32)}
    for _ in range(RUNS):
        session.run(None, feeds)
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


def _summary(dense: dict[str, Any], pruned: dict[str, Any], ratio: float) -> dict[str, int]:
    """Splits what the pruned run takes beyond its share of the dense one, in microseconds."""
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


def _by_operator(dense: dict[str, Any], pruned: dict[str, Any], ratio: float) -> dict[str, dict[str, int]]:
    """Lists every operator's time in both runs, and what it takes beyond its share, the most first."""
    rows = {}
    for name in sorted(set(dense["operators_us"]) | set(pruned["operators_us"])):
        before, after = (found["operators_us"].get(name, 0) for found in (dense, pruned))
        rows[name] = {"dense_us": before, "pruned_us": after, "over_mac_share_us": round(after - before / ratio)}
    return dict(sorted(rows.items(), key=lambda row: -row[1]["over_mac_share_us"]))


@click.command()
def main() -> None:
    """Profile and write results/batch1_profile.json."""
    machine = environment("onnxruntime", "torch", "timm")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    geometry = model.info.geometry
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions((Decimal("0.6"),), (mass_point(1.0),), output=Path(folder) / "artifacts")
        dense, density, adaptive = export_model(model, options)
        profiles = {
            name: _profile(artifact, folder)
            for name, artifact in (("dense", dense), (DENSITY, density), (ADAPTIVE, adaptive))
        }
    kept = {DENSITY: kept_at_density(Decimal("0.6"), geometry.patch_tokens), ADAPTIVE: KEPT}
    forms = {}
    for name, count in kept.items():
        ratio = dense_macs(geometry) / pruned_macs(geometry, default_prune_at(geometry.depth), count)
        forms[name] = {
            "mac_ratio": round(ratio, 4),
            "over_mac_share_us": _summary(profiles["dense"], profiles[name], ratio),
            "by_operator": _by_operator(profiles["dense"], profiles[name], ratio),
        }
        click.echo(json.dumps({name: forms[name]["over_mac_share_us"]}, indent=1))
    found = {"forms": forms, "profiles": profiles}
    click.echo(write("batch1_profile", "python -m benchmarks.batch1_profile", found, machine))


if __name__ == "__main__":
    main()
