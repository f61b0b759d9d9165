"""The dense teacher: its logits, and the importance of patches in the attention of its last blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import token_importance
from sait_deploy.tokens import Score
from sait_deploy.training.layouts import differentiable
from sait_deploy.training.student import Pass


@dataclass(frozen=True, slots=True)
class Renormalisation:
    """From one model's normalised images to another's: times ``scale``, plus ``shift``, float32 [3, 1, 1] each."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def between(cls, own: Preprocessing, other: Preprocessing) -> Renormalisation:
        """Returns the renormalisation from images of one preprocessing to those of another."""
        mean, std, other_mean, other_std = (
            torch.tensor(values)[:, None, None] for values in (own.mean, own.std, other.mean, other.std)
        )
        return cls(std / other_std, (mean - other_mean) / other_std)


class Teacher(nn.Module):
    """A dense model in inference mode that gives logits and importance.

    Args:
        vit: the model; its modules are used as they are, and are not to be trained.
        blocks: number of last blocks whose importance is averaged.
        score: how importance is read off their attention.
        renormalisation: from the student's normalised images to the teacher's; None where they are the same.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: more blocks than it has, or no class token to read.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, vit: nn.Module, blocks: int, score: Score, renormalisation: Renormalisation | None = None
    ) -> None:
        super().__init__()
        self.transformer = transformer_of(vit)
        self.vit = vit.eval().requires_grad_(False)
        shape, depth = self.transformer.shape(), self.transformer.depth
        if blocks > depth:
            raise InvalidArgument(f"the teacher has {depth} blocks, not {blocks}", "give fewer")
        if score is Score.CLS and not shape.has_class_token:
            raise InvalidArgument("the teacher has no class token to read attention from", "use --teacher-score mean")
        self.prefix, self.patches = shape.prefix, shape.patches
        self.first = depth - blocks
        self.score = score
        self.renormalises = renormalisation is not None
        if renormalisation is not None:
            self.register_buffer("scale", renormalisation.scale)
            self.register_buffer("shift", renormalisation.shift)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in inference mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Pass:
        """Returns logits [B, classes] and importance float32 [B, N], the mean over the last blocks' attention."""
        if self.renormalises:
            images = images * self.scale + self.shift
        model = self.transformer
        whole = differentiable(images.device).uniform.of(len(images), self.prefix + self.patches, images.device)
        tokens = model.run(model.embed(images), whole, 0, self.first)
        seen = []
        for block in range(self.first, model.depth):
            tokens, weights = model.scored(block, tokens, whole)
            seen.append(token_importance(weights, self.prefix, self.score))
            tokens = model.fed_forward(block, tokens, whole)
        return Pass(model.readout(model.normed(tokens.x), whole), torch.stack(seen).mean(dim=0))


def check_pair(student: nn.Module, teacher: nn.Module) -> None:
    """Checks that a teacher's answers can be compared with a student's; widths and depths may differ.

    Raises:
        ModelError: a model is not supported, or they differ in classes, in image size or in the grid of patches.
    """
    own, other = transformer_of(student).shape(), transformer_of(teacher).shape()
    for what, ours, theirs in (
        ("classes", own.classes, other.classes),
        ("image size", own.image_size, other.image_size),
        ("patch grid", own.grid, other.grid),
    ):
        if ours != theirs:
            raise ModelError(f"the teacher has {what} {theirs}, the model {ours}", "choose a teacher that fits")
