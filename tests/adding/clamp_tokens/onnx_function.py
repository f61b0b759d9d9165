"""``ClampTokens`` as standard ONNX operators."""

from __future__ import annotations

from typing import Final

BODY: Final = """
    most = Constant <value_float: float = @limit> ()
    least = Neg (most)
    clamped = Clip (tokens, least, most)
"""
