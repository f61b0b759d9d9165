"""The differentiable forward pass: timm's own blocks, with tokens really gathered by the deployed selection."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.layers import token_importance
from sait_deploy.models import FixedPruning, check_pruning, check_supported
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.schedule import Score


class Pass(NamedTuple):
    """What a training pass computed: logits [B, classes], and importance float32 [B, N] of the block pruned in."""

    logits: Tensor
    importance: Tensor


class Student(nn.Module):
    """A timm model that trains dense and sparse. Its parameters are the model's own; none is added.

    Args:
        vit: the model; its modules are used as they are.
        score: how importance is read off the attention.
        prune_at: block after whose attention, before whose MLP, tokens are dropped.

    Raises:
        ModelError: the model is not supported, or drops patches at random.
        InvalidArgument: no such block, or no class token to score by.
    """

    def __init__(self, vit: VisionTransformer, score: Score, prune_at: int) -> None:
        super().__init__()
        self.vit = check_supported(vit)
        if not isinstance(vit.patch_drop, nn.Identity):
            raise ModelError(
                "a model that drops patches at random cannot learn to choose them", "set patch_drop_rate 0"
            )
        check_pruning(vit, FixedPruning(score, prune_at, vit.patch_embed.num_patches))
        self.score = score
        self.prune_at = prune_at

    def forward(self, images: Tensor, kept: int | None) -> Pass:
        """Classifies a batch.

        Args:
            images: float32 [B, 3, H, W], normalised.
            kept: patch tokens that every image keeps from the block's MLP on; None for all.
        """
        vit, blocks = self.vit, list(self.vit.blocks)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for block in blocks[: self.prune_at]:
            x = block(x)
        block = blocks[self.prune_at]
        update, weights = attend(block.attn, block.norm1(x))
        x = x + block.drop_path1(block.ls1(update))
        importance = token_importance(weights, vit.num_prefix_tokens, self.score)
        if kept is not None:
            x = self._gathered(x, importance.detach(), kept)
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        for block in blocks[self.prune_at + 1 :]:
            x = block(x)
        return Pass(vit.forward_head(vit.norm(x)), importance)

    def _gathered(self, x: Tensor, importance: Tensor, kept: int) -> Tensor:
        """Returns the tokens that the deployed selection keeps, [B, P+kept, D] of [B, P+N, D]."""
        batch, _, width = x.shape
        mass = torch.ones(batch, dtype=torch.float32, device=x.device)
        limits = torch.full((batch, 2), kept, dtype=torch.int32, device=x.device)
        keep, counts = mass_token_select(importance.float(), mass, limits, self.vit.num_prefix_tokens)
        rows, _ = pack_rows(keep, counts)
        tokens = self.vit.num_prefix_tokens + kept
        return x.reshape(-1, width).index_select(0, rows[: batch * tokens]).reshape(batch, tokens, width)


def attend(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs timm's attention on [B, S, D] and returns its weights before dropout, [B, H, S, S], too.

    The weights are float32, or float64 where the model is.
    """
    batch, tokens, _ = x.shape
    qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attn.q_norm(q), attn.k_norm(k)
    scores = (q * attn.scale) @ k.transpose(-2, -1)
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    y = (attn.attn_drop(weights).to(v.dtype) @ v).transpose(1, 2).reshape(batch, tokens, attn.attn_dim)
    return attn.proj_drop(attn.proj(attn.norm(y))), weights


def unfuse_on_cpu(vit: VisionTransformer) -> None:
    """Lets attention run as two matrix products where training is on the CPU.

    The backward pass of torch's fused attention there takes several times as long as that of the products.
    """
    for block in vit.blocks:
        block.attn.fused_attn = False
