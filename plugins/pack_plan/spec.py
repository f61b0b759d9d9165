"""``PackPlan``: the index between packed rows and padded lanes, made once per batch."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="PackPlan",
    inputs=(
        TensorSpec("kept", ElementType.INT32, ("T",)),
        TensorSpec("cu_seqlens", ElementType.INT32, ("B+1",)),
        TensorSpec("lanes", ElementType.INT32, ("W",)),
    ),
    outputs=(
        TensorSpec("slots", ElementType.INT32, ("B", "W")),
        TensorSpec("unslots", ElementType.INT32, ("T",)),
        TensorSpec("mask", ElementType.BOOL, ("B", "1", "1", "W")),
    ),
    attributes=(),
    doc=(
        "`slots` is the packed row of each image's lanes; lanes beyond the image's length repeat its first row. "
        "`unslots` is each packed row's lane in the flat [B*W] layout, and 0 of rows behind the last image's. `mask` "
        "is true at lanes that are no padding. Of `kept` only the length is read, which may be more than images have."
    ),
)
