"""``PackedAttention`` as standard ONNX operators."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.head_gather import GATHER_HEADS, PRODUCTS, WEIGH_AND_JOIN

# A padding lane repeats its image's first row, so its score is at most the row's largest, and e^-50 takes it out of the
# sum to far below float32's resolution. A lower bias would make the softmax compute subnormal numbers, on which CPUs
# are slow.
_SOFTMAX = """
    nothing = Constant <value = float {0.0}> ()
    never = Constant <value = float {-50.0}> ()
    bias = Where (mask, nothing, never)
    scores = Add (products_f, bias)
    weights = Softmax <axis: int = -1> (scores)
"""

BODY: Final = GATHER_HEADS + PRODUCTS + _SOFTMAX + WEIGH_AND_JOIN
