"""The selection and packing kernels on a CUDA device, beside an empty kernel and beside the model they prune.

    python -m benchmarks.kernels_gpu

Each kernel is first compared with the reference. Times are of kernels alone: many launches captured in one CUDA graph,
so that nothing of Python or of the driver's launch path is in them. So are the model's: dense DeiT-S in torch at half
precision, random weights.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.common import environment, write
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.plugins.pack_rows.reference import pack_rows

BATCHES: Final = (1, 8, 64, 256)
PATCHES: Final = (196, 576, 1024)
NAMES: Final = ("keep", "counts", "rows", "cu_seqlens")
PREFIX: Final = 1
MASS: Final = 0.9
MODEL: Final = "deit_small_patch16_224"
MODEL_PATCHES: Final = 196
LAUNCHES: Final = 200
"""Launches in one graph."""

FORWARDS: Final = 10
"""Forward passes of the model in one graph."""

MOST_OF_EMPTY: Final = 4.0
"""Both kernels together take at most so many times an empty kernel's time, for batch <= 64 and N = 196."""

MOST_OF_MODEL: Final = 0.01
"""Both kernels together take less than this share of the model's time, from ``MODEL_BATCH`` on."""

MODEL_BATCH: Final = 8


def _empty(batch: int, device: torch.device) -> Callable[[], Any]:
    import triton

    def empty(nothing_ptr):  # type: ignore[no-untyped-def] # Triton looks annotations up in its own language
        return

    kernel, nothing = triton.jit(empty), torch.empty(1, device=device)
    return lambda: kernel[(batch,)](nothing, num_warps=4)


def _microseconds(call: Callable[[], Any], rounds: int, calls: int = LAUNCHES) -> float:
    """Returns the median time of one call, of a graph of many."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(calls):
            call()
    times = []
    for _ in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(float(start.elapsed_time(end)) * 1000 / calls)
    return statistics.median(times[3:])


def _model_times(rounds: int, device: torch.device) -> dict[int, float]:
    """Returns the microseconds of a forward pass for each batch size."""
    import timm

    model = timm.create_model(MODEL).to(device, torch.float16).eval()
    size, found = model.default_cfg["input_size"], {}
    for batch in BATCHES:
        images = torch.randn(batch, *size, device=device, dtype=torch.float16)
        with torch.no_grad():
            found[batch] = _microseconds(functools.partial(model, images), rounds, FORWARDS)
    return found


def _beside_the_model(cell: dict[str, Any], model: float) -> dict[str, Any]:
    """Returns what share of a forward pass both kernels take."""
    times = cell["microseconds"]
    share = (times["select"] + times["pack"]) / model
    found = {"model_microseconds": model, "share_of_model": share}
    if cell["batch"] >= MODEL_BATCH:
        found |= {"share_target": MOST_OF_MODEL, "share_reached": share < MOST_OF_MODEL}
    return found


def _cell(batch: int, patches: int, rounds: int, device: torch.device) -> dict[str, Any]:
    from sait_deploy.plugins.mass_token_select.triton_kernel import launch as select
    from sait_deploy.plugins.pack_rows.triton_kernel import launch as pack

    scores = np.random.default_rng(batch * patches).exponential(size=(batch, patches)) ** 2
    importance = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    mass = np.full(batch, MASS, dtype=np.float32)
    limits = np.tile(np.array([[1, patches]], dtype=np.int32), (batch, 1))
    on_device = [torch.from_numpy(array).to(device) for array in (importance, mass, limits)]

    def selected() -> tuple[Tensor, Tensor]:
        return select(on_device[0], on_device[1], on_device[2], PREFIX)

    keep, counts = selected()
    wanted_keep, wanted_counts = mass_token_select(importance, mass, limits, PREFIX)
    wanted = (wanted_keep, wanted_counts, *pack_rows(wanted_keep, wanted_counts))
    for name, got, want in zip(NAMES, (keep, counts, *pack(keep, counts)), wanted, strict=True):
        if not np.array_equal(got.cpu().numpy(), want):
            raise SystemExit(f"error: {name} differs from the reference at batch {batch}, N {patches}")
    times = {
        "empty": _microseconds(_empty(batch, device), rounds),
        "select": _microseconds(selected, rounds),
        "pack": _microseconds(lambda: pack(keep, counts), rounds),
    }
    of_empty = (times["select"] + times["pack"]) / times["empty"]
    found: dict[str, Any] = {"batch": batch, "patches": patches, "microseconds": times, "both_over_empty": of_empty}
    if batch <= 64 and patches == MODEL_PATCHES:
        found |= {"target": MOST_OF_EMPTY, "reached": of_empty <= MOST_OF_EMPTY}
    return found


@click.command()
@click.option("--rounds", type=int, default=50, show_default=True, help="Replays of each graph.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: results/kernels_gpu.json]")
def main(rounds: int, output: Path | None) -> None:
    """Measure and write what was found."""
    if not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA device to time kernels on")
    device = torch.device("cuda", torch.cuda.current_device())
    about = torch.cuda.get_device_properties(device)
    machine = environment("torch", "triton", "timm") | {
        "gpu": about.name,
        "compute capability": f"{about.major}.{about.minor}",
        "CUDA": str(torch.version.cuda),
    }
    cells, model_times = [], _model_times(rounds, device)
    for patches in PATCHES:
        for batch in BATCHES:
            cell = _cell(batch, patches, rounds, device)
            times = ", ".join(f"{name} {time:.2f}" for name, time in cell["microseconds"].items())
            click.echo(f"N {patches}, batch {batch}: {times} µs; both {cell['both_over_empty']:.2f} × empty", err=True)
            if patches == MODEL_PATCHES:
                cell |= _beside_the_model(cell, model_times[batch])
                click.echo(f"{cell['share_of_model']:.2%} of {MODEL}'s {model_times[batch]:.0f} µs", err=True)
            cells.append(cell)
    found = {"launches_per_graph": LAUNCHES, "rounds": rounds, "mass": MASS, "model": MODEL, "cells": cells}
    click.echo(write("kernels_gpu", f"python -m benchmarks.kernels_gpu --rounds {rounds}", found, machine, output))


if __name__ == "__main__":
    main()
