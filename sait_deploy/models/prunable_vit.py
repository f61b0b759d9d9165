"""The prunable vision transformer: a model of any family whose tokens are dropped inside one block.

The weights are the model's own and stay as they are; no parameter is added. Linear layers and norms run on one flat
[tokens, D] matrix: ONNX Runtime fuses a bias into Gemm on two dimensions only, and packed batches need that layout.
"""

from __future__ import annotations

import copy
from typing import Final

import torch
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Outputs, Precision, Task
from sait_deploy.artifacts.tower_info import TowerChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import in_half_precision, token_importance
from sait_deploy.models.layouts import DEPLOYED
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning, check_blocks, check_pruning
from sait_deploy.models.tower_tokens import Prefix, tower_tokens
from sait_deploy.models.traced import Begun, Scored, Traced
from sait_deploy.models.transformer import Layout, Tokens
from sait_deploy.plugins.mass_token_select.threshold import traced_limits
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.system.option_values import chosen
from sait_deploy.tokens import Geometry

_SHORTEST: Final = 1e-12
"""Length that features are divided by at least: those that are all zero stay zero."""


def geometry_of(model: nn.Module) -> Geometry:
    """Returns the sizes that MACs follow from.

    Raises:
        ModelError: the model is not supported.
    """
    return transformer_of(model).shape().geometry


