"""A linear segmentation head on patch tokens: trained on masks, put on feature maps, judged by mean IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sait_deploy.artifacts.manifest import ModelInfo
from sait_deploy.errors import InvalidArgument
from sait_deploy.system.option_values import check_options


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How a head is trained.

    Attributes:
        epochs: passes over all patches.
        batch: patches of a step.
        learning_rate: of AdamW at the start; it falls to 0 along a cosine.
        seed: of the order of patches; the head begins at zero.
    """

    epochs: int = 15
    batch: int = 1024
    learning_rate: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self)


def feature_maps(tokens: Sequence[NDArray[np.float32]], model: ModelInfo) -> NDArray[np.float32]:
    """Returns the patches' features of one or several blocks as maps, float32 [B, rows, columns, all D].

    Args:
        tokens: of each block float32 [B, P+N, D], as an artifact returns them; a channel of one number for each token,
            such as whether it was kept, is one of D = 1.
        model: what they are of.
    """
    patches = np.concatenate([one[:, model.geometry.prefix_tokens :] for one in tokens], axis=-1)
    return patches.reshape(len(patches), *model.grid, -1)


class LinearHead(nn.Module):
    """One linear layer on standardised features; between patches its logits are interpolated.

    Args:
        features: float32 [n, rows, columns, D], whose mean and spread standardise others.
        classes: outputs, background among them.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: NDArray[np.float32], classes: int) -> None:
        super().__init__()
        width = features.shape[-1]
        flat = features.reshape(-1, width)
        self.register_buffer("mean", torch.from_numpy(flat.mean(0)))
        self.register_buffer("spread", torch.from_numpy(flat.std(0)).clamp_min(1e-6))
        self.layer = nn.Linear(width, classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits [..., classes] of features [..., D]."""
        logits: Tensor = self.layer((features - self.mean) / self.spread)
        return logits

    @torch.inference_mode()
    def segment(self, features: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Returns the class of each pixel, uint8 [n, H, W], of features float32 [n, rows, columns, D]."""
        logits = self(torch.from_numpy(features)).permute(0, 3, 1, 2)
        whole = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        found: NDArray[np.uint8] = whole.argmax(1).to(torch.uint8).numpy()
        return found


def check_masks(masks: NDArray[np.uint8], images: int, size: tuple[int, int], classes: int) -> None:
    """Checks masks against the images that they are of.

    Raises:
        InvalidArgument: they are not uint8 [images, H, W] of the images' size, or have more classes.
    """
    wanted = (images, *size)
    if masks.dtype != np.uint8 or masks.shape != wanted:
        raise InvalidArgument(
            f"masks are {masks.dtype} {list(masks.shape)}, and their images uint8 {list(wanted)}",
            "give one mask of an image's own height and width for each, the class of each pixel",
        )
    if masks.size and int(masks.max()) >= classes:
        raise InvalidArgument(
            f"a mask has class {int(masks.max())}, and the head {classes} classes", f"give 0 to {classes - 1}"
        )


def train_head(
    features: NDArray[np.float32],
    masks: NDArray[np.uint8],
    size: tuple[int, int],
    classes: int,
    options: HeadOptions = HeadOptions(),
) -> LinearHead:
    """Trains a head by cross-entropy against the share of each class in each patch.

    Args:
        features: float32 [n, rows, columns, D].
        masks: uint8 [n, H, W], the class of each pixel.
        size: H and W of the images.
        classes: background among them.
        options: how.

    Raises:
        InvalidArgument: the masks do not fit the images, or patches do not fill them.
    """
    check_masks(masks, len(features), size, classes)
    head, given = LinearHead(features, classes), torch.from_numpy(features).reshape(-1, features.shape[-1])
    wanted = _shares(masks, features.shape[1:3], classes)
    optimizer = torch.optim.AdamW(head.parameters(), options.learning_rate, weight_decay=1e-4)
    steps = options.epochs * -(-len(given) // options.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.epochs):
        for chosen in torch.split(torch.randperm(len(given), generator=generator), options.batch):
            loss = functional.cross_entropy(head(given[chosen]), wanted[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return head.eval()


def _shares(masks: NDArray[np.uint8], grid: tuple[int, ...], classes: int) -> Tensor:
    """Returns the share of each class in each patch, float32 [n * rows * columns, classes]."""
    (count, height, width), (rows, columns) = masks.shape, grid
    if height % rows or width % columns:
        raise InvalidArgument(
            f"{rows} × {columns} patches do not fill masks of {height} × {width}",
            "give masks of the model's image size",
        )
    patches = masks.reshape(count, rows, height // rows, columns, width // columns)
    shares = [(patches == number).mean(axis=(2, 4), dtype=np.float32).reshape(-1) for number in range(classes)]
    return torch.from_numpy(np.stack(shares, axis=1))


def mean_iou(found: NDArray[np.uint8], masks: NDArray[np.uint8], classes: int) -> float:
    """Returns the mean over classes of intersection over union, all pixels of all images counted together.

    A class that neither has is left out of the mean.
    """
    pairs = np.bincount(masks.reshape(-1).astype(np.int64) * classes + found.reshape(-1), minlength=classes**2)
    table = pairs.reshape(classes, classes)
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())
