"""``PackRows``: where the kept tokens of a batch stand when they are laid end to end."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="PackRows",
    inputs=(
        TensorSpec("keep", ElementType.INT32, ("B", "P+N")),
        TensorSpec("counts", ElementType.INT32, ("B",)),
    ),
    outputs=(
        TensorSpec("rows", ElementType.INT32, ("B*(P+N)",)),
        TensorSpec("cu_seqlens", ElementType.INT32, ("B+1",)),
    ),
    attributes=(),
    doc=(
        "The packing plan. `rows` is a permutation of all flat token indices: first the kept ones, in image order and "
        "ascending within an image, then the dropped ones, ascending. `cu_seqlens` is 0 and the running sum of counts."
    ),
)
