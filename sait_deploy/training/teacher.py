"""The dense teacher: its logits, and where its class token looks in its last blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.models.layers import token_importance
from sait_deploy.models.prunable_vit import check_supported
from sait_deploy.tokens import Score
from sait_deploy.training.student import Pass, attend


@dataclass(frozen=True, slots=True)
class Renormalisation:
    """From one model's normalised images to another's: times ``scale``, plus ``shift``, float32 [3, 1, 1] each."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def between(cls, own: Preprocessing, other: Preprocessing) -> Renormalisation:
        """Returns what takes images of one preprocessing to the other."""
        mean, std, other_mean, other_std = (
            torch.tensor(values)[:, None, None] for values in (own.mean, own.std, other.mean, other.std)
        )
        return cls(std / other_std, (mean - other_mean) / other_std)


class Teacher(nn.Module):
    """A dense model in inference mode whose last blocks' attention is read.

    Args:
        vit: the model; its modules are used as they are, and are not to be trained.
        blocks: last blocks whose attention is averaged.
        score: how it is read off.
        renormalisation: of images that are normalised for the student; None where both want the same.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: more blocks than it has, or no class token to read.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, vit: VisionTransformer, blocks: int, score: Score, renormalisation: Renormalisation | None = None
    ) -> None:
        super().__init__()
        self.vit = check_supported(vit).eval().requires_grad_(False)
        if blocks > len(vit.blocks):
            raise InvalidArgument(f"the teacher has {len(vit.blocks)} blocks, not {blocks}", "give fewer")
        if score is Score.CLS and not vit.has_class_token:
            raise InvalidArgument("the teacher has no class token to read attention from", "use --teacher-score mean")
        self.first = len(vit.blocks) - blocks
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
        vit, blocks = self.vit, list(self.vit.blocks)
        if self.renormalises:
            images = images * self.scale + self.shift
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for block in blocks[: self.first]:
            x = block(x)
        seen = []
        for block in blocks[self.first :]:
            update, weights = attend(block.attn, block.norm1(x))
            seen.append(token_importance(weights, vit.num_prefix_tokens, self.score))
            x = x + block.ls1(update)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return Pass(vit.forward_head(vit.norm(x)), torch.stack(seen).mean(dim=0))


def check_pair(student: VisionTransformer, teacher: VisionTransformer) -> None:
    """Checks that a teacher's answers can be compared with a student's; widths and depths may differ.

    Raises:
        ModelError: other classes, another image size, or another grid of patches.
    """
    for what, own, other in (
        ("classes", student.num_classes, teacher.num_classes),
        ("image size", student.patch_embed.img_size, teacher.patch_embed.img_size),
        ("patch grid", student.patch_embed.grid_size, teacher.patch_embed.grid_size),
    ):
        if own != other:
            raise ModelError(f"the teacher has {what} {other}, the model {own}", "choose a teacher that fits")
