"""The family of timm's VisionTransformer: ViT, DeiT, DeiT-3, DINOv2, CLIP, SigLIP."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from timm.layers import AttentionPoolLatent, DropPath, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.models.checkpoint_names import StateDict
from sait_deploy.models.foreign_names import translated, unread_layout
from sait_deploy.models.layers import attention_pool, gathered, linear_macs, masked_pool
from sait_deploy.models.position_grid import ImageSizes, check_grid
from sait_deploy.models.timm_source import CHATTY, TimmTransformer
from sait_deploy.models.transformer import Heads, Layout, Shape, Tokens
from sait_deploy.system.loggers import errors_only
from sait_deploy.tokens import Geometry


class TimmViT(TimmTransformer):
    """A VisionTransformer or VisionTransformerDistilled made of ``Block`` and ``Attention``."""

    MODULES: ClassVar = ("vision_transformer", "deit")
    OTHERS: ClassVar = ("_18x2_", "_rpn_", "_xp_", "_dlittle_", "_dpwee_", "_dwee_", "_pwee_")

    FOREIGN: ClassVar = (
        "visual.class_embedding",
        "visual.trunk.",
        "vision_encoder.mask_token",
        "preprocessor.patchifier.",
        "radio_model.",
        "beit3.",
    )

    model: VisionTransformer

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__(model)
        _check_parts(model)
        if not model.global_pool:
            raise ModelError("a model that returns all of its tokens has no readout", "create it with a global_pool")
        self.blocks = list(model.blocks)

    def converted(self, tensors: dict[str, Tensor], origin: str, sizes: ImageSizes) -> StateDict:
        """Translates names and layouts of Hugging Face and JAX, and applies timm's conversion of others.

        timm would resample a patch embedding of another size too: that is another model, and is left for the check of
        shapes to name.
        """
        tensors = translated(tensors, origin)
        vit, patches = self.model, tensors.get("patch_embed.proj.weight")
        if patches is not None and patches.ndim == 4 and patches.shape != vit.patch_embed.proj.weight.shape:
            return StateDict(tensors)
        stored, own = tensors.get("pos_embed"), vit.pos_embed
        notes: tuple[str, ...] = ()
        if stored is not None and own is not None and stored.ndim == own.ndim and stored.shape[2] == own.shape[2]:
            prefix = int(own.shape[1]) - vit.patch_embed.num_patches
            if "register_tokens" in tensors:  # DINOv2's own files have a position of the class token, timm's model none
                prefix = 1
            notes = check_grid(int(stored.shape[1]) - prefix, self.shape(), sizes, origin)
        try:
            with errors_only(*CHATTY):
                converted: dict[str, Tensor] = checkpoint_filter_fn(dict(tensors), vit, adapt_layer_scale=True)
        except Exception:  # layouts that no checkpoint of this family has: the check of shapes names what does not fit
            return StateDict(tensors, notes)
        return StateDict(converted, notes)

    def advice(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Returns how to read weights that are pooled otherwise, and names layouts that are not read."""
        own, layout = self.model.state_dict(), unread_layout(tensors)
        if "fc_norm.weight" in tensors and "fc_norm.weight" not in own and "norm.weight" in own:
            return "these weights pool by average, as MAE's fine-tuning does: give --global-pool avg"
        if "norm.weight" in tensors and "norm.weight" not in own and "fc_norm.weight" in own:
            return "these weights normalise before pooling: give --global-pool token"
        if layout is not None:
            return f"the names are those of {layout}, which are not read: save timm's model.state_dict()"
        return None

    def shape(self) -> Shape:
        """Returns the model's sizes."""
        vit, patches = self.model, self.model.patch_embed
        sizes = (patches.img_size, patches.patch_size, patches.grid_size)
        image, patch, grid = ((int(height), int(width)) for height, width in sizes)
        return Shape(_geometry(vit), image, patch, grid, _classes(vit), vit.has_class_token)

    def embed(self, images: Tensor) -> Tokens:
        """Returns the tokens after position embedding."""
        vit = self.model
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        return Tokens(x.reshape(-1, x.shape[-1]))

    def heads(self, block: int, tokens: Tokens) -> Heads:
        """Returns the projections of the normalised tokens, queries and keys normalised where the model does so."""
        module = self.blocks[block]
        attn = module.attn
        qkv: Tensor = attn.qkv(module.norm1(tokens.x))
        if not isinstance(attn.q_norm, nn.Identity):
            q, k, v = qkv.reshape(-1, 3, attn.num_heads, attn.head_dim).unbind(1)
            qkv = torch.cat([attn.q_norm(q), attn.k_norm(k), v], dim=1).reshape(-1, 3 * attn.attn_dim)
        return Heads(qkv, attn.num_heads, attn.scale, attn.attn_drop.p if attn.attn_drop.training else 0.0)

    def attended(self, block: int, tokens: Tokens, attended: Tensor, layout: Layout) -> Tokens:
        """Applies inner norm, projection, layer scale and stochastic depth, and adds."""
        module = self.blocks[block]
        update = module.attn.proj_drop(module.attn.proj(module.attn.norm(attended)))
        return Tokens(tokens.x + layout.drop_path(module.drop_path1, module.ls1(update)))

    def fed_forward(self, block: int, tokens: Tokens, layout: Layout) -> Tokens:
        """Applies norm, MLP, layer scale and stochastic depth, and adds."""
        module = self.blocks[block]
        update = module.ls2(module.mlp(module.norm2(tokens.x)))
        return Tokens(tokens.x + layout.drop_path(module.drop_path2, update))

    def normed(self, x: Tensor) -> Tensor:
        """Applies the last norm, where the model has it before pooling."""
        normed: Tensor = self.model.norm(x)
        return normed

    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        """Pools as the model does, the tokens of each image alone, and applies the head."""
        vit, slots, mask = self.model, layout.slots, layout.mask
        reads_prefix = vit.global_pool == "token" or isinstance(vit, VisionTransformerDistilled)
        first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
        if mask is None:
            x = x.reshape(-1, slots.shape[1], x.shape[-1])
            if vit.attn_pool is None:
                return vit.forward_head(x)  # type: ignore[no-any-return]
            pooled = attention_pool(vit.attn_pool, vit.attn_pool.kv(x[:, first:] if first else x), None)
        elif reads_prefix:
            return vit.forward_head(gathered(slots[:, : vit.num_prefix_tokens], x))  # type: ignore[no-any-return]
        else:
            slots, mask = slots[:, first:], mask[..., first:]
            if vit.attn_pool is not None:
                pooled = attention_pool(vit.attn_pool, gathered(slots, vit.attn_pool.kv(x)), mask)
            else:
                pooled = masked_pool(gathered(slots, x), mask[:, 0, 0, :, None], vit.global_pool)
        logits: Tensor = vit.head(vit.head_drop(vit.fc_norm(pooled)))
        return logits

    def drops_patches(self) -> bool:
        """Returns whether the model has a patch_drop_rate."""
        return not isinstance(self.model.patch_drop, nn.Identity)

    def set_drop_path(self, rates: Sequence[float]) -> None:
        """Sets both halves of each block."""
        for block, rate in zip(self.blocks, rates, strict=True):
            block.drop_path1 = block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()


