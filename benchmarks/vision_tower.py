"""An image tower that gives kept tokens alone: its own speed and memory, and the prefill of a language model behind it.

    python -m benchmarks.vision_tower tower
    python -m benchmarks.vision_tower prefill

The tower is SigLIP's ViT-B/16 at 384 px without its last block, 576 patches; density 0.5, and the adaptive form forced
to half of the patches ± a twentieth, as ``families_cpu`` measures. The prefill is that of a Llama of 12 layers of width
1,024 behind LLaVA's projector, in torch, which reads all image tokens or half of them before 32 tokens of text. Random
weights, 2 threads.
"""

from __future__ import annotations

import statistics
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import torch
from torch import nn

from benchmarks.common import RESULTS, THREADS, environment, read_result, write
from benchmarks.families_cpu import TARGET, judged
from benchmarks.precisions_cpu import fastest_dense, memory_of, rows_of, say
from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Task, WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.artifacts.tower_info import TowerChoice
from sait_deploy.bench.groups import with_baseline
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.options import AccuracyOf, Also, BenchOptions
from sait_deploy.bench.run import bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime.precision import RunPrecision

NAME: Final = "vision_tower"
MODEL: Final = "vit_base_patch16_siglip_384"
PATCHES: Final = 576
WIDTH: Final = 768
BATCHES: Final = (1, 8)
TEXT: Final = 32
LLAMA: Final = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}


def towers(folder: Path) -> list[Artifact]:
    """Exports the tower at density 0.5 and adaptive, unless that was done before, dense first."""
    there = [open_artifact(path) for path in Workspace(folder).artifacts()]
    if not there:
        tower = TowerChoice(-2)
        options = ExportOptions((Decimal("0.5"),), (mass_point(0.9),), task=Task.TOKENS, tower=tower, output=folder)
        there = export_model(load_model(MODEL, WeightsRequest(WeightsSource.RANDOM)), options, say)
    return with_baseline([artifact.path for artifact in there])


def tower_part(folder: Path, duration: float) -> dict[str, Any]:
    """Measures the tower on ONNX Runtime and OpenVINO: ratios, which share of the MAC ratio they reach, peak memory."""
    options = BenchOptions(
        batches=BATCHES,
        runtimes=("onnxruntime", "openvino"),
        precisions=(RunPrecision.FP32, RunPrecision.BF16),
        threads=THREADS,
        accuracy=AccuracyOf.NONE,
        duration=duration,
        sweep=Sweep(kept=(KeptDistribution(PATCHES // 2, PATCHES // 20),)),
        also=frozenset({Also.MEMORY}),
    )
    report = bench(towers(folder), options, say)
    rows, fastest = rows_of(report), fastest_dense(report)
    return {
        "kept": f"{PATCHES // 2} ± {PATCHES // 20} of {PATCHES}",
        "fastest_dense": {str(batch): group for batch, group in fastest.items()},
        "target": TARGET,
        "judged": judged(rows, fastest, BATCHES),
        "rows": rows,
        "memory": memory_of(report),
        "skipped": [f"{one.group}: {one.reason}" for one in report.skipped],
        "notes": [note.text for note in report.notes],
    }


def prefill_part(sizes: dict[str, int], width: int, counts: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Times a language model's prefill with all image tokens and with those kept, in turns.

    Args:
        sizes: of a LlamaConfig.
        width: of the tower's tokens.
        counts: image tokens: all, and kept.
        rounds: times that each of the two is run, after one run that is not counted.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    hidden = sizes["hidden_size"]
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)).eval()
    tokens, text = torch.randn(counts[0], width), model.get_input_embeddings()(torch.arange(TEXT))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for count, found in zip(counts, seconds, strict=True):
            started = time.perf_counter()
            with torch.inference_mode():
                fed = torch.cat([projector(tokens[:count]), text])[None]
                model(inputs_embeds=fed, use_cache=True, logits_to_keep=1)
            found.append(time.perf_counter() - started)
    every, kept = (found[1:] for found in seconds)
    ratios = [whole / fewer for whole, fewer in zip(every, kept, strict=True)]
    return {
        "language_model": sizes,
        "image_tokens": {"all": counts[0], "kept": counts[1]},
        "text_tokens": TEXT,
        "median_seconds": {"all": statistics.median(every), "kept": statistics.median(kept)},
        "speedup": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "rounds": rounds,
    }


@click.command()
@click.argument("part", type=click.Choice(["tower", "prefill"]))
@click.option("--duration", type=float, default=8.0, show_default=True, help="Seconds per group and batch size.")
@click.option("--rounds", type=int, default=15, show_default=True, help="Runs of each prefill.")
@click.option("--workspace", type=click.Path(path_type=Path), default=Path("build/tower"), show_default=True)
def main(part: str, duration: float, rounds: int, workspace: Path) -> None:
    """Measure a part and write it into results/vision_tower.json."""
    machine = environment("onnxruntime", "openvino", "torch", "transformers")
    if part == "tower":
        found = tower_part(workspace, duration)
    else:
        torch.set_num_threads(THREADS)
        found = prefill_part(LLAMA, WIDTH, (PATCHES, PATCHES // 2), rounds)
        click.echo(f"prefill {found['speedup']['median']:.2f} times as fast with half of the image tokens", err=True)
    parts = read_result(NAME)["parts"] if (RESULTS / f"{NAME}.json").is_file() else {}
    command = f"python -m benchmarks.vision_tower {part}"
    click.echo(write(NAME, command, {"parts": parts | {part: {"environment": machine, **found}}}, machine))


if __name__ == "__main__":
    main()
