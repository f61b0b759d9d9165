"""A checkpoint of the authors' own LV-ViT with random weights, and its answers; needs their package ``tlt``.

python tests/models/tlt_answers.py lvvit_s CHECKPOINT ANSWERS
"""

from __future__ import annotations

import sys
from typing import Final

import torch

SIDE: Final = 48
CLASSES: Final = 10


@torch.no_grad()
def main(name: str, checkpoint: str, answers: str) -> None:
    """Writes a checkpoint as their training script does, and images float32 [2, 3, H, W] with their logits."""
    import tlt.models  # noqa: F401  # its package hides its module of the same name behind a function

    make = getattr(sys.modules["tlt.models.lvvit"], name)
    with torch.device("meta"):
        model = make(img_size=SIDE, num_classes=CLASSES, drop_path_decay="fix")  # the default reads numbers
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for called, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(7)
            continue
        scale = 2.2 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 0.3
        tensor.uniform_(-scale, scale, generator=generator)
        if tensor.ndim == 1 and called.endswith(("weight", "running_var")):
            tensor.add_(1)
    images = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    weights = {f"module.{called}": tensor for called, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "arch": name, "state_dict": weights}, checkpoint)
    torch.save({"images": images, "logits": model(images)}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
