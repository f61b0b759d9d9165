"""What a case starts from: artifacts, weights, images and reports that are right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from PIL import Image

from tests.exported import TinyExport

ADAPTIVE: Final = "artifacts/adaptive"
DENSE: Final = "artifacts/dense"


def make_world(folder: Path, tiny: TinyExport, adaptive: Path) -> Path:
    """Fills a folder."""
    for place, name in ((adaptive, ADAPTIVE), (tiny.dense.path, DENSE)):
        shutil.copytree(place, folder / name)
    (folder / "artifacts" / "last-export.json").write_text('["dense", "adaptive"]\n')
    shutil.copy(tiny.weights, folder / "weights.safetensors")
    Image.radial_gradient("L").convert("RGB").save(folder / "image.png")
    for number in range(5):
        (folder / "images" / str(number)).mkdir(parents=True)
        shutil.copy(folder / "image.png", folder / "images" / str(number) / "a.png")
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (folder / "map.json").write_text('{"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}')
    (folder / "train.toml").write_text("epochs = 1\n")
    (folder / "folder").mkdir()
    shutil.copy(tiny.weights, folder / "folder" / "model.safetensors")
    (folder / "folder" / "config.json").write_text('{"architecture": "test_vit", "num_classes": 5}')
    return folder
