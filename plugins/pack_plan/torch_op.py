"""``PackPlan`` as a torch operator: eager on any device, and traceable by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor

from sait_deploy.plugins.lanes import lane_slots


@torch.library.custom_op("sait::pack_plan", mutates_args=())
def pack_plan(kept: Tensor, cu_seqlens: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Builds the plan with one scatter, as the ONNX function does: no shape depends on data.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.pack_plan.reference.pack_plan`.
    """
    slots, real = lane_slots(cu_seqlens, lanes)
    bases = torch.arange(len(slots), dtype=torch.int32, device=kept.device)[:, None] * len(lanes)
    places = torch.where(real, bases + lanes, bases)
    unslots = torch.zeros_like(kept).scatter_(0, slots.flatten().long(), places.flatten())
    return slots, unslots, real[:, None, None, :].clone()


@pack_plan.register_fake
def _(kept: Tensor, cu_seqlens: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, width = cu_seqlens.shape[0] - 1, lanes.shape[0]
    return (
        kept.new_empty((batch, width)),
        torch.empty_like(kept),
        kept.new_empty((batch, 1, 1, width), dtype=torch.bool),
    )
