"""Names of the tensors that graphs, runners and builders agree on, and the forms that lowered graphs come in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sait_deploy.system.option_values import check_options

IMPORTANCE: Final = "importance"
KEEP: Final = "keep"
"""What selection reads and writes, in every pruned graph."""

IMAGES: Final = "images"
MASS: Final = "mass"
KEEP_LIMITS: Final = "keep_limits"
"""A graph's inputs. An adaptive graph also takes an operating point for each image."""

TOKENS: Final = "tokens"
ROWS: Final = "rows"
CU_SEQLENS: Final = "cu_seqlens"
KEPT: Final = "kept"
LANES: Final = "lanes"
GUARD: Final = "guard"
"""The seam's tensors. ``guard`` float32 [B, 1] is 0, or NaN where an image's importance is NaN, which reaches the
logits that way."""


PACKED_NODE: Final = "TRT_Attention"
PACKED_DOMAIN: Final = "trt"
"""TensorRT's own ONNX operator for attention on packed rows [T, H, Dh], which no standard one is."""

LENGTHS_AT: Final = 6
"""The first of its two inputs that say where images begin, as NVIDIA documents it: behind mask and two of a cache."""


class EnginePrecision(StrEnum):
    """Precision of an engine's matrix products."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class AttentionForm(StrEnum):
    """How attention stands in a lowered graph."""

    FUSED = "fused"
    """One ``Attention`` node, which the builder must have a kernel for; padding is masked."""

    FUSED_LENGTHS = "fused-lengths"
    """The same node, which is told how many tokens each image has, and takes no mask."""

    PACKED = "packed"
    """One ``TRT_Attention`` node on packed rows, which is told where each image begins; nothing is padded."""

    DECOMPOSED = "decomposed"
    """Matrix products and softmax."""


class SelectionForm(StrEnum):
    """How the selection stands in a lowered graph."""

    PLUGIN = "plugin"
    FUNCTION = "function"


class QuantizedType(StrEnum):
    """Numbers that an int8 artifact's quantised layers have in an engine."""

    INT8 = "int8"

    FP8 = "fp8"
    """E4M3, from the layers and ranges that int8 was calibrated for; GPUs from sm89 on."""


@dataclass(frozen=True, slots=True)
class LowerOptions:
    """How a graph is lowered for TensorRT."""

    precision: EnginePrecision
    attention: AttentionForm
    selection: SelectionForm
    quantized: QuantizedType = QuantizedType.INT8

    def __post_init__(self) -> None:
        check_options(self)
