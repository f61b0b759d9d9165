"""The prunable vision transformer: a timm model whose tokens are dropped inside one block.

The weights are timm's own and stay as they are; no parameter is added. Linear layers and norms run on one flat
[tokens, D] matrix: ONNX Runtime fuses a bias into Gemm on two dimensions only, and packed batches need that layout.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from timm.layers import AttentionPoolLatent, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import Outputs, Precision
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.layers import Layout, Packed, Uniform, in_half_precision, token_importance
from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_plan.torch_op import pack_plan
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.plugins.read_extents.torch_op import read_extents
from sait_deploy.tokens import Geometry, Score

_SUPPORTED = "timm's VisionTransformer and VisionTransformerDistilled: ViT, DeiT, DeiT-3, DINOv2, CLIP, SigLIP"


@dataclass(frozen=True, slots=True)
class AdaptivePruning:
    """Every image keeps its own number of patch tokens; how many is said when the model runs.

    Attributes:
        score: how importance is read off the attention.
        prune_at: index of the block after whose attention, before whose MLP, tokens are dropped.
    """

    score: Score
    prune_at: int


@dataclass(frozen=True, slots=True)
class FixedPruning:
    """Every image keeps the same number of patch tokens.

    Attributes:
        score: how importance is read off the attention.
        prune_at: index of the block after whose attention, before whose MLP, tokens are dropped.
        kept: patch tokens kept per image.
    """

    score: Score
    prune_at: int
    kept: int


Pruning: TypeAlias = FixedPruning | AdaptivePruning


def check_supported(model: nn.Module) -> VisionTransformer:
    """Returns the model if it can be pruned.

    Raises:
        ModelError: its class, or the class of a part that pruning reaches into, is another one; it has no readout; or
            it has more patch tokens than selection ranks.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise ModelError(f"a model of class {type(model).__name__} cannot be pruned", f"supported are {_SUPPORTED}")
    vit: VisionTransformer = model
    _check_parts(vit)
    if not vit.global_pool:
        raise ModelError("a model that returns all of its tokens has no readout", "create it with a global_pool")
    if vit.patch_embed.num_patches > MAX_PATCH_TOKENS:
        raise ModelError(
            f"{vit.patch_embed.num_patches} patch tokens are more than the {MAX_PATCH_TOKENS} that selection ranks",
            "choose a smaller --imgsz or a larger patch",
        )
    return vit


def _check_parts(vit: VisionTransformer) -> None:
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
                f"supported are {_SUPPORTED} made of {wanted.__name__}",
            )
    if any(getattr(block.attn, "gate", None) is not None for block in vit.blocks):
        raise ModelError(f"a {type(vit).__name__} with gated attention cannot be pruned", f"supported are {_SUPPORTED}")


def _linear_macs(module: nn.Module) -> int:
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def geometry_of(vit: VisionTransformer) -> Geometry:
    """Reads the sizes that MACs follow from off a supported model."""
    block = vit.blocks[0]
    projection = vit.patch_embed.proj
    readout, readout_per_token = _linear_macs(vit.head), 0
    if isinstance(vit, VisionTransformerDistilled):
        readout += _linear_macs(vit.head_dist)
    if vit.attn_pool is not None:
        pool = vit.attn_pool
        width = pool.num_heads * pool.head_dim
        readout_per_token = _linear_macs(pool.kv) + 2 * pool.latent_len * width
        readout += pool.latent_len * (_linear_macs(pool) - _linear_macs(pool.kv))
        if not vit.pool_include_prefix:
            readout -= vit.num_prefix_tokens * readout_per_token
    return Geometry(
        depth=len(vit.blocks),
        width=vit.embed_dim,
        attention_width=block.attn.attn_dim,
        patch_tokens=vit.patch_embed.num_patches,
        prefix_tokens=vit.num_prefix_tokens,
        embed_macs=vit.patch_embed.num_patches * projection.weight.numel(),
        attention_macs_per_token=_linear_macs(block.attn),
        mlp_macs_per_token=_linear_macs(block.mlp),
        readout_macs=readout,
        readout_macs_per_token=readout_per_token,
    )


