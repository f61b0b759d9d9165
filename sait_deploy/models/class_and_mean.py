"""The family of DINOv2's classifiers: a vision transformer whose head reads the class token and the patches' mean."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.models.layers import gathered, masked_pool
from sait_deploy.models.timm_vit import TimmViT
from sait_deploy.models.transformer import Layout


class ClassAndMeanViT(VisionTransformer):  # type: ignore[misc]  # timm has no types
    """timm's vision transformer with a head that reads the class token and the mean of the patch tokens, [B, 2*D].

    Args:
        num_classes: outputs of the head.
        arguments: of ``VisionTransformer``.
    """

    def __init__(self, *, num_classes: int, **arguments: Any) -> None:
        super().__init__(num_classes=0, **arguments)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by one of so many classes, with random weights."""
        self.num_classes = num_classes
        self.head = nn.Linear(2 * self.embed_dim, num_classes, device=self.cls_token.device)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classifies normalised tokens [B, P+N, D]; ``pre_logits`` returns what the head reads."""
        both = self.head_drop(torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(dim=1)], dim=1))
        read: Tensor = both if pre_logits else self.head(both)
        return read


class ClassAndMean(TimmViT):
    """A ClassAndMeanViT."""

    MODULES: ClassVar[tuple[str, ...]] = ()

    def reads_prefix_alone(self) -> bool:
        """Returns that the head reads patch tokens too."""
        return False

    def pooled_width(self) -> int:
        """Returns the width of the class token and the mean together."""
        return 2 * super().pooled_width()

    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        """Joins the class token and the mean of the patch tokens of each image, and applies the head."""
        model, slots, mask = self.model, layout.slots, layout.mask
        if mask is None:
            return model.forward_head(x.reshape(-1, slots.shape[1], x.shape[-1]))  # type: ignore[no-any-return]
        prefix = model.num_prefix_tokens
        first = gathered(slots[:, :1], x)[:, 0]
        mean = masked_pool(gathered(slots[:, prefix:], x), mask[:, 0, 0, prefix:, None], "avg")
        logits: Tensor = model.head(model.head_drop(torch.cat([first, mean], dim=1)))
        return logits
