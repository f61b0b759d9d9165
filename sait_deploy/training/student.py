"""The differentiable forward pass: timm's own blocks, with tokens really gathered by the deployed selection."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.models.layers import Packed, projected, token_importance
from sait_deploy.models.prunable_vit import FixedPruning, check_pruning, check_supported
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_plan.torch_op import pack_plan
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.plugins.read_extents.torch_op import read_extents
from sait_deploy.tokens import OperatingPoint, Score


class Pass(NamedTuple):
    """What a training pass computed.

    Attributes:
        logits: [B, classes].
        importance: float32 [B, N], of the block pruned in.
        density: kept share of the batch's patch tokens; None where nothing was dropped.
    """

    logits: Tensor
    importance: Tensor
    density: float | None = None


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

    def forward(self, images: Tensor, point: OperatingPoint | None) -> Pass:
        """Classifies a batch.

        Args:
            images: float32 [B, 3, H, W], normalised.
            point: what every image keeps from the block's MLP on, within limits from 1 to N; None for all.
        """
        vit, blocks = self.vit, list(self.vit.blocks)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for block in blocks[: self.prune_at]:
            x = block(x)
        block = blocks[self.prune_at]
        update, weights = attend(block.attn, block.norm1(x))
        x = x + block.drop_path1(block.ls1(update))
        importance = token_importance(weights, vit.num_prefix_tokens, self.score)
        if point is not None:
            return self._sparse(x, importance, point)
        return Pass(self._with_as_many(x), importance)

    def _sparse(self, x: Tensor, importance: Tensor, point: OperatingPoint) -> Pass:
        """Goes on from the scored attention with the tokens of [B, P+N, D] that the deployed selection keeps."""
        batch, device = len(x), x.device
        mass = torch.full((batch,), point.mass, dtype=torch.float32, device=device)
        limits = torch.tensor([[point.min_keep, point.max_keep]], dtype=torch.int32, device=device).repeat(batch, 1)
        keep, counts = mass_token_select(importance.detach().float(), mass, limits, self.vit.num_prefix_tokens)
        rows, cu_seqlens = pack_rows(keep, counts)
        if point.min_keep == point.max_keep:
            tokens = self.vit.num_prefix_tokens + point.max_keep
            flat = x.flatten(0, 1).index_select(0, rows[: batch * tokens])
            logits = self._with_as_many(flat.reshape(batch, tokens, -1))
            return Pass(logits, importance, point.max_keep / self.vit.patch_embed.num_patches)
        kept, lanes = read_extents(rows, cu_seqlens)
        logits = self._packed(x.flatten(0, 1).index_select(0, kept), Packed(*pack_plan(kept, cu_seqlens, lanes)))
        patches = len(kept) / batch - self.vit.num_prefix_tokens
        return Pass(logits, importance, patches / self.vit.patch_embed.num_patches)

    def _with_as_many(self, x: Tensor) -> Tensor:
        """Runs the rest on [B, S, D], from the MLP of the block pruned in on."""
        vit, block = self.vit, self.vit.blocks[self.prune_at]
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        for later in list(vit.blocks)[self.prune_at + 1 :]:
            x = later(x)
        logits: Tensor = vit.forward_head(vit.norm(x))
        return logits

    def _packed(self, x: Tensor, packed: Packed) -> Tensor:
        """Runs the rest on packed tokens [T, D], so that images of few tokens cost as little."""
        vit, block = self.vit, self.vit.blocks[self.prune_at]
        images = packed.unslots // packed.slots.shape[1]
        x = x + _scaled(block.drop_path2, block.ls2(block.mlp(block.norm2(x))), images, packed)
        for later in list(vit.blocks)[self.prune_at + 1 :]:
            x = x + _scaled(
                later.drop_path1, later.ls1(attend_packed(later.attn, later.norm1(x), packed)), images, packed
            )
            x = x + _scaled(later.drop_path2, later.ls2(later.mlp(later.norm2(x))), images, packed)
        return packed.readout(vit, vit.norm(x))


def _scaled(drop_path: nn.Module, update: Tensor, images: Tensor, packed: Packed) -> Tensor:
    """Lets stochastic depth drop the update [T, D] of whole images; ``images`` [T] says whose each token is."""
    if isinstance(drop_path, nn.Identity):
        return update
    scale: Tensor = drop_path(update.new_ones(len(packed.slots), 1))
    return update * scale.index_select(0, images)


def attend_packed(attn: Attention, x: Tensor, packed: Packed) -> Tensor:
    """Runs timm's attention inside each image of packed tokens, [T, D] to [T, D]."""
    batch, longest = packed.slots.shape
    qkv = projected(attn, x).index_select(0, packed.slots.flatten())
    q, k, v = qkv.reshape(batch, longest, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    scores = ((q * attn.scale) @ k.transpose(-2, -1)).masked_fill(~packed.mask, float("-inf"))
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    y = (attn.attn_drop(weights).to(v.dtype) @ v).transpose(1, 2).reshape(-1, attn.attn_dim)
    y = attn.norm(y.index_select(0, packed.unslots))
    projected_back: Tensor = attn.proj_drop(attn.proj(y))
    return projected_back


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
