"""Graphs of small models, whole and cut, and lowered for TensorRT: made once."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.exporters.names import AttentionForm, EnginePrecision, SelectionForm
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from tests.exporters.graphs import ADAPTIVE, PRUNING, before_last, vit_named
from tests.exporters.parts import lowered, parts_of, whole
from tests.tiny import random_batch

FP16, BF16, FP32 = EnginePrecision.FP16, EnginePrecision.BF16, EnginePrecision.FP32
FUSED, DECOMPOSED = AttentionForm.FUSED, AttentionForm.DECOMPOSED
PLUGIN, FUNCTION = SelectionForm.PLUGIN, SelectionForm.FUNCTION

# The small model, how it is pruned, and which of the cut graph's parts; then the attentions that fuse.
Case = tuple[str, Pruning | None, str, int]
CASES: Final[dict[str, Case]] = {
    "dense": ("small/3", None, "whole", 3),
    "density": ("plain", PRUNING, "whole", 1),
    "stem": ("small/3", ADAPTIVE, "stem", 1),
    "trunk": ("small/3", ADAPTIVE, "trunk", 1),
    "stem-that-scores-at-once": ("siglip/2", before_last("siglip/2"), "stem", 0),
    "trunk-of-attention-pool": ("siglip/2", before_last("siglip/2"), "trunk", 1),
    "stem-of-convolutions": ("lvvit/2", before_last("lvvit/2"), "stem", 0),
    "trunk-of-a-head-over-tokens": ("lvvit/2", before_last("lvvit/2"), "trunk", 1),
}


@functools.cache
def original(case: str) -> onnx.ModelProto:
    name, pruning, part, _ = CASES[case]
    if not isinstance(pruning, AdaptivePruning):
        return whole(name, pruning)
    model: onnx.ModelProto = getattr(parts_of(name, pruning), part)
    return model


@functools.cache
def made(
    case: str,
    precision: EnginePrecision = FP16,
    attention: AttentionForm = FUSED,
    selection: SelectionForm = FUNCTION,
) -> onnx.ModelProto:
    """A lowered graph. Never to be changed: copy it first."""
    return lowered(original(case), precision, attention, selection)


def batch(case: str, count: int = 4) -> NDArray[np.float32]:
    name = CASES[case][0]
    return random_batch((count, 3, *vit_named(name).patch_embed.img_size), seed=5)