class Traced(NamedTuple):
    """What one forward pass computed; the selection's fields are None in a dense pass.

    Attributes:
        logits: float32 [B, classes], or features [B, D] of a headless model.
        features: float32 [B, P+N, D], normalised tokens of the last block; dropped ones as they were when dropped.
        counts: int32 [B], tokens kept per image, prefix included.
        keep: int32 [B, P+N], 1 where a token was kept.
        importance: float32 [B, N].
    """

    logits: Tensor
    features: Tensor | None
    counts: Tensor | None
    keep: Tensor | None
    importance: Tensor | None


class PrunableViT(nn.Module):
    """A supported timm model in inference mode: dense, at a fixed number of tokens, or adaptive.

    Args:
        vit: the timm model; at fp32 its modules are used as they are, not copied.
        pruning: None for the dense form.
        precision: element type of weights and activations; inputs and outputs are float32 in either case.
        outputs: whether the last block's tokens are returned too.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: the pruning does not fit the model.
    """

    def __init__(
        self,
        vit: nn.Module,
        pruning: Pruning | None,
        precision: Precision = Precision.FP32,
        outputs: Outputs = Outputs.LOGITS,
    ) -> None:
        super().__init__()
        supported = check_supported(vit)
        if pruning is not None:
            check_pruning(supported, pruning)
        self.vit = supported if precision is Precision.FP32 else in_half_precision(supported)
        self.vit.eval()
        self.pruning = pruning
        self.outputs = outputs
        self.dtype = torch.float32 if precision is Precision.FP32 else torch.float16
        self.prefix = supported.num_prefix_tokens
        self.patches = supported.patch_embed.num_patches

    def forward(
        self, images: Tensor, mass: Tensor | None = None, keep_limits: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Classifies a batch.

        Args:
            images: float32 [B, 3, H, W], normalised.
            mass: float32 [B], of the adaptive form alone.
            keep_limits: int32 [B, 2], of the adaptive form alone: least and most patch tokens.

        Returns:
            logits; then features, where they were asked for; then counts, where tokens are pruned.
        """
        traced = self.trace(images, mass, keep_limits)
        return tuple(x for x in (traced.logits, traced.features, traced.counts) if x is not None)

    def trace(
        self,
        images: Tensor,
        mass: Tensor | None = None,
        keep_limits: Tensor | None = None,
        *,
        keep: Tensor | None = None,
    ) -> Traced:
        """Runs a batch and returns what selection saw and decided beside the answer.

        Args:
            images: as :meth:`forward` takes it, with mass and keep_limits.
            mass: see there.
            keep_limits: see there.
            keep: int32 [B, P+N] to force in place of the model's own selection. A model pruned to a fixed number wants
                as many tokens in each image as that.

        Raises:
            InvalidArgument: an argument that this form does not take, or one missing that it needs.
        """
        self._check_arguments(mass, keep_limits, keep)
        vit, pruning, blocks = self.vit, self.pruning, list(self.vit.blocks)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images.to(self.dtype))))
        h, whole = x.reshape(-1, x.shape[-1]), Uniform.of(x.shape[0], self.prefix + self.patches, x.device)
        for block in blocks if pruning is None else blocks[: pruning.prune_at]:
            h = _mlp(block, h + block.ls1(whole.attend(block.attn, block.norm1(h))))
        if pruning is None:
            normed = vit.norm(h)
            return Traced(whole.readout(vit, normed).float(), self._features(normed), None, None, None)
        block = blocks[pruning.prune_at]
        update, weights = whole.scored(block.attn, block.norm1(h))
        h = before = h + block.ls1(update)
        importance = token_importance(weights, self.prefix, pruning.score)
        keep, counts = self._select(importance, mass, keep_limits) if keep is None else (keep, _sums(keep))
        kept, layout = self._packed(keep, counts)
        h = _mlp(block, h.index_select(0, kept))
        for block in blocks[pruning.prune_at + 1 :]:
            h = _mlp(block, h + block.ls1(layout.attend(block.attn, block.norm1(h))))
        features = self._features(vit.norm(before.index_put((kept.long(),), h))) if self._wants_features else None
        # Importance that is not a number leaves a selection without meaning: the answer is to say so.
        logits = layout.readout(vit, vit.norm(h)).float() + importance[:, :1] * 0
        return Traced(logits, features, counts, keep, importance)

    def dense(self) -> PrunableViT:
        """Returns the dense form of the same modules, at the same precision."""
        twin = copy.copy(self)
        twin.pruning = None
        return twin

    def _check_arguments(self, mass: Tensor | None, limits: Tensor | None, keep: Tensor | None) -> None:
        if isinstance(self.pruning, AdaptivePruning):
            if keep is None and (mass is None or limits is None):
                raise InvalidArgument("an adaptive model needs mass and keep_limits", "give both")
            return
        if mass is not None or limits is not None:
            raise InvalidArgument("mass and keep_limits are for an adaptive model", "leave both out")
        if keep is None:
            return
        if self.pruning is None:
            raise InvalidArgument("a dense model drops no tokens", "leave keep out")
        wanted = self.prefix + self.pruning.kept
        if bool((keep.sum(1) != wanted).any()):
            raise InvalidArgument(f"keep has not {wanted} tokens in every image", "this model keeps a fixed number")

    def _select(self, importance: Tensor, mass: Tensor | None, limits: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(self.pruning, FixedPruning):
            batch = importance.shape[0]
            mass = torch.ones(batch, dtype=torch.float32, device=importance.device)
            limits = torch.full((batch, 2), self.pruning.kept, dtype=torch.int32, device=importance.device)
        assert mass is not None and limits is not None
        keep, counts = mass_token_select(importance, mass, limits, self.prefix)
        return keep, counts

    def _packed(self, keep: Tensor, counts: Tensor) -> tuple[Tensor, Layout]:
        """Returns the flat indices of the kept tokens, int32 [T], and how they divide into images."""
        rows, cu_seqlens = pack_rows(keep, counts)
        if isinstance(self.pruning, FixedPruning):
            tokens = self.prefix + self.pruning.kept
            return rows[: keep.shape[0] * tokens], Uniform.of(keep.shape[0], tokens, keep.device)
        kept, lanes = read_extents(rows, cu_seqlens)
        return kept, Packed(*pack_plan(kept, cu_seqlens, lanes))

    @property
    def _wants_features(self) -> bool:
        return self.outputs is Outputs.LOGITS_AND_FEATURES

    def _features(self, normed: Tensor) -> Tensor | None:
        whole = (-1, self.prefix + self.patches, normed.shape[-1])
        return normed.reshape(whole).float() if self._wants_features else None


def _mlp(block: Block, h: Tensor) -> Tensor:
    updated: Tensor = h + block.ls2(block.mlp(block.norm2(h)))
    return updated


def _sums(keep: Tensor) -> Tensor:
    return keep.sum(1, dtype=torch.int32)


def check_pruning(vit: VisionTransformer, pruning: Pruning) -> None:
    """Checks that a pruning fits a model.

    Raises:
        InvalidArgument: no such block, no class token to score by, or more tokens to keep than there are.
    """
    depth = len(vit.blocks)
    if not 0 <= pruning.prune_at < depth:
        raise InvalidArgument(
            f"prune_at {pruning.prune_at} is no block of a model of depth {depth}", f"0 to {depth - 1}"
        )
    if pruning.score is Score.CLS and not vit.has_class_token:
        raise InvalidArgument("score 'cls' needs a class token, which this model has not", "use --score mean")
    if isinstance(pruning, FixedPruning) and not 1 <= pruning.kept <= vit.patch_embed.num_patches:
        raise InvalidArgument(f"{pruning.kept} of {vit.patch_embed.num_patches} patch tokens cannot be kept")
