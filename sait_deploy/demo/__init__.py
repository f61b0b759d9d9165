"""The demonstration model and its data: a small vision transformer that the project trains itself and ships.

It stands in wherever no model is named, so that every command works on a machine with no network.
``samples/train_demo.py`` trains it; ``model.safetensors`` and ``report.json`` here are what that script wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

NAME: Final = "sait_demo_digits"
"""The demonstration model's name in the model table."""

ARCHITECTURE: Final[dict[str, Any]] = {
    "img_size": 96,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": 10,
}
"""Arguments of timm's ``VisionTransformer``: 144 patch tokens and a class token."""

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)

FOLDER: Final = Path(__file__).parent
WEIGHTS: Final = FOLDER / "model.safetensors"
REPORT: Final = FOLDER / "report.json"
IMAGES: Final = FOLDER / "images"
GOODS_IMAGES: Final = FOLDER / "goods_images"
"""Compositions of Fashion-MNIST, labelled by their folders; the demonstration model does not know them."""
LABELS: Final = tuple(str(digit) for digit in range(10))
