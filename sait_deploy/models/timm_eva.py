"""The family of timm's Eva: DINOv3, EVA-02, EVA-CLIP, Perception Encoder, and ViTs with rotary positions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm, checkpoint_filter_fn
from torch import Tensor, nn

from sait_deploy.models.timm_source import TimmTransformer
from sait_deploy.models.transformer import Heads, Layout, Tokens


class TimmEva(TimmTransformer):
    """An Eva made of ``EvaBlock`` or ``EvaBlockPostNorm``, with or without rotary positions.

    A token carries the sine and cosine of its rotary position, float [T, Dh] each, or, where every head of every block
    has frequencies of its own, the number of the token in its image, int32 [T]. Prefix tokens are not rotated: their
    sine is 0. Training does not vary the positions at random as timm does for some models.
    """

    MODULES: ClassVar = ("eva",)

    model: Eva

    def __init__(self, model: Eva) -> None:
        super().__init__(model)
        for block in self.blocks:
            self.check_part(block, EvaBlock, EvaBlockPostNorm)
            self.check_attention(block.attn, EvaAttention, AttentionRope)

    def filtered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Applies timm's conversion of checkpoints for Eva."""
        return checkpoint_filter_fn(tensors, self.model)  # type: ignore[no-any-return]

    def stored_position_prefix(self, tensors: Mapping[str, Tensor]) -> int:
        """Returns the number of prefix tokens that have a position."""
        return 0 if self.model.no_embed_class else int(self.model.num_prefix_tokens)

    def embed(self, images: Tensor) -> Tokens:
        """Returns the tokens after position embedding, with their rotary positions."""
        eva, rope = self.model, self.model.rope
        x, _ = eva._pos_embed(eva.patch_embed(images))
        x = eva.norm_pre(x)
        batch, tokens, width = x.shape
        flat = x.reshape(-1, width)
        if rope is None:
            return Tokens(flat)
        if eva.rope_mixed:
            return Tokens(flat, (torch.arange(tokens, dtype=torch.int32, device=x.device).repeat(batch),))
        return Tokens(flat, tuple(table.to(x).repeat(batch, 1) for table in self._shared_positions))

    def heads(self, block: int, tokens: Tokens) -> Heads:
        """Returns the projections, queries and keys normalised and rotated where the model does so."""
        module = self.blocks[block]
        attn = module.attn
        x = module.norm1(tokens.x) if isinstance(module, EvaBlock) else tokens.x
        q, k, v = _projections(attn, x)
        q, k = attn.q_norm(q).to(v.dtype), attn.k_norm(k).to(v.dtype)
        if tokens.carried:
            position = self._positions(block, tokens)
            q, k = self._rotated(q, position), self._rotated(k, position)
        if k.shape[1] < q.shape[1]:  # several heads of queries share one of keys and values
            k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
        qkv = torch.cat([q, k, v], dim=1).flatten(1)
        return Heads(qkv, attn.num_heads, attn.scale, attn.attn_drop.p if attn.attn_drop.training else 0.0)

    def attended(self, block: int, tokens: Tokens, attended: Tensor, layout: Layout) -> Tokens:
        """Applies inner norm, projection, layer scale or norm, and stochastic depth, and adds."""
        module = self.blocks[block]
        update = module.attn.proj_drop(module.attn.proj(module.attn.norm(attended)))
        update = module.norm1(update) if isinstance(module, EvaBlockPostNorm) else _scaled(module.gamma_1, update)
        return tokens._replace(x=tokens.x + layout.drop_path(module.drop_path1, update))

    def fed_forward(self, block: int, tokens: Tokens, layout: Layout) -> Tokens:
        """Applies the MLP, its norm before or after it, layer scale and stochastic depth, and adds."""
        module = self.blocks[block]
        if isinstance(module, EvaBlockPostNorm):
            update = module.norm2(module.mlp(tokens.x))
        else:
            update = _scaled(module.gamma_2, module.mlp(module.norm2(tokens.x)))
        return tokens._replace(x=tokens.x + layout.drop_path(module.drop_path2, update))

    def drops_patches(self) -> bool:
        """Returns whether the model has a patch_drop_rate."""
        return self.model.patch_drop is not None

    def has_class_token(self) -> bool:
        """Returns whether the first prefix token is a class token."""
        return self.model.cls_token is not None

    def pools_prefix(self) -> bool:
        """Returns whether pooling reads the prefix tokens too, as timm's attention pooling of Eva does."""
        return self.model.attn_pool is not None

    @functools.cached_property
    def _shared_positions(self) -> tuple[Tensor, Tensor]:
        """Sine and cosine of the position of each token of an image, [P+N, Dh] each."""
        eva = self.model
        with torch.no_grad():
            embedding = eva.rope.get_embed(shape=eva.patch_embed.grid_size).detach()
        sine, cosine = embedding.chunk(2, dim=-1)
        prefix = eva.num_prefix_tokens
        return F.pad(sine, (0, 0, prefix, 0)), F.pad(cosine, (0, 0, prefix, 0), value=1.0)

    def _positions(self, block: int, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Returns sine and cosine of the tokens' positions, [T, 1, Dh] each, or [T, H, Dh] where heads differ.

        Where they do, the angle of a patch at column x and row y is x·f + y·g, with frequencies f and g of each head of
        each block (RoPE-Mixed, arXiv 2403.13298, section 3.2).
        """
        if not self.model.rope_mixed:
            sine, cosine = tokens.carried
            return sine[:, None], cosine[:, None]
        rope, (numbers,) = self.model.rope, tokens.carried
        along_x, along_y = rope.freqs[:, block].float()
        angles = rope.t_x.float()[:, None, None] * along_x + rope.t_y.float()[:, None, None] * along_y
        angles = F.pad(angles, (0, 0, 0, 0, self.model.num_prefix_tokens, 0)).repeat_interleave(2, dim=-1)
        angles = angles.index_select(0, numbers)
        return angles.sin().to(tokens.x.dtype), angles.cos().to(tokens.x.dtype)

    def _rotated(self, x: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
        """Rotates queries or keys [T, H, Dh]."""
        sine, cosine = position
        return x * cosine + (x @ self._turn.to(x)) * sine

    @functools.cached_property
    def _turn(self) -> Tensor:
        """The matrix [Dh, Dh] that turns each pair of channels by 90 degrees.

        On a CPU a product with it takes as long as splitting and joining halves does, and less than picking every
        second channel.
        """
        size, in_halves = self.blocks[0].attn.head_dim, self.blocks[0].attn.rotate_half
        first = torch.arange(size // 2) if in_halves else torch.arange(0, size, 2)
        second = first + (size // 2 if in_halves else 1)
        turn = torch.zeros(size, size)
        turn[second, first], turn[first, second] = -1.0, 1.0
        return turn


def _projections(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values, [T, H, Dh] each; keys and values may have fewer heads."""
    if attn.qkv is None:
        projected = [projection(x) for projection in (attn.q_proj, attn.k_proj, attn.v_proj)]
    elif getattr(attn, "q_bias", None) is not None:
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        projected = list(F.linear(x, attn.qkv.weight, bias).chunk(3, dim=-1))
    else:
        projected = list(attn.qkv(x).chunk(3, dim=-1))
    q, k, v = (part.unflatten(-1, (-1, attn.head_dim)) for part in projected)
    return q, k, v


def _scaled(scale: nn.Parameter | None, update: Tensor) -> Tensor:
    return update if scale is None else scale * update
