"""``UniformAttention``: self-attention where every image has as many tokens."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import AttributeKind, AttributeSpec, ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="UniformAttention",
    inputs=(
        TensorSpec("qkv", ElementType.ACTIVATION, ("B*S", "3*H*Dh")),
        TensorSpec("slots", ElementType.INT32, ("B", "S")),
        TensorSpec("unslots", ElementType.INT32, ("B*S",)),
    ),
    outputs=(
        TensorSpec("output", ElementType.ACTIVATION, ("B*S", "H*Dh")),
        TensorSpec("weights", ElementType.FLOAT32, ("B", "H", "S", "S")),
    ),
    attributes=(AttributeSpec("num_heads", AttributeKind.INT), AttributeSpec("scale", AttributeKind.FLOAT)),
    doc=(
        "softmax(scale * query key^T) value per head, each row over the rows of its own image, with the softmax in "
        "float32. `slots` counts the rows image by image and `unslots` counts them all. `weights` is the softmax; a "
        "node whose `weights` nothing reads may be replaced by a fused attention."
    ),
)
