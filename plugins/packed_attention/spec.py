"""``PackedAttention``: self-attention of images that lie end to end."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import AttributeKind, AttributeSpec, ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="PackedAttention",
    inputs=(
        TensorSpec("qkv", ElementType.ACTIVATION, ("T", "3*H*Dh")),
        TensorSpec("slots", ElementType.INT32, ("B", "W")),
        TensorSpec("unslots", ElementType.INT32, ("T",)),
        TensorSpec("mask", ElementType.BOOL, ("B", "1", "1", "W")),
    ),
    outputs=(TensorSpec("output", ElementType.ACTIVATION, ("T", "H*Dh")),),
    attributes=(AttributeSpec("num_heads", AttributeKind.INT), AttributeSpec("scale", AttributeKind.FLOAT)),
    doc=(
        "softmax(scale * query key^T) value per head, each row over the rows of its own image alone, with the softmax "
        "in float32. `slots`, `unslots` and `mask` are the plan that PackPlan makes."
    ),
)
