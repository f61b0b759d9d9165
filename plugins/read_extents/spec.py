"""``ReadExtents``: the only operator whose output shapes depend on data."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import ElementType, OperatorSpec, TensorSpec

SPEC: Final = OperatorSpec(
    name="ReadExtents",
    inputs=(
        TensorSpec("rows", ElementType.INT32, ("B*(P+N)",)),
        TensorSpec("cu_seqlens", ElementType.INT32, ("B+1",)),
    ),
    outputs=(
        TensorSpec("kept", ElementType.INT32, ("T",)),
        TensorSpec("lanes", ElementType.INT32, ("W",)),
    ),
    attributes=(),
    doc=(
        "The seam. `kept` is the first T of `rows`, T = cu_seqlens[B] being the kept tokens of the whole batch. "
        "`lanes` counts from 0 to W - 1, W being the tokens of the longest image."
    ),
)
