"""The precisions that runners run in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class RunPrecision(StrEnum):
    """Element type in which a runner computes its matrix products."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    """The linear layers that were quantised; the rest in fp32."""

    INT8_BF16 = "int8+bf16"
    """The linear layers that were quantised; the rest in bf16."""

    INT8_FP16 = "int8+fp16"
    """The linear layers that were quantised; the rest in fp16."""


QUANTISED: Final[Mapping[RunPrecision, RunPrecision]] = {
    RunPrecision.INT8: RunPrecision.FP32,
    RunPrecision.INT8_BF16: RunPrecision.BF16,
    RunPrecision.INT8_FP16: RunPrecision.FP16,
}
"""Precisions of int8 artifacts, and what the rest of the model runs in."""
