"""A prunable model cut at its seam for a GPU: stem, trunk on packed rows with some to spare, or whole."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import Outputs, Task
from sait_deploy.models.flash_layouts import FlashPacked, FlashUniform
from sait_deploy.models.layers import in_half_precision
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from sait_deploy.models.traced import Begun, Scored, Traced
from sait_deploy.models.transformer import Tokens
from sait_deploy.plugins.pack_rows.torch_op import pack_rows


class Seam(NamedTuple):
    """What the stem gives and the trunk takes.

    Attributes:
        tokens: all tokens behind the attention of the block pruned in, B times P+N.
        importance: float32 [B, N].
        keep: int32 [B, P+N].
        counts: int32 [B].
        rows: int32 [B*(P+N)], kept tokens first.
        cu_seqlens: int32 [B+1]; its last is T, the number of kept tokens.
    """

    tokens: Tokens
    importance: Tensor
    keep: Tensor
    counts: Tensor
    rows: Tensor
    cu_seqlens: Tensor


class FlashViT:
    """A model in half precision with FLASH attention, in functions whose shapes follow from their arguments' alone.

    Args:
        vit: a model of a family, on the device that it is to run on; it is copied.
        pruning: None for the dense form.
        dtype: bfloat16 or float16, of weights and activations; norms, softmax, importance and selection
            compute in float32.
        task: as ``PrunableViT`` takes it.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: the pruning does not fit it.
    """

    def __init__(self, vit: nn.Module, pruning: Pruning | None, dtype: torch.dtype, task: Task = Task.CLASSIFY) -> None:
        self.model = PrunableViT(in_half_precision(vit, dtype), pruning, outputs=Outputs.LOGITS, task=task)
        self.model.dtype = dtype
        self._plain = copy.deepcopy(vit).to(dtype).eval() if pruning is None else None
        self.tokens = self.model.prefix + self.model.patches

    def plain(self, images: Tensor) -> Tensor:
        """Runs a dense model as its library does, attention as torch chooses: logits float32 [B, classes]."""
        assert self._plain is not None
        return self.model.answer(self._plain(images.to(self.model.dtype)))

    def prepare(self, images: Tensor) -> None:
        """Runs one block on images [B, C, H, W], before anything is compiled.

        What a family computes once and keeps is kept then, as compiling cannot do.

        Raises:
            InvalidArgument: FLASH attention does not take heads of the model's size.
        """
        model = self.model.transformer
        tokens = model.embed(images.to(self.model.dtype))
        model.run(tokens, FlashUniform.of(images.shape[0], self.tokens, images.device), 0, min(1, model.depth))

    @property
    def pruned(self) -> bool:
        """Whether tokens are dropped."""
        return self.model.pruning is not None

    @property
    def adaptive(self) -> bool:
        """Whether each image keeps its own number of tokens."""
        return isinstance(self.model.pruning, AdaptivePruning)

    def stem(self, images: Tensor, mass: Tensor | None, keep_limits: Tensor | None) -> Seam:
        """Runs a pruned form up to the seam; arguments as ``PrunableViT.forward`` takes them."""
        model, batch = self.model.transformer, images.shape[0]
        pruning = self.model.pruning
        assert pruning is not None
        whole = FlashUniform.of(batch, self.tokens, images.device)
        tokens = model.run(model.embed(images.to(self.model.dtype)), whole, 0, pruning.prune_at)
        attended, importance = whole.attend_and_score(
            model.heads(pruning.prune_at, tokens), self.model.prefix, pruning.score
        )
        tokens = model.attended(pruning.prune_at, tokens, attended, whole)
        keep, counts = self.model.select(importance, mass, keep_limits)
        return Seam(tokens, importance, keep, counts, *pack_rows(keep, counts))

    def trunk(self, seam: Seam, rows: Tensor) -> Tensor:
        """Runs an adaptive form from the seam on, and returns logits float32 [B, classes].

        Args:
            seam: of the stem.
            rows: int32, the first of the seam's rows, at least as many as there are kept tokens. Those further ones
                are computed and belong to no image.
        """
        packed = FlashPacked.of(seam.cu_seqlens, self.tokens)
        return self.model.finish_kept(Scored(seam.tokens, seam.importance), rows, packed)[0]

    def whole(self, images: Tensor) -> Traced:
        """Runs the dense form, or one of a fixed number of tokens, at once."""
        model, batch, fixed = self.model.transformer, images.shape[0], self.model.fixed_tokens
        if self.model.pruning is None:
            begun = Begun(model.embed(images.to(self.model.dtype)), FlashUniform.of(batch, self.tokens, images.device))
            return self.model.finish_dense(begun, 0)
        assert fixed is not None
        seam = self.stem(images, None, None)
        layout, rows = FlashUniform.of(batch, fixed, images.device), seam.rows[: batch * fixed]
        logits, _, _ = self.model.finish_kept(Scored(seam.tokens, seam.importance), rows, layout)
        return Traced(logits, None, seam.counts, seam.keep, seam.importance)
