"""A family from outside the package: a transformer that shares no class with timm, and how it is pruned.

It has what timm's VisionTransformer lacks: rotary positions, separate projections of which keys have no bias, SwiGLU,
and checkpoints with names of their own.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing
from sait_deploy.models.checkpoint_names import StateDict
from sait_deploy.models.layers import gathered, linear_macs, masked_pool
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.position_grid import ImageSizes
from sait_deploy.models.transformer import Heads, Layout, ModelEntry, Shape, Tokens, Transformer
from sait_deploy.tokens import Geometry

NAME: Final = "rotary_outsider"
SIDE, PATCH, WIDTH, HEADS, CLASSES = 32, 8, 24, 2, 3
GRID: Final = SIDE // PATCH


class RotaryBlock(nn.Module):
    """Attention with separate projections, then SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up, self.down = (nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(48, WIDTH))

    def feed(self, x: Tensor) -> Tensor:
        """Computes the update of the MLP."""
        h = self.between(x)
        update: Tensor = self.down(F.silu(self.gate(h)) * self.up(h))
        return update


class RotaryModel(nn.Module):
    """A transformer with a register token whose patches are averaged."""

    def __init__(self, classes: int = CLASSES, depth: int = 2) -> None:
        super().__init__()
        self.classes = classes
        self.patchify = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.register = nn.Parameter(torch.randn(WIDTH))
        self.blocks = nn.ModuleList(RotaryBlock() for _ in range(depth))
        self.last = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, classes)

    def angles(self) -> Tensor:
        """Returns the rotary angles of each token, [1+N, Dh/2]: half by row, half by column, the register's 0."""
        quarter = WIDTH // HEADS // 4
        frequency = 2.0 ** -torch.arange(quarter, device=self.register.device)
        row = torch.arange(GRID**2, device=frequency.device).div(GRID, rounding_mode="floor")
        column = torch.arange(GRID**2, device=frequency.device) % GRID
        patches = torch.cat([row[:, None] * frequency, column[:, None] * frequency], dim=1)
        return torch.cat([torch.zeros_like(patches[:1]), patches])

    def tokens(self, images: Tensor) -> Tensor:
        """Returns the embedded tokens [B, 1+N, D]."""
        patches = self.patchify(images).flatten(2).transpose(1, 2)
        return torch.cat([self.register.expand(patches.shape[0], 1, -1), patches], dim=1)

    def forward(self, images: Tensor, prune_at: int = 0, keep: Tensor | None = None) -> Tensor:
        """Classifies image by image; ``keep`` bool [B, 1+N] drops tokens between attention and MLP of a block."""
        kept = [None] * len(images) if keep is None else list(keep)
        alone = [self.classify(x, prune_at, rows) for x, rows in zip(self.tokens(images), kept, strict=True)]
        return torch.stack(alone)

    def classify(self, x: Tensor, prune_at: int, keep: Tensor | None) -> Tensor:
        """Classifies one image's tokens [1+N, D]."""
        angles = self.angles()[:, None]
        for number, block in enumerate(self.blocks):
            h = block.before(x)
            q, k, v = (part(h).unflatten(-1, (HEADS, -1)) for part in (block.query, block.key, block.value))
            parts = (part.transpose(0, 1) for part in (rotated(q, angles), rotated(k, angles), v))
            x = x + block.out(F.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1))
            if keep is not None and number == prune_at:
                x, angles = x[keep], angles[keep]
            x = x + block.feed(x)
        logits: Tensor = self.classifier(self.last(x)[1:].mean(0))
        return logits


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates halves of the last dimension [..., Dh] against each other by angles [..., Dh/2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class RotaryTransformer(Transformer):
    """How the model is pruned."""

    HEAD = "classifier.weight"

    model: RotaryModel

    @classmethod
    def names(cls) -> list[str]:
        return [NAME]

    @classmethod
    def entry(cls, name: str) -> ModelEntry:
        return ModelEntry(SIDE, 0)

    @classmethod
    def create(cls, asked: ModelRequest) -> nn.Module:
        if asked.in_chans not in (None, 3):
            raise InvalidArgument(f"{asked.name} reads RGB images", "leave --in-chans out")
        if asked.global_pool is not None:
            raise InvalidArgument(f"{asked.name} has one pooling", "leave --global-pool out")
        if asked.image_size not in (None, (SIDE, SIDE)):
            raise InvalidArgument(f"{asked.name} has no image size {asked.image_size}", f"try {SIDE}")
        return RotaryModel(CLASSES if asked.classes is None else asked.classes)

    def converted(self, tensors: dict[str, Tensor], origin: str, sizes: ImageSizes) -> StateDict:
        return StateDict({name.replace("encoder.layer.", "blocks."): tensor for name, tensor in tensors.items()})

    def preprocessing(self) -> Preprocessing:
        half = (0.5, 0.5, 0.5)
        return Preprocessing((SIDE, SIDE), (SIDE, SIDE), CropMode.CENTER, Interpolation.BILINEAR, True, half, half)

    def shape(self) -> Shape:
        block, patches = self.model.blocks[0], GRID**2
        attention = sum(map(linear_macs, (block.query, block.key, block.value, block.out)))
        geometry = Geometry(
            depth=len(self.model.blocks),
            width=WIDTH,
            attention_width=WIDTH,
            patch_tokens=patches,
            prefix_tokens=1,
            embed_macs=patches * self.model.patchify.weight.numel(),
            attention_macs_per_token=attention,
            mlp_macs_per_token=linear_macs(block) - attention,
            readout_macs=linear_macs(self.model.classifier),
            readout_macs_per_token=0,
        )
        return Shape(geometry, (SIDE, SIDE), (PATCH, PATCH), (GRID, GRID), self.model.classes, has_class_token=False)

    def embed(self, images: Tensor) -> Tokens:
        x = self.model.tokens(images)
        return Tokens(x.flatten(0, 1), (self.model.angles().repeat(images.shape[0], 1).to(x.dtype),))

    def heads(self, block: int, tokens: Tokens) -> Heads:
        module, (angles,) = self.model.blocks[block], tokens.carried
        h = module.before(tokens.x)
        q, k, v = (part(h).unflatten(-1, (HEADS, -1)) for part in (module.query, module.key, module.value))
        qkv = torch.cat([rotated(q, angles[:, None]), rotated(k, angles[:, None]), v], dim=1)
        return Heads(qkv.flatten(1), HEADS, (WIDTH // HEADS) ** -0.5)

    def attended(self, block: int, tokens: Tokens, attended: Tensor, layout: Layout) -> Tokens:
        return tokens._replace(x=tokens.x + self.model.blocks[block].out(attended))

    def fed_forward(self, block: int, tokens: Tokens, layout: Layout) -> Tokens:
        return tokens._replace(x=tokens.x + self.model.blocks[block].feed(tokens.x))

    def normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self.model.last(x)
        return normed

    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        patches, mask = gathered(layout.slots[:, 1:], x), layout.mask
        pooled = patches.mean(1) if mask is None else masked_pool(patches, mask[:, 0, 0, 1:, None], "avg")
        logits: Tensor = self.model.classifier(pooled)
        return logits