class PrunableViT(nn.Module):
    """A model in inference mode: dense, at a fixed number of tokens, or adaptive.

    Args:
        vit: a model of a family; at fp32 its modules are used as they are, not copied.
        pruning: None for the dense form.
        precision: element type of weights and activations; inputs and outputs are float32 in either case.
        outputs: whether the last block's tokens are returned too.
        task: whether what the head gives, or a model without one, is brought to unit length.
        blocks: those whose tokens are returned too, ascending.
        tower: what is returned of an image tower, which has no readout; None of other models.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: the pruning does not fit the model, or it has no such block.
    """

    def __init__(
        self,
        vit: nn.Module,
        pruning: Pruning | None,
        precision: Precision = Precision.FP32,
        outputs: Outputs = Outputs.LOGITS,
        task: Task = Task.CLASSIFY,
        blocks: tuple[int, ...] = (),
        tower: TowerChoice | None = None,
    ) -> None:
        super().__init__()
        precision, outputs = chosen(Precision, precision, "precision"), chosen(Outputs, outputs, "outputs")
        if precision not in EXPORTED_PRECISIONS:
            raise InvalidArgument(f"precision cannot be {precision.value!r}", "use 'fp32' or 'fp16'")
        shape = transformer_of(vit).shape()
        if pruning is not None:
            check_pruning(vit, pruning)
        check_blocks(shape.geometry, blocks)
        self.vit = (vit if precision is Precision.FP32 else in_half_precision(vit)).eval()
        self.transformer = transformer_of(self.vit)
        self.pruning = pruning
        self.outputs, self.task, self.blocks = outputs, chosen(Task, task, "task"), blocks
        self.dtype = torch.float32 if precision is Precision.FP32 else torch.float16
        self.prefix, self.patches, self.tower = shape.prefix, shape.patches, tower

    def forward(
        self, images: Tensor, mass: Tensor | None = None, keep_limits: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Classifies a batch.

        Args:
            images: float32 [B, C, H, W], normalised.
            mass: float32 [B], of the adaptive form alone.
            keep_limits: int32 [B, 2], of the adaptive form alone: least and most patch tokens.

        Returns:
            logits; then features, those of blocks, and with them keep, where they were asked for; then counts. Only
            where tokens are pruned are there keep and counts. Of an image tower tokens, cu_seqlens and positions.
        """
        traced = self.trace(images, mass, keep_limits)
        if traced.cu_seqlens is not None and traced.positions is not None:
            return traced.logits, traced.cu_seqlens, traced.positions
        keep = traced.keep if self.blocks else None
        return tuple(x for x in (traced.logits, traced.features, *traced.blocks, keep, traced.counts) if x is not None)

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
        if self.pruning is None:
            return self.finish_dense(self.begin(images, self.transformer.depth), self.transformer.depth)
        scored = self.score(self.begin(images, self.pruning.prune_at))
        return self.finish(scored, mass, keep_limits, keep=keep)

    def begin(self, images: Tensor, block: int) -> Begun:
        """Runs the blocks before ``block``: the part of :meth:`trace` that all points and dense have in common."""
        tokens = self.transformer.embed(images.to(self.dtype))
        whole = DEPLOYED.uniform.of(images.shape[0], self.prefix + self.patches, images.device)
        tokens, taken = self._run(tokens, whole, 0, block)
        return Begun(tokens, whole, taken)

    def score(self, begun: Begun) -> Scored:
        """Runs the attention of the block pruned in: what all points have in common beyond :meth:`begin`."""
        assert self.pruning is not None
        tokens, weights = self.transformer.scored(self.pruning.prune_at, begun.tokens, begun.whole)
        return Scored(tokens, token_importance(weights, self.prefix, self.pruning.score), begun.taken)

    def _run(self, tokens: Tokens, layout: Layout, first: int, end: int) -> tuple[Tokens, tuple[Tensor, ...]]:
        """Runs the blocks from ``first`` to before ``end``, and returns what those asked for left, [T, D] each, too."""
        taken = []
        for block in self.blocks:
            if first <= block < end:
                tokens = self.transformer.run(tokens, layout, first, block + 1)
                taken.append(tokens.x)
                first = block + 1
        return self.transformer.run(tokens, layout, first, end), tuple(taken)

    def finish(
        self,
        scored: Scored,
        mass: Tensor | None = None,
        keep_limits: Tensor | None = None,
        *,
        keep: Tensor | None = None,
    ) -> Traced:
        """Selects tokens and runs what is left of the model on them; takes what :meth:`trace` takes."""
        self._check_arguments(mass, keep_limits, keep)
        keep, counts = self.select(scored.importance, mass, keep_limits) if keep is None else (keep, _sums(keep))
        kept, layout = DEPLOYED.of_kept(keep, counts, self.fixed_tokens)
        if self.tower is not None:
            assert self.pruning is not None
            x = self.transformer.run_rest(self.pruning.prune_at, scored.tokens.rows(kept), layout).x
            # Importance that is not a number leaves a selection without meaning: its image's tokens become none too.
            doubt = (scored.importance[:, :1] * 0).index_select(0, kept // (self.prefix + self.patches))
            found = self._tower(self.transformer.normed(x) + doubt, kept, layout, counts)
            return found._replace(counts=counts, keep=keep, importance=scored.importance)
        logits, features, blocks = self.finish_kept(scored, kept, layout)
        return Traced(logits, features, counts, keep, scored.importance, blocks)

    def finish_kept(
        self, scored: Scored, kept: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """Runs what is left of the model on the kept tokens.

        Args:
            scored: all tokens.
            kept: flat indices of the kept ones, int32 [T].
            layout: how those divide into images.

        Returns:
            logits, features and those of blocks, as :class:`Traced` has them.
        """
        model, (tokens, importance, taken) = self.transformer, scored
        assert self.pruning is not None
        block = self.pruning.prune_at
        pruned = model.fed_forward(block, tokens.rows(kept), layout)
        last, later = self._run(pruned, layout, block + 1, model.depth)
        if block in self.blocks:
            later = pruned.x, *later

        def at_full_resolution(x: Tensor) -> Tensor:
            return self._features(model.normed(tokens.x.index_put((kept.long(),), x)))

        features = at_full_resolution(last.x) if self._wants_features else None
        blocks = (*(self._features(model.normed(x)) for x in taken), *map(at_full_resolution, later))
        # Importance that is not a number leaves a selection without meaning: the logits become no numbers too.
        return self.answer(model.readout(model.normed(last.x), layout)) + importance[:, :1] * 0, features, blocks

    @property
    def fixed_tokens(self) -> int | None:
        """Tokens that every image keeps, prefix included; None where each keeps its own number."""
        return self.prefix + self.pruning.kept if isinstance(self.pruning, FixedPruning) else None

    def finish_dense(self, begun: Begun, block: int) -> Traced:
        """Runs the dense form from a block on, on what :meth:`begin` returned for that block."""
        model = self.transformer
        last, later = self._run(begun.tokens, begun.whole, block, model.depth)
        normed = model.normed(last.x)
        if self.tower is not None:
            return self._tower(normed, begun.whole.unslots, begun.whole, None)
        features = self._features(normed) if self._wants_features else None
        blocks = tuple(self._features(model.normed(x)) for x in (*begun.taken, *later))
        return Traced(self.answer(model.readout(normed, begun.whole)), features, None, None, None, blocks)

    def _tower(self, x: Tensor, kept: Tensor, layout: Layout, counts: Tensor | None) -> Traced:
        """Returns what an image tower answers; takes what ``tower_tokens`` takes."""
        assert self.tower is not None
        prefix = Prefix(self.prefix, self.tower.left_out(self.prefix))
        found = tower_tokens(x, kept, layout, self.prefix + self.patches, prefix, counts)
        return Traced(found.tokens, None, None, None, None, (), found.cu_seqlens, found.positions)

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

    def select(self, importance: Tensor, mass: Tensor | None, limits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns which tokens are kept, int32 [B, P+N], and how many, int32 [B].

        Args:
            importance: float32 [B, N].
            mass: as :meth:`forward` takes it.
            limits: likewise, least and most patch tokens.
        """
        if isinstance(self.pruning, FixedPruning):
            batch = importance.shape[0]
            mass = torch.ones(batch, dtype=torch.float32, device=importance.device)
            limits = torch.full((batch, 2), self.pruning.kept, dtype=torch.int32, device=importance.device)
        assert mass is not None and limits is not None
        if isinstance(self.pruning, AdaptivePruning) and self.pruning.threshold is not None:
            limits = traced_limits(importance, limits, self.pruning.threshold)
        keep, counts = mass_token_select(importance, mass, limits, self.prefix)
        return keep, counts

    def answer(self, read: Tensor) -> Tensor:
        """Returns what was read out, [B, C], as the answer: float32 of unit length (L2) where the model embeds."""
        read = read.float()
        if self.task is not Task.EMBED:
            return read
        # One reduction, whose squares every lowering keeps in float32: those of features may be too large for float16.
        length: Tensor = torch.linalg.vector_norm(read, dim=1, keepdim=True)
        return read / length.clamp_min(_SHORTEST)

    @property
    def _wants_features(self) -> bool:
        return self.outputs is Outputs.LOGITS_AND_FEATURES

    def _features(self, normed: Tensor) -> Tensor:
        return normed.reshape(-1, self.prefix + self.patches, normed.shape[-1]).float()


def _sums(keep: Tensor) -> Tensor:
    return keep.sum(1, dtype=torch.int32)
