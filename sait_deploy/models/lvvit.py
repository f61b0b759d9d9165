"""The family of LV-ViT: a convolutional stem, scaled residuals, and a head that reads the class token and the patches.

The formulas are those of "All Tokens Matter" (arXiv 2104.10858) as its authors' code computes them; parameters have the
names of their checkpoints.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import PatchEmbed, to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sait_deploy.artifacts.manifest import Pooling
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.input_channels import STEM
from sait_deploy.models.layers import gathered, linear_macs
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.timm_vit import TimmViT
from sait_deploy.models.transformer import Layout, ModelEntry
from sait_deploy.tokens import Geometry

_PATCH_SHARE: Final = 0.5
"""Factor of the patches' largest logits beside those of the class token."""


@dataclass(frozen=True, slots=True)
class _Size:
    """What distinguishes one LV-ViT of the paper from another."""

    width: int
    depth: int
    heads: int
    stem_width: int
    skip_lam: float
    crop: float


_SIZES: Final = {
    "lvvit_tiny": _Size(240, 12, 4, 64, 1, 0.9),
    "lvvit_small": _Size(384, 16, 6, 64, 2, 0.9),
    "lvvit_medium": _Size(512, 20, 8, 64, 2, 1.0),
    "lvvit_large": _Size(768, 24, 12, 128, 3, 1.0),
}
_IMAGE_SIZE: Final = 224


