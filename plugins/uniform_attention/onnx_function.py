"""``UniformAttention`` as standard ONNX operators."""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.head_gather import GATHER_HEADS, PRODUCTS, WEIGH_AND_JOIN

BODY: Final = f"""{GATHER_HEADS}{PRODUCTS}
    weights = Softmax <axis: int = -1> (products_f)
{WEIGH_AND_JOIN}"""
