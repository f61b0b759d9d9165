"""The steps of a long day on a GPU: every size, the spread of counts, where time goes, and other methods."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_steps import (
    MEAN_SHARE,
    RUNS,
    SPREAD_SHARE,
    Found,
    Setting,
    drawn_batch,
    loaded_work,
    model_of,
    pruning_of,
)
from benchmarks.peers import Fused as FusedTokens
from benchmarks.peers import Keeps, Merges, Merging
from sait_deploy.errors import RuntimeUnavailable, first_line
from sait_deploy.models.families import transformer_of
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.runtime.cuda_graphs import medians
from sait_deploy.tokens import Score, default_prune_at, dense_macs, pruned_macs

MODELS: Final = {"deit_small_patch16_224": 12, "vit_base_patch16_224": 12, "vit_large_patch16_224": 24}
"""Name to blocks."""

SIZES: Final = (224, 384, 512)
BATCHES: Final = (256, 1, 128, 32, 512)
"""By value: what the aims are about comes first."""

SECONDS_A_BLOCK: Final = 15
"""Of a model at one size and batch. Compilers go through each block of seven functions (dense in four forms, density,
stem and trunk), two of them trying kernels out, and all are timed then. It is a guess, made large: nothing ran yet."""

SPREADS: Final = (0.0, 10 / 196, SPREAD_SHARE, 50 / 196)
"""Standard deviations of kept patch tokens, as shares of all."""

_MOST_KERNELS: Final = 25


@torch.no_grad()
def everywhere(setting: Setting, model: str) -> Found:
    """Times density and the adaptive form of a model against its fastest dense, over image sizes and batches."""
    small = setting.device.type == "cpu"
    sizes, batches = ((setting.image_size,), setting.batches) if small else (SIZES, BATCHES)
    name, cells = setting.models[0] if small else model, list[dict[str, Any]]()
    for size, batch in itertools.product(sizes, batches):
        one = dataclasses.replace(setting, models=(name,), image_size=size, batches=(batch,))
        cells.append({"model": name, "size": size, "batch": batch} | _or_why(lambda one=one: _cell(one, SPREAD_SHARE)))
        yield {"cells": cells}


def seconds_everywhere(model: str) -> int:
    """Returns after how many seconds that step is ended."""
    return len(SIZES) * len(BATCHES) * MODELS[model] * SECONDS_A_BLOCK


@torch.no_grad()
def spread(setting: Setting) -> Found:
    """Times the adaptive form at one mean count and several spreads, against density at that count."""
    one = dataclasses.replace(setting, models=setting.models[:1], batches=setting.batches[-1:])
    cells: list[dict[str, Any]] = []
    for share in SPREADS:
        cells.append({"spread": share} | _or_why(lambda share=share: _cell(one, share)))
        yield {"model": one.models[0], "batch": one.batches[0], "cells": cells}


def _or_why(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what is measured, or why it could not be: a batch that does not fit takes no other along."""
    try:
        return measure()
    except (RuntimeError, RuntimeUnavailable) as error:  # the latter where no form of dense fits
        return {"failed": first_line(error)}


def _cell(setting: Setting, spread: float) -> dict[str, Any]:
    (name,), (batch,) = setting.models, setting.batches
    vit = model_of(setting, name)
    geometry = transformer_of(vit).shape().geometry
    block = default_prune_at(geometry.depth)
    images, mass, limits = drawn_batch(setting, batch, spread)
    kept = max(1, round(MEAN_SHARE * geometry.patch_tokens))
    works = {
        "dense": loaded_work(setting, vit, None, images),
        "density": loaded_work(setting, vit, FixedPruning(Score.MEAN, block, kept), images),
        "adaptive": loaded_work(setting, vit, pruning_of(vit), images, mass, limits),
    }
    for work in works.values():
        work.run()
    seconds = medians(setting.execution, {form: work.run for form, work in works.items()}, RUNS)
    whole = batch * dense_macs(geometry)
    macs = {
        "density": dense_macs(geometry) / pruned_macs(geometry, block, kept),
        "adaptive": whole / sum(pruned_macs(geometry, block, int(count)) for count in limits[:, 0]),
    }
    return {
        "microseconds": {form: 1e6 * taken for form, taken in seconds.items()},
        "dense": str(works["dense"].dense),
        "speed-up": {form: seconds["dense"] / seconds[form] for form in macs},
        "MAC ratio": macs,
        "share": {form: seconds["dense"] / seconds[form] / ratio for form, ratio in macs.items()},
        "adaptive over density": seconds["adaptive"] / seconds["density"],
    }


@torch.no_grad()
def where_time_goes(setting: Setting) -> Found:
    """Lists the kernels of one batch by their time, of the fastest dense and of the adaptive form."""
    name, batch = setting.models[0], setting.batches[-1]
    vit = model_of(setting, name)
    images, mass, limits = drawn_batch(setting, batch)
    works = {
        "dense": loaded_work(setting, vit, None, images),
        "adaptive": loaded_work(setting, vit, pruning_of(vit), images, mass, limits),
    }
    on_gpu = setting.device.type == "cuda"
    found: dict[str, Any] = {"model": name, "batch": batch}
    for form, work in works.items():
        work.run()
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
            work.run()
            if on_gpu:
                torch.cuda.synchronize()
        times = [
            (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count, event.key)
            for event in profiled.key_averages()
        ]
        slowest = sorted(times, reverse=True)[:_MOST_KERNELS]
        found[form] = {
            "microseconds": sum(taken for taken, _, _ in times),
            "kernels": [{"name": key, "runs": runs, "microseconds": taken} for taken, runs, key in slowest],
        }
        yield found


@torch.no_grad()
def peers(setting: Setting) -> Found:
    """Times merging and fused tokens at the MACs of density, compiled and recorded as the others are."""
    cells: list[dict[str, Any]] = []
    for name, batch in itertools.product(setting.models, setting.batches):
        one = dataclasses.replace(setting, models=(name,), batches=(batch,))
        cells.append({"model": name, "batch": batch} | _or_why(lambda one=one: _peers(one)))
        yield {"cells": cells}


def _peers(setting: Setting) -> dict[str, Any]:
    (name,), (batch,) = setting.models, setting.batches
    vit = model_of(setting, name)
    geometry = transformer_of(vit).shape().geometry
    block, kept = default_prune_at(geometry.depth), max(1, round(MEAN_SHARE * geometry.patch_tokens))
    images, *_ = drawn_batch(setting, batch)
    dense = loaded_work(setting, vit, None, images)
    density = loaded_work(setting, vit, FixedPruning(Score.MEAN, block, kept), images)
    calls: dict[str, Callable[[], Any]] = {"dense": dense.run, "density": density.run}
    for method, make in _methods(vit.bfloat16(), pruned_macs(geometry, block, kept)):
        compute, given = setting.execution.compiled(make), images.bfloat16()
        calls[method] = setting.execution.record(lambda compute=compute, given=given: compute(given)).replay
    for call in calls.values():
        call()
    seconds = medians(setting.execution, calls, RUNS)
    return {
        "microseconds": {method: 1e6 * taken for method, taken in seconds.items()},
        "speed-up": {method: seconds["dense"] / taken for method, taken in seconds.items()},
    }


def _methods(vit: torch.nn.Module, macs: int) -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    geometry = transformer_of(vit).shape().geometry
    merges, keeps = Merges.of_macs(geometry, macs), Keeps.of_macs(geometry, macs)
    if merges is not None:
        yield "bipartite merging (ToMe)", Merging(vit, merges)
    if keeps is not None:
        yield "top-k and a fused token (EViT)", FusedTokens(vit, keeps)