class ConvolutionalStem(PatchEmbed):  # type: ignore[misc]  # timm has no types
    """Three convolutions at half of the image's size, each with batch norm and ReLU, then one that makes patches.

    Args:
        img_size: height and width of images in pixels.
        patch_size: side of a patch in pixels, an even number.
        in_chans: channels of images.
        embed_dim: D.
        stem_width: channels of the three convolutions.
        arguments: of ``PatchEmbed``.
    """

    def __init__(
        self, img_size: Any, patch_size: int, in_chans: int, embed_dim: int, stem_width: int, **arguments: Any
    ) -> None:
        super().__init__(None, patch_size // 2, stem_width, embed_dim, **arguments)
        self.patch_size = to_2tuple(patch_size)
        self.img_size, self.grid_size, self.num_patches = self._init_img_size(img_size)
        self.conv1 = nn.Conv2d(in_chans, stem_width, 7, stride=2, padding=3, bias=False)
        self.conv2, self.conv3 = (nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(stem_width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Turns images [B, C, H, W] into patch tokens [B, N, D]."""
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(convolution(x)).relu()
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens

    def fold_norms(self) -> None:
        """Makes each batch norm part of the convolution before it, while its variance is in float32."""
        for number in (1, 2, 3):
            convolution, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            setattr(self, f"conv{number}", fuse_conv_bn_eval(convolution, norm))
            setattr(self, f"bn{number}", nn.Identity())


class Divided(nn.Module):
    """Divides the update of a residual by a number that is no parameter."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Divides."""
        return x / self.divisor


class LVViT(VisionTransformer):  # type: ignore[misc]  # timm has no types
    """LV-ViT: logits are those of the class token plus half of the largest that each class has among the patches.

    Args:
        num_classes: outputs of the head; 0 for none, which gives the class token.
        skip_lam: what the updates of residuals are divided by.
        stem_width: channels of the stem.
        reads_patches: whether there is a head over the patches (``aux_head``) beside that over the class token.
        arguments: of ``VisionTransformer``.
    """

    def __init__(
        self, *, num_classes: int, skip_lam: float, stem_width: int, reads_patches: bool = True, **arguments: Any
    ) -> None:
        stem = functools.partial(ConvolutionalStem, stem_width=stem_width)
        fixed = {"mlp_ratio": 3.0, "qkv_bias": False, "norm_layer": functools.partial(nn.LayerNorm, eps=1e-5)}
        super().__init__(num_classes=0, embed_layer=stem, **{**fixed, **arguments})
        self.reads_patches = reads_patches
        for block in self.blocks:
            block.ls1, block.ls2 = Divided(skip_lam), Divided(skip_lam)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces both heads by ones of so many classes, with random weights."""
        super().reset_classifier(num_classes, global_pool)
        both = self.reads_patches and num_classes > 0
        self.aux_head = nn.Linear(self.embed_dim, num_classes, device=self.cls_token.device) if both else None

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classifies normalised tokens [B, 1+N, D]; ``pre_logits`` returns the class token."""
        x = self.head_drop(x)
        first: Tensor = x[:, 0] if pre_logits else self.head(x[:, 0])
        if pre_logits or self.aux_head is None:
            return first
        patches = x[:, 1:]  # ONNX Runtime fuses a linear layer's bias on two dimensions only
        of_patches: Tensor = self.aux_head(patches.reshape(-1, x.shape[-1])).reshape(*patches.shape[:2], -1)
        return first + _PATCH_SHARE * of_patches.amax(dim=1)


class LVViTTransformer(TimmViT):
    """An LVViT, whose patches' largest logits are those among the patches that are kept."""

    EMBEDDING: ClassVar = ConvolutionalStem
    PIXELS: ClassVar = STEM

    @classmethod
    def names(cls) -> list[str]:
        """Returns the names of the paper's sizes."""
        return list(_SIZES)

    @classmethod
    def has(cls, name: str) -> bool:
        """Returns whether a name is one of ``names``."""
        return name in _SIZES

    @classmethod
    def entry(cls, name: str) -> ModelEntry:
        """Returns the image size, and that there are no weights to download."""
        return ModelEntry(_IMAGE_SIZE, 0)

    @classmethod
    def create(cls, asked: ModelRequest) -> nn.Module:
        """Makes an LV-ViT; ``global_pool`` "token" leaves the head over the patches out."""
        if asked.pretrained:
            raise ModelError(
                f"{asked.name} has no weights that are fetched by name",
                "download a checkpoint from the releases of zihangJiang/TokenLabeling and give --weights FILE",
            )
        if asked.global_pool not in (None, Pooling.TOKEN):
            raise InvalidArgument(
                f"{asked.name} cannot be made with --global-pool {asked.global_pool}",
                "leave it out, or give token for weights without a head over the patches",
            )
        size, channels = _SIZES[asked.name], 3 if asked.in_chans is None else asked.in_chans
        model = LVViT(
            img_size=asked.image_size or _IMAGE_SIZE,
            in_chans=channels,
            num_classes=1000 if asked.classes is None else asked.classes,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            skip_lam=size.skip_lam,
            stem_width=size.stem_width,
            reads_patches=asked.global_pool is None,
        )
        model.pretrained_cfg = {
            "input_size": (channels, _IMAGE_SIZE, _IMAGE_SIZE),
            "crop_pct": size.crop,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
        }
        return model

    def advice(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Returns the size that weights of another one are of, and what to do about the head over the patches."""
        token = tensors.get("cls_token")
        depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        stored = None if token is None else (token.shape[-1], depth)
        named = next((name for name, size in _SIZES.items() if (size.width, size.depth) == stored), None)
        if named is not None and stored != (self.model.embed_dim, len(self.blocks)):
            return f"these weights are {named}'s: give --model {named}"
        has_aux, wants_aux = "aux_head.weight" in tensors, self.model.reads_patches
        if wants_aux and not has_aux and "head.weight" in tensors:
            return "these weights have no head over the patches (aux_head): give --global-pool token"
        if has_aux and not wants_aux:
            return "these weights have a head over the patches (aux_head): leave --global-pool out"
        return super().advice(tensors)

    def reads_prefix_alone(self) -> bool:
        """Returns whether there is no head over the patches."""
        return self.model.aux_head is None

    def without_head(self) -> nn.Module:
        """Leaves both heads out: what remains gives the class token."""
        bare: Any = super().without_head()
        bare.aux_head = None
        without: nn.Module = bare
        return without

    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        """Adds half of the largest logits among each image's patches to the logits of its class token."""
        model, slots, mask = self.model, layout.slots, layout.mask
        if model.aux_head is None or mask is None:
            return super().readout(x, layout)
        x = model.head_drop(x)
        # Padding repeats the image's first patch, which changes no maximum; the class token is no candidate.
        patches = torch.where(mask[:, 0, 0, 1:], slots[:, 1:], slots[:, 1:2])
        of_patches = gathered(patches, model.aux_head(x)).amax(dim=1)
        logits: Tensor = model.head(gathered(slots[:, :1], x)[:, 0]) + _PATCH_SHARE * of_patches
        return logits

    def _embed_macs(self) -> int:
        """Returns the multiply-accumulates of the stem, whose convolutions run at half of the image's size."""
        stem = self.model.patch_embed
        places = stem.img_size[0] // 2 * (stem.img_size[1] // 2)
        convolutions = (stem.conv1, stem.conv2, stem.conv3)
        return int(super()._embed_macs() + places * sum(one.weight.numel() for one in convolutions))

    def _geometry(self) -> Geometry:
        geometry, aux_head = super()._geometry(), self.model.aux_head
        per_token = 0 if aux_head is None else linear_macs(aux_head)
        readout = geometry.readout_macs - geometry.prefix_tokens * per_token
        return replace(geometry, readout_macs=readout, readout_macs_per_token=per_token)
