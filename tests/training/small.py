"""Trainings of a small model on folders of pictures it learns: squares, a colour for each class, on noise.

And gradients of the training pass, with those of a plain one to compare with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.models.weights import read_state_dict
from sait_deploy.tokens import Score
from sait_deploy.training.log import LogEntry
from sait_deploy.training.options import (
    Alternation,
    Amp,
    Augmentation,
    DataOptions,
    DensityRange,
    Distillation,
    Head,
    MassRange,
    Recipe,
    TrainOptions,
)
from sait_deploy.training.train import TrainResult, train
from tests import plain
from tests.tiny import randomised, small_vit

EPOCHS: Final = 3
COLOURS: Final = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def square(colour: tuple[int, int, int], rng: np.random.Generator, side: int = 32) -> Image.Image:
    """A square of a third of the picture's side, anywhere, on grey noise."""
    pixels = rng.integers(0, 120, (side, side, 1)).repeat(3, axis=2)
    length = side // 3
    top, left = rng.integers(0, side - length, 2)
    pixels[top : top + length, left : left + length] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def square_folder(folder: Path, each: int, seed: int = 0) -> Path:
    """Writes ``each`` pictures per class and returns the folder."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(each):
            square(colour, rng).save(folder / name / f"{index:03}.png")
    return folder


def squares(root: Path, train: int = 16, validation: int = 10) -> Path:
    """A folder with train and val folders of squares."""
    square_folder(root / "train", train, seed=0)
    square_folder(root / "val", validation, seed=1)
    return root


def small_model(seed: int = 0, **options: Any) -> LoadedModel:
    """A model of 16 patch tokens for the squares, in memory."""
    vit = randomised(small_vit(**{"num_classes": len(COLOURS), "depth": 2, **options}), seed)
    return describe(vit, "small", WeightsSource.MEMORY, None)


def options(folder: Path, output: Path, *, recipe: dict[str, Any] | None = None, **others: Any) -> TrainOptions:
    """A short training without chance in its images; 48 of them make six steps an epoch."""
    made = {
        "epochs": EPOCHS,
        "batch": 8,
        "learning_rate": 2e-3,
        "warmup_epochs": 0.5,
        "ema_decay": None,
        "label_smoothing": 0.0,
        **(recipe or {}),
    }
    data = DataOptions(str(folder), augmentation=others.pop("augmentation", Augmentation.NONE))
    return TrainOptions(output, **{"data": data, "recipe": Recipe(**made), **others})


def quiet(line: str) -> None:
    """Nobody listens."""


def weights_of(result: TrainResult) -> dict[str, Tensor]:
    return read_state_dict(result.weights).tensors


def assert_same_weights(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def untimed(log: tuple[LogEntry, ...]) -> list[LogEntry]:
    return [dataclasses.replace(entry, seconds=0.0, images_per_second=0.0) for entry in log]


TEACHER: Final = small_model(seed=9, embed_dim=48, num_heads=3, depth=3)
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "average": {"recipe": {"ema_decay": 0.9}},
    "momentum": {"recipe": {"optimizer": "momentum", "learning_rate": 1e-2}},
    "layer decay": {"recipe": {"layer_decay": 0.7, "clip": None}},
    "chance": {
        "recipe": {"mixup": 0.4, "cutmix": 0.4, "drop_path": 0.3, "label_smoothing": 0.1},
        "augmentation": Augmentation.STANDARD,
    },
    "teacher": {"distillation": Distillation(temperature=2.0, importance=3.0), "score": Score.CLS},
    "masses": {"masses": MassRange(0.5, 0.9), "recipe": {"drop_path": 0.3}},
    "epochs": {"alternation": Alternation.EPOCH, "densities": DensityRange(0.3, 0.6)},
    "dense": {"alternation": Alternation.NEVER},
    "bf16": {"recipe": {"amp": Amp.BF16, "ema_decay": 0.9, "optimizer": "momentum", "learning_rate": 1e-2}},
    "new head": {"head": Head.NEW},
}


def run(name: str, folder: Path, output: Path, progress: Callable[[str], None] = quiet) -> TrainResult:
    classes = 7 if name == "new head" else 3
    chosen = options(folder, output, **VARIANTS[name])
    return train(small_model(num_classes=classes), TEACHER if name == "teacher" else None, chosen, progress)


EXACT: Final = 1e-10
"""What gradients in float64 differ by, of the largest."""


def masked(vit: VisionTransformer, images: Tensor, prune_at: int, keep: Tensor) -> Tensor:
    """The forward pass in which dropped tokens stay, but nobody attends to them and the readout leaves them out.

    Args:
        vit: any.
        images: [B, 3, H, W].
        prune_at: block after whose attention tokens are dropped.
        keep: bool [B, P+N], of each image its own.
    """
    rest = plain.embedded(vit, images)
    for block in range(len(vit.blocks)):
        rest = plain.attended(vit, block, rest, keep[:, None, None, :] if block > prune_at else None)
        rest = plain.fed(vit, block, rest)
    read = [vit.forward_head(tokens[kept][None]) for tokens, kept in zip(vit.norm(rest.x), keep, strict=True)]
    return torch.cat(read)


def loss_of(logits: Tensor) -> Tensor:
    """Something of which every logit's gradient is a value of its own."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=logits.dtype)
    return (logits * weights).sum() + torch.logsumexp(logits, dim=1).sum() + logits.square().mean()


def gradients(vit: VisionTransformer, images: Tensor, forward: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Gradients of all parameters and of the images; zero where none reaches."""
    vit.zero_grad(set_to_none=True)
    images = images.clone().requires_grad_()
    loss_of(forward(images)).backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    found = {name: p.grad for name, p in vit.named_parameters()}
    return {
        "images": images.grad,
        **{name: torch.zeros_like(p) if found[name] is None else found[name] for name, p in vit.named_parameters()},
    }


def assert_same_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = EXACT) -> None:
    """Each within ``tolerance`` of its own largest value; of those next to nothing, as near as that allows."""
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        within = max(tolerance, 1e-5) if name == "rope.freqs" else tolerance  # timm computes angles in float32
        scale = max(float(gradient.abs().max()), 1e4 * within * largest)
        assert float((found[name] - gradient).abs().max()) < within * scale, name
