"""A pruned forward pass by timm's own modules, image by image: what everything of the toolkit is compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlockPostNorm
from torch import Tensor


class Plain(NamedTuple):
    """Tokens of images, [B, S, D], and the rotary positions of their patches as timm's blocks take them, or None."""

    x: Tensor
    rope: Tensor | None


def embedded(model: Any, images: Tensor) -> Plain:
    """The tokens before the first block; of mixed positions rope is [depth, H, N, 2*Dh], of shared ones [N, 2*Dh]."""
    found = model._pos_embed(model.patch_embed(images))
    x, rope = found if isinstance(model, Eva) else (found, None)
    return Plain(model.norm_pre(x), rope)


def rope_of(model: Any, block: int, rope: Tensor | None) -> Tensor | None:
    """The rotary positions of a block, [..., N, 2*Dh]."""
    return rope[block] if rope is not None and getattr(model, "rope_mixed", False) else rope


def whole_block(model: Any, block: int, plain: Plain) -> Plain:
    """Runs a block by its own forward pass."""
    module = model.blocks[block]
    x = module(plain.x, rope=rope_of(model, block, plain.rope)) if isinstance(model, Eva) else module(plain.x)
    return plain._replace(x=x)


def attended(model: Any, block: int, plain: Plain, mask: Tensor | None = None) -> Plain:
    """Runs a block's attention alone; ``mask`` bool [B, 1, 1, S] says which tokens are attended to."""
    module = model.blocks[block]
    if not isinstance(model, Eva):
        return plain._replace(x=plain.x + module.ls1(module.attn(module.norm1(plain.x), attn_mask=mask)))
    rope = rope_of(model, block, plain.rope)
    if isinstance(module, EvaBlockPostNorm):
        return plain._replace(x=plain.x + module.norm1(module.attn(plain.x, rope=rope, attn_mask=mask)))
    update = module.attn(module.norm1(plain.x), rope=rope, attn_mask=mask)
    return plain._replace(x=plain.x + (update if module.gamma_1 is None else module.gamma_1 * update))


def fed(model: Any, block: int, plain: Plain) -> Plain:
    """Runs what follows a block's attention."""
    module = model.blocks[block]
    if not isinstance(model, Eva):
        return plain._replace(x=plain.x + module.ls2(module.mlp(module.norm2(plain.x))))
    if isinstance(module, EvaBlockPostNorm):
        return plain._replace(x=plain.x + module.norm2(module.mlp(plain.x)))
    update = module.mlp(module.norm2(plain.x))
    return plain._replace(x=plain.x + (update if module.gamma_2 is None else module.gamma_2 * update))


def kept(model: Any, plain: Plain, patches: list[int]) -> Plain:
    """Keeps the prefix and these patches of one image."""
    prefix = model.num_prefix_tokens
    rope = None if plain.rope is None else plain.rope[..., patches, :]
    return Plain(plain.x[:, [*range(prefix), *(prefix + i for i in patches)]], rope)


def attention_weights(model: Any, block: int, images: Tensor) -> Tensor:
    """Softmax attention of one block, [B, heads, P+N, P+N], from timm's own modules and a softmax written here."""
    plain = embedded(model, images)
    for before in range(block):
        plain = whole_block(model, before, plain)
    module, attn = model.blocks[block], model.blocks[block].attn
    x = plain.x if isinstance(module, EvaBlockPostNorm) else module.norm1(plain.x)
    heads: list[Tensor] = []
    if attn.qkv is None:
        heads = [projection(x).unflatten(-1, (-1, attn.head_dim)) for projection in (attn.q_proj, attn.k_proj)]
    else:
        joined = attn.qkv(x)
        if getattr(attn, "q_bias", None) is not None:
            joined = joined + torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        heads = list(joined.unflatten(-1, (3, attn.num_heads, attn.head_dim)).unbind(2)[:2])
    q, k = attn.q_norm(heads[0]).transpose(1, 2), attn.k_norm(heads[1]).transpose(1, 2)
    rope, prefix = rope_of(model, block, plain.rope), model.num_prefix_tokens
    if rope is not None:
        half = attn.rotate_half
        q, k = (
            torch.cat([part[:, :, :prefix], apply_rot_embed_cat(part[:, :, prefix:], rope, half=half)], dim=2)
            for part in (q, k)
        )
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    return torch.softmax(q @ k.transpose(-2, -1) * attn.head_dim**-0.5, dim=-1)


def pruned(model: Any, image: Tensor, prune_at: int, patches: list[int]) -> tuple[Tensor, Tensor]:
    """Logits [1, classes] and normalised tokens [1, P+N, D] of one image [1, 3, H, W] pruned in one block.

    Dropped tokens are as they were when dropped.
    """
    plain = embedded(model, image)
    for block in range(prune_at):
        plain = whole_block(model, block, plain)
    plain = attended(model, prune_at, plain)
    rest = fed(model, prune_at, kept(model, plain, patches))
    for block in range(prune_at + 1, len(model.blocks)):
        rest = whole_block(model, block, rest)
    prefix, tokens = model.num_prefix_tokens, plain.x.clone()
    tokens[:, [*range(prefix), *(prefix + i for i in patches)]] = rest.x
    return model.forward_head(model.norm(rest.x)), model.norm(tokens)
