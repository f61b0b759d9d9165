"""The steps of the first day on a GPU: what each checks or times, small enough on a processor to be tried there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import timm
import torch
import torch.nn.functional as F

from sait_deploy.models.families import transformer_of
from sait_deploy.models.flash_vit import FlashViT
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from sait_deploy.plugins.flash_attention import attention_column_sums, flash_packed, flash_uniform
from sait_deploy.plugins.lanes import attend_lanes, lane_slots, lanes_of
from sait_deploy.plugins.mass_token_select.reference import mass_token_select as select_reference
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.reference import pack_rows as pack_reference
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.runtime.cuda_graphs import Execution, OnGpu, OnHost, medians
from sait_deploy.runtime.exact_float32 import EXACT_FLOAT32
from sait_deploy.runtime.torch_cuda import gpu
from sait_deploy.runtime.torch_cuda_batch import BatchWork, CompiledParts
from sait_deploy.runtime.torch_cuda_trial import compare_with_definitions
from sait_deploy.tokens import Score, default_prune_at, dense_macs, pruned_macs

RUNS: Final = 30
MEAN_SHARE, SPREAD_SHARE = 105 / 196, 25 / 196
"""Kept patch tokens of an image are drawn from this distribution, as shares of all."""

LARGEST_ERROR: Final = 2e-2
"""Of logits in bfloat16, relative to the largest in float32."""

LEAST_SHARE, LARGE_BATCH = 0.90, 128
"""Of the MAC ratio, what the adaptive form is to reach over the fastest dense, from this batch size on."""


Found = Iterator[dict[str, Any]]
"""What a step has found so far, whenever that is more: a step that is ended in time leaves what it found before."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where steps run and on what.

    Attributes:
        execution: the GPU, or the processor in its place.
        models: timm's names.
        image_size: side of an image in pixels.
        batches: images per batch.
        patches: numbers of patch tokens that selection is tried on.
        rows: kept tokens of a batch that attention alone is timed on.
    """

    execution: Execution
    models: tuple[str, ...]
    image_size: int
    batches: tuple[int, ...]
    patches: tuple[int, ...]
    rows: int

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return self.execution.device


def on_gpu() -> Setting:
    """Returns the setting of a day on a GPU.

    Raises:
        RuntimeUnavailable: there is none.
    """
    models = ("deit_small_patch16_224", "vit_base_patch16_224")
    return Setting(OnGpu(gpu()), models, 224, (32, 256), (1, 196, 576, 1024, 4096), 27_000)


def rehearsal() -> Setting:
    """Returns a setting in which every step takes seconds on a processor, and its times mean nothing."""
    return Setting(OnHost(), ("test_vit",), 64, (2,), (1, 16), 60)


def selection(setting: Setting) -> Found:
    """Compares kept tokens and rows with the reference, ties and masses from 1 on among them."""
    draw, rows = np.random.default_rng(0), 0
    for patches in setting.patches:
        for batch in (1, 8, 256):
            compare_with_reference(setting, draw, batch, patches)
            rows += batch
    yield {"rows equal to the reference": rows}


@torch.no_grad()
def compare_with_reference(setting: Setting, draw: np.random.Generator, batch: int, patches: int) -> None:
    """Selects and packs in a batch that is drawn, and ends the process where the reference does otherwise."""
    scores = draw.exponential(size=(batch, patches)).round(1) + 0.1
    importance = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    mass = draw.uniform(0, 1.2, batch).astype(np.float32)
    limits = np.sort(draw.integers(1, patches + 1, (batch, 2)), axis=1).astype(np.int32)
    given = (torch.from_numpy(array).to(setting.device) for array in (importance, mass, limits))
    selected = mass_token_select(*given, 1)
    found = (*selected, *pack_rows(*selected))
    keep, counts = select_reference(importance, mass, limits, 1)
    wanted = (keep, counts, *pack_reference(keep, counts))
    for name, one, other in zip(("keep", "counts", "rows", "cu_seqlens"), found, wanted, strict=True):
        if not np.array_equal(one.cpu().numpy(), other):
            raise SystemExit(f"{name} differs from the reference at batch {batch}, N {patches}")


@torch.no_grad()
def operators(setting: Setting) -> Found:
    """Compares attention, packed attention and column sums with their definitions."""
    compare_with_definitions(setting.device)
    yield {"equal to the definitions": True}


@torch.no_grad()
def answers(setting: Setting) -> Found:
    """Compares logits in bfloat16 with those in float32 forced to keep the same tokens."""
    errors: dict[str, float] = {}
    for name in setting.models:
        vit = model_of(setting, name)
        pruning = pruning_of(vit)
        images, mass, limits = drawn_batch(setting, setting.batches[0])
        traced = loaded_work(setting, vit, pruning, images, mass, limits).run()
        with EXACT_FLOAT32:
            exact = PrunableViT(vit, pruning).trace(images, mass, limits, keep=traced.keep).logits
        errors[name] = float((traced.logits - exact).abs().max() / exact.abs().max())
        if errors[name] > LARGEST_ERROR:
            raise SystemExit(f"{name}: logits differ by {errors[name]:.1e}, more than {LARGEST_ERROR:.0e}")
        yield {"relative errors": errors}


@torch.no_grad()
def speed(setting: Setting) -> Found:
    """Times the adaptive form and the fastest dense in turn, at forced numbers of kept tokens; large batches first."""
    cells = []
    for batch in reversed(setting.batches):
        for name in setting.models:
            vit = model_of(setting, name)
            images, mass, limits = drawn_batch(setting, batch)
            adaptive = loaded_work(setting, vit, pruning_of(vit), images, mass, limits)
            dense = loaded_work(setting, vit, None, images)
            for one in (adaptive, dense):
                one.run()
            seconds = medians(setting.execution, {"dense": dense.run, "adaptive": adaptive.run}, RUNS)
            geometry = transformer_of(vit).shape().geometry
            block = default_prune_at(geometry.depth)
            kept = [pruned_macs(geometry, block, int(count)) for count in limits[:, 0]]
            macs, ratio = batch * dense_macs(geometry) / sum(kept), seconds["dense"] / seconds["adaptive"]
            cell = {"model": name, "batch": batch, "microseconds": {k: 1e6 * s for k, s in seconds.items()}}
            cell |= {"dense": str(dense.dense), "speed-up": ratio, "MAC ratio": macs, "share": ratio / macs}
            aim = {"aim": LEAST_SHARE, "reached": ratio / macs >= LEAST_SHARE} if batch >= LARGE_BATCH else {}
            cells.append(cell | aim)
            yield {"cells": cells}


@torch.no_grad()
def attention(setting: Setting) -> Found:
    """Times attention of packed rows, against lanes padded to the longest with gathers around them."""
    heads, size, most, scale = 6, 64, 197, 0.125
    counts = _counts(most - 1, setting.rows // 106 + 1) + 1
    ends = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)).to(setting.device)
    qkv = torch.randn(int(ends[-1]), 3 * heads * size).bfloat16().to(setting.device)
    slots, real = lane_slots(ends, torch.arange(int(counts.max()), dtype=torch.int32, device=setting.device))
    kept = real.flatten().nonzero().flatten()  # a mask as an index makes the host wait, which no recording may do

    def padded() -> torch.Tensor:
        q, k, v = lanes_of(qkv.index_select(0, slots.flatten()), slots, heads)
        y = F.scaled_dot_product_attention(q, k, v, real[:, None, None], scale=scale)
        return y.transpose(1, 2).reshape(-1, heads * size).index_select(0, kept)

    yield _compared(
        setting, {"packed": lambda: flash_packed(qkv, ends, most, heads, scale), "padded, with gathers": padded}
    )


@torch.no_grad()
def scoring(setting: Setting) -> Found:
    """Times the block that scores: with all attention weights, and with column sums alone."""
    heads, size, tokens, scale, batch = 6, 64, 197, 0.125, setting.batches[-1]
    qkv = torch.randn(batch * tokens, 3 * heads * size).bfloat16().to(setting.device)

    def weights() -> torch.Tensor:
        q, k, v = qkv.reshape(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
        return attend_lanes(q, k, v, scale)[1].mean(dim=2)

    def sums() -> torch.Tensor:
        return attention_column_sums(qkv, flash_uniform(qkv, batch, heads, scale)[1], scale)

    yield _compared(setting, {"weights in memory": weights, "column sums": sums})


def _compared(setting: Setting, calls: dict[str, Callable[[], torch.Tensor]]) -> dict[str, Any]:
    recorded = {name: setting.execution.record(call).replay for name, call in calls.items()}
    return {"microseconds": {k: 1e6 * s for k, s in medians(setting.execution, recorded, RUNS).items()}}


def model_of(setting: Setting, name: str) -> torch.nn.Module:
    """Returns a model of random weights."""
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(name, img_size=setting.image_size).eval().to(setting.device)
    return model


def pruning_of(vit: torch.nn.Module) -> AdaptivePruning:
    """Returns the adaptive pruning of a model, in its default block."""
    return AdaptivePruning(Score.MEAN, default_prune_at(transformer_of(vit).depth))


def _counts(patches: int, batch: int, spread: float = SPREAD_SHARE) -> np.ndarray[Any, np.dtype[np.int32]]:
    drawn = np.random.default_rng(1).normal(MEAN_SHARE * patches, spread * patches, batch)
    return drawn.round().clip(1, patches).astype(np.int32)


def drawn_batch(
    setting: Setting, batch: int, spread: float = SPREAD_SHARE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns random images, masses, and limits that force the drawn numbers of tokens."""
    images = torch.randn(batch, 3, setting.image_size, setting.image_size, generator=torch.Generator().manual_seed(0))
    counts = torch.from_numpy(_counts((setting.image_size // 16) ** 2, batch, spread))
    parts = images, torch.ones(batch), torch.stack([counts, counts], dim=1)
    return tuple(part.to(setting.device) for part in parts)  # type: ignore[return-value]


def loaded_work(
    setting: Setting, vit: torch.nn.Module, pruning: Pruning | None, images: torch.Tensor, *point: torch.Tensor
) -> BatchWork:
    """Returns the work of a model on a batch of images, at an operating point where it is adaptive."""
    flash = FlashViT(vit, pruning, torch.bfloat16)
    size = setting.image_size
    work = BatchWork(CompiledParts(flash, setting.execution, (3, size, size)), setting.execution, tuple(images.shape))
    work.load(images, *point)
    return work


@dataclass(frozen=True, slots=True)
class Step:
    """A step, which runs in a process of its own.

    Attributes:
        seconds: after which it is ended.
        run: what it does.
        needs: packages, by their import names, beyond torch, timm and onnx.
    """

    seconds: int
    run: Callable[[Setting], Found]
    needs: tuple[str, ...] = ()


FIRST: Final = "selection"
"""The step without which no other means anything."""