def _check_parts(vit: VisionTransformer) -> None:
    channels = getattr(getattr(vit.patch_embed, "proj", None), "in_channels", 3)
    if channels != 3:
        raise ModelError(
            f"a model of images with {channels} channels cannot be exported: images are decoded to RGB",
            "create it with in_chans=3, which timm makes of such weights by itself",
        )
    parts: list[tuple[object, type]] = [(vit.patch_embed, PatchEmbed)]
    for block in vit.blocks:
        parts.append((block, Block))
        if type(block) is Block:
            parts.append((block.attn, Attention))
    if vit.attn_pool is not None:
        parts.append((vit.attn_pool, AttentionPoolLatent))
    for part, wanted in parts:
        if type(part) is not wanted:
            raise ModelError(
                f"a {type(vit).__name__} made of {type(part).__name__} cannot be pruned",
                f"a {type(vit).__name__} made of {wanted.__name__} can",
            )
    if any(getattr(block.attn, "gate", None) is not None for block in vit.blocks):
        raise ModelError(
            f"a {type(vit).__name__} with gated attention cannot be pruned", "choose one whose attention has no gate"
        )


def _classes(vit: VisionTransformer) -> int:
    """Returns how many logits the heads give, whatever ``num_classes`` says of a head that was replaced."""
    found = _outputs(vit.head, vit.embed_dim)
    if isinstance(vit, VisionTransformerDistilled):
        distilled = _outputs(vit.head_dist, vit.embed_dim)
        if distilled != found:
            raise ModelError(
                f"the head has {found} classes, and head_dist, the distillation token's, has {distilled}",
                "replace both, as reset_classifier(classes) does",
            )
    return found


def _outputs(head: nn.Module, width: int) -> int:
    """Returns the width of a head's output; 0 of a head that gives the features as they are."""
    if isinstance(head, nn.Identity):
        return 0
    if isinstance(head, nn.Linear):
        return head.out_features
    like = next(head.parameters(), torch.empty(0))
    with torch.no_grad():
        logits = copy.deepcopy(head).eval()(torch.zeros(1, width, dtype=like.dtype, device=like.device))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError("the head returns no logits [B, classes]", "give the model a head that does")
    return int(logits.shape[1])


def _geometry(vit: VisionTransformer) -> Geometry:
    block = vit.blocks[0]
    readout, readout_per_token = linear_macs(vit.head), 0
    if isinstance(vit, VisionTransformerDistilled):
        readout += linear_macs(vit.head_dist)
    if vit.attn_pool is not None:
        pool = vit.attn_pool
        readout_per_token = linear_macs(pool.kv) + 2 * pool.latent_len * pool.num_heads * pool.head_dim
        readout += pool.latent_len * (linear_macs(pool) - linear_macs(pool.kv))
        if not vit.pool_include_prefix:
            readout -= vit.num_prefix_tokens * readout_per_token
    return Geometry(
        depth=len(vit.blocks),
        width=vit.embed_dim,
        attention_width=block.attn.attn_dim,
        patch_tokens=vit.patch_embed.num_patches,
        prefix_tokens=vit.num_prefix_tokens,
        embed_macs=vit.patch_embed.num_patches * vit.patch_embed.proj.weight.numel(),
        attention_macs_per_token=linear_macs(block.attn),
        mlp_macs_per_token=linear_macs(block.mlp),
        readout_macs=readout,
        readout_macs_per_token=readout_per_token,
    )
