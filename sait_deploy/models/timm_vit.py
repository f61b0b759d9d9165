"""The family of timm's VisionTransformer: ViT, DeiT, DeiT-3, DINOv2, CLIP, SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.models.layers import head_outputs
from sait_deploy.models.timm_source import TimmTransformer
from sait_deploy.models.transformer import Heads, Layout, Tokens


class TimmViT(TimmTransformer):
    """A VisionTransformer or VisionTransformerDistilled made of ``Block`` and ``Attention``."""

    MODULES: ClassVar[tuple[str, ...]] = ("vision_transformer", "deit")
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
        for block in self.blocks:
            self.check_part(block, Block)
            self.check_attention(block.attn, Attention)

    def filtered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Applies timm's conversion of checkpoints for VisionTransformer."""
        return checkpoint_filter_fn(tensors, self.model, adapt_layer_scale=True)  # type: ignore[no-any-return]

    def stored_position_prefix(self, tensors: Mapping[str, Tensor]) -> int:
        """Returns the number of prefix tokens that have a position in a checkpoint."""
        if "register_tokens" in tensors:  # DINOv2's own files have a position of the class token, timm's model none
            return 1
        return int(self.model.pos_embed.shape[1]) - int(self.model.patch_embed.num_patches)

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

    def drops_patches(self) -> bool:
        """Returns whether the model has a patch_drop_rate."""
        return not isinstance(self.model.patch_drop, nn.Identity)

    def has_class_token(self) -> bool:
        """Returns whether the first prefix token is a class token."""
        return bool(self.model.has_class_token)

    def pools_prefix(self) -> bool:
        """Returns whether pooling reads the prefix tokens too."""
        return bool(self.model.pool_include_prefix)

    def reads_prefix_alone(self) -> bool:
        """Returns whether the head reads prefix tokens alone, as both heads of a distilled model do."""
        return super().reads_prefix_alone() or isinstance(self.model, VisionTransformerDistilled)

    def classes(self) -> int:
        """Returns how many logits the heads give.

        Raises:
            ModelError: the two heads of a distilled model differ.
        """
        found = super().classes()
        if isinstance(self.model, VisionTransformerDistilled):
            distilled = head_outputs(self.model.head_dist, self.model.embed_dim)
            if distilled != found:
                raise ModelError(
                    f"the head has {found} classes, and head_dist, the distillation token's, has {distilled}",
                    "replace both, as reset_classifier(classes) does",
                )
        return found
