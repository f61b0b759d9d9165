"""``MassTokenSelect``: which tokens of each image are kept."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.spec import AttributeKind, AttributeSpec, ElementType, OperatorSpec, TensorSpec

RESOLUTION: Final = 2**20
"""Steps into which an importance of 1 is divided: exact in float32 even when 4,096 of them are summed."""

MAX_PATCH_TOKENS: Final = 4096

SPEC: Final = OperatorSpec(
    name="MassTokenSelect",
    inputs=(
        TensorSpec("importance", ElementType.FLOAT32, ("B", "N")),
        TensorSpec("mass", ElementType.FLOAT32, ("B",)),
        TensorSpec("keep_limits", ElementType.INT32, ("B", "2")),
    ),
    outputs=(
        TensorSpec("keep", ElementType.INT32, ("B", "P+N")),
        TensorSpec("counts", ElementType.INT32, ("B",)),
    ),
    attributes=(AttributeSpec("prefix", AttributeKind.INT),),
    doc=(
        "Keeps, per image, the fewest patch tokens of highest importance whose importance adds up to `mass` of the "
        "total, at least keep_limits[:,0] and at most keep_limits[:,1] of them, and all `prefix` prefix tokens. "
        "Scores are compared as round-half-even(importance * 2^20), ties by lower index; mass >= 1 keeps every token "
        "that the limits allow. `keep` is 1 or 0; `counts` includes the prefix."
    ),
)
