"""``ClampTokens``: tokens whose values lie within ``limit`` of 0."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import AttributeKind, AttributeSpec, ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="ClampTokens",
    inputs=(TensorSpec("tokens", ElementType.FLOAT32, ("B", "D")),),
    outputs=(TensorSpec("clamped", ElementType.FLOAT32, ("B", "D")),),
    attributes=(AttributeSpec("limit", AttributeKind.FLOAT),),
    doc="Values below -limit become -limit, values above limit become limit.",
)
