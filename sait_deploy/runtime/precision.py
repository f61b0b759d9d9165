"""The precisions that runners run in."""

from __future__ import annotations

from enum import StrEnum


class RunPrecision(StrEnum):
    """Element type in which a runner computes its matrix products."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    """The linear layers that were quantised; the rest in fp32."""

    INT8_BF16 = "int8+bf16"
    """The linear layers that were quantised; the rest in bf16."""
