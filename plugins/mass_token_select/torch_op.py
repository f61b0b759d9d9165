"""``MassTokenSelect`` as a torch operator: eager on the CPU, one kernel on CUDA, and traceable by torch.export."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sait_deploy.plugins.mass_token_select.spec import RESOLUTION


@torch.library.custom_op("sait::mass_token_select", mutates_args=())
def mass_token_select(importance: Tensor, mass: Tensor, keep_limits: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Selects tokens from the sorted *values* alone, as the ONNX function does.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.mass_token_select.reference.mass_token_select`.
    """
    score = torch.round(importance * float(RESOLUTION)).to(torch.int32)
    ranked = torch.sort(score, dim=1, descending=True).values
    before = torch.cumsum(ranked, dim=1, dtype=torch.int32) - ranked
    limit = torch.ceil(score.sum(dim=1, dtype=torch.int32).to(torch.float32) * mass)[:, None]
    rank = torch.arange(score.shape[1], dtype=torch.int32, device=score.device)
    least = keep_limits[:, :1].clamp(min=1 if prefix == 0 else 0)
    wanted = (before < limit) | (mass[:, None] >= 1)
    kept = ((rank < least) | ((rank < keep_limits[:, 1:]) & wanted)).sum(dim=1, keepdim=True)
    edge = ranked.gather(1, (kept - 1).clamp(min=0))
    above = score > edge
    tie = score == edge
    ties_before = torch.cumsum(tie, dim=1) - tie.to(torch.int64)
    keep = above | (tie & (ties_before < kept - above.sum(dim=1, keepdim=True)))
    return F.pad(keep.to(torch.int32), (prefix, 0), value=1), (kept[:, 0] + prefix).to(torch.int32)


@mass_token_select.register_kernel("cuda")
def _(importance: Tensor, mass: Tensor, keep_limits: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    from sait_deploy.plugins.mass_token_select.triton_kernel import launch

    with torch.cuda.device(importance.device):
        return launch(importance, mass, keep_limits, prefix)


@mass_token_select.register_fake
def _(importance: Tensor, mass: Tensor, keep_limits: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    batch, patches = importance.shape
    keep = importance.new_empty((batch, prefix + patches), dtype=torch.int32)
    return keep, importance.new_empty((batch,), dtype=torch.int32)
