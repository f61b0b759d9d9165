"""The operators of the ``torch-cuda`` runtime on a device, compared with their definitions in float32."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from sait_deploy.plugins.flash_attention import attention_column_sums, flash_packed, flash_uniform
from sait_deploy.plugins.mass_token_select.reference import mass_token_select as reference
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows

_BATCH, _TOKENS, _HEADS, _HEAD_SIZE = 3, 70, 2, 32
_PREFIX: Final = 1
_SCALE: Final = _HEAD_SIZE**-0.5
_SPARE_ROWS: Final = 5
_MOST_ERROR: Final = 2e-2
"""Relative; bfloat16 has steps of 2^-8."""


def compare_with_definitions(device: torch.device) -> None:
    """Scores, selects, packs and attends on a device.

    Raises:
        RuntimeError: an answer is wrong; it names the operator.
    """
    qkv = torch.randn(_BATCH * _TOKENS, 3 * _HEADS * _HEAD_SIZE, generator=torch.Generator().manual_seed(0))
    half = qkv.bfloat16()
    there, exact = half.to(device), half.float()
    y, lse = flash_uniform(there, _BATCH, _HEADS, _SCALE)
    wanted_y, wanted_lse = flash_uniform(exact, _BATCH, _HEADS, _SCALE)
    _check("attention", y, wanted_y)
    _check("log-sum-exp", lse, wanted_lse)
    sums = attention_column_sums(there, lse, _SCALE)
    _check("column sums", sums, attention_column_sums(exact, wanted_lse, _SCALE))

    importance = sums.mean(dim=1)[:, _PREFIX:]
    importance = importance / importance.sum(dim=1, keepdim=True)
    mass, limits = np.full(_BATCH, 0.6, np.float32), np.tile(np.array([[1, _TOKENS]], np.int32), (_BATCH, 1))
    given = (torch.from_numpy(array).to(device) for array in (mass, limits))
    keep, counts = mass_token_select(importance, *given, _PREFIX)
    wanted_keep, _ = reference(importance.cpu().numpy(), mass, limits, _PREFIX)
    if not np.array_equal(keep.cpu().numpy(), wanted_keep):
        raise RuntimeError("the selection differs from the reference")

    rows, ends = pack_rows(keep, counts)
    total = int(ends[-1])
    first = rows[: total + _SPARE_ROWS]
    packed = flash_packed(there.index_select(0, first), ends, _TOKENS, _HEADS, _SCALE)[:total]
    wanted = flash_packed(exact.index_select(0, rows[:total].cpu()), ends.cpu(), _TOKENS, _HEADS, _SCALE)
    _check("packed attention", packed, wanted)


def _check(what: str, found: Tensor, wanted: Tensor) -> None:
    error = float((found.float().cpu() - wanted).norm() / wanted.norm())
    if not error <= _MOST_ERROR:
        raise RuntimeError(f"{what} differs from its definition by {error:.1e}, more than {_MOST_ERROR:.0e}")
