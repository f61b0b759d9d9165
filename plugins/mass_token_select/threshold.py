"""Limits of ``MassTokenSelect`` by a threshold: the tokens that hold so many times uniform importance.

A token reaches a threshold where its score, as the operator rounds it, is at least ``ceil(threshold * 2^20 / N)``. So
the rule is made of whole numbers, and the operator with its ties stays as it is.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.plugins.mass_token_select.spec import RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor


def check_threshold(threshold: float, patch_tokens: int) -> None:
    """Checks a multiple of uniform importance.

    Raises:
        InvalidArgument: no token can hold so much, or the threshold is not above 0.
    """
    if not 0 < threshold <= patch_tokens:
        raise InvalidArgument(
            f"threshold {threshold:g} is not above 0 and at most {patch_tokens}, the patch tokens of an image",
            "give a multiple of uniform importance, such as 1.5",
        )


def least_score(threshold: float, patch_tokens: int) -> int:
    """Returns the least score, in steps of 2^-20, that reaches a multiple of the uniform importance 1 / N."""
    return math.ceil(Fraction(threshold) * RESOLUTION / patch_tokens)


def limits_by_threshold(
    importance: NDArray[np.float32], keep_limits: NDArray[np.int32], threshold: float
) -> NDArray[np.int32]:
    """Returns limits in which the most is lowered to the tokens that reach a threshold, never below the least.

    Args:
        importance: float32 [B, N], as ``MassTokenSelect`` takes it.
        keep_limits: int32 [B, 2], likewise.
        threshold: multiple of uniform importance, at most N.
    """
    score = np.rint(importance * np.float32(RESOLUTION)).astype(np.int32)
    reach = (score >= least_score(threshold, importance.shape[1])).sum(axis=1, dtype=np.int32)
    least, most = keep_limits[:, 0], keep_limits[:, 1]
    return np.stack([least, np.minimum(most, np.maximum(least, reach))], axis=1)


def traced_limits(importance: Tensor, keep_limits: Tensor, threshold: float) -> Tensor:
    """Does what :func:`limits_by_threshold` does, in operators of torch that an export turns into ONNX's own."""
    import torch

    score = torch.round(importance * float(RESOLUTION)).to(torch.int32)
    reach = (score >= least_score(threshold, importance.shape[1])).sum(dim=1, keepdim=True, dtype=torch.int32)
    least, most = keep_limits[:, :1], keep_limits[:, 1:]
    return torch.cat([least, torch.minimum(most, torch.maximum(least, reach))], dim=1)
