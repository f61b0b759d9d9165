"""Time and peak memory of an export against plain ``torch.onnx.export``, and how fast ``sait-deploy --help`` starts.

    python -m benchmarks.export_cost
    python -m benchmarks.export_cost --model vit_large_patch16_224 --rounds 3

Each export runs in a process of its own, in turn with the others; importing is not timed. Ours hashes weights and file,
traces, attaches functions and writes; the parity check is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import click

from benchmarks.common import environment, peak_kib, write

MODEL: Final = "deit_small_patch16_224"
ROUNDS: Final = 5
STARTS: Final = 15
KEPT: Final = 118
TARGETS: Final = {"time_ratio": 1.5, "memory_ratio": 1.3, "help_ratio": 4.0}


def _child(model_name: str, kind: str, path: Path) -> dict[str, float]:
    """Exports once and returns seconds and peak resident KiB of this process."""
    import torch

    from sait_deploy.artifacts.digests import sha256_of
    from sait_deploy.artifacts.manifest import WeightsSource
    from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish, save
    from sait_deploy.exporters.trace import trace
    from sait_deploy.models.prunable_vit import PrunableViT
    from sait_deploy.models.pruning import FixedPruning
    from sait_deploy.models.registry import WeightsRequest, load_model
    from sait_deploy.models.weights import sha256_of_weights
    from sait_deploy.tokens import Score

    model = load_model(model_name, WeightsRequest(WeightsSource.RANDOM))
    started = time.perf_counter()
    if kind == "plain":
        example = (torch.zeros(2, 3, *model.info.image_size),)
        batch = ({0: torch.export.Dim("batch", min=1)},)
        with torch.no_grad():
            program = torch.onnx.export(
                model.vit, example, dynamo=True, opset_version=20, dynamic_shapes=batch, verbose=False
            )
        assert program is not None
        program.save(path)
    else:
        pruning = None if kind == "dense" else FixedPruning(Score.MEAN, 3, KEPT)
        outputs = ["logits"] if pruning is None else ["logits", "counts"]
        sha256_of_weights(model.vit)
        graph = trace(PrunableViT(model.vit, pruning), (3, *model.info.image_size), outputs, 20)
        save(finish(graph, FinishOptions(20, OperatorForm.FUNCTION, {})), path)
        sha256_of(path)
    return {
        "seconds": time.perf_counter() - started,
        "peak_kib": float(peak_kib()),
    }


def _exports(model_name: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    kinds = ("plain", "dense", "density")
    found: dict[str, dict[str, list[float]]] = {kind: {"seconds": [], "peak_kib": []} for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for kind in kinds:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.export_cost",
                    "--model",
                    model_name,
                    "--child",
                    kind,
                    "--path",
                    str(Path(folder) / "model.onnx"),
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                for key, value in json.loads(done.stdout.splitlines()[-1]).items():
                    found[kind][key].append(round(value, 4))
            click.echo(f"round {turn + 1} of {rounds}", err=True)
    return found


def _start_up() -> dict[str, list[float]]:
    script = str(Path(sys.executable).parent / "sait-deploy")
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "sait-deploy --help": [script, "--help"]}
    found: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(STARTS + 2):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn >= 2:
                found[name].append(round(time.perf_counter() - started, 5))
    return found


@click.command()
@click.option("--model", default=MODEL, show_default=True, help="Another one gets a result file of its own.")
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--child", type=click.Choice(["plain", "dense", "density"]), hidden=True)
@click.option("--path", type=click.Path(path_type=Path), hidden=True)
def main(model: str, rounds: int, child: str | None, path: Path | None) -> None:
    """Measure and write results/export_cost.json; start-up is measured with the default model."""
    if child is not None and path is not None:
        click.echo(json.dumps(_child(model, child, path)))
        return
    machine = environment("torch", "timm", "onnxscript", "click")
    exports = _exports(model, rounds)
    ratios: dict[str, Any] = {kind: _ratios(exports[kind], exports["plain"]) for kind in ("dense", "density")}
    found = {"model": model, "ratios": ratios, "targets": TARGETS, "exports": exports}
    name, command = "export_cost", "python -m benchmarks.export_cost"
    if model == MODEL:
        starts = found["start_up_seconds"] = _start_up()
        base, helped = starts["python -c pass"], starts["sait-deploy --help"]
        ratios["help_ratio"] = round(median(b / a for a, b in zip(base, helped, strict=True)), 2)
    else:
        name, command = f"{name}_{model}", f"{command} --model {model} --rounds {rounds}"
    click.echo(json.dumps(ratios), err=True)
    click.echo(write(name, command, found, machine))


def _ratios(ours: dict[str, list[float]], plain: dict[str, list[float]]) -> dict[str, float]:
    """Returns the medians of ours over the plain export of the same round."""
    pairs = {key: [a / b for a, b in zip(ours[key], plain[key], strict=True)] for key in ours}
    return {
        "time_ratio": round(median(pairs["seconds"]), 3),
        "memory_ratio": round(median(pairs["peak_kib"]), 3),
    }


if __name__ == "__main__":
    main()
