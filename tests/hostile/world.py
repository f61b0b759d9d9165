"""What a case starts from: artifacts, weights, images, reports and a training that are right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from tests.cli.calls import child_environment
from tests.exported import TinyExport, export_adaptive, export_embedders, export_tiny
from tests.hostile.parquet_files import write_parquet

ADAPTIVE: Final = "artifacts/adaptive"
DENSE: Final = "artifacts/dense"
INT8: Final = "artifacts/int8"
EMBEDS: Final = "artifacts/embeds"
TRAINED: Final = "trained"
TRAIN: Final = (
    *("train", "--model", "test_vit", "--imgsz", "96", "--random-weights", "--new-head", "--data", "images"),
    *("--val", "images", "--batch", "2", "--augmentation", "none", "--epochs", "2", "-o", TRAINED),
)
_CONFIG: Final = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 192,
    "image_size": 96,
    "patch_size": 16,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "id2label": {str(number): f"class {number}" for number in range(5)},
}


def build_world(folder: Path, tiny: TinyExport, adaptive: Artifact, embeds: Artifact) -> Path:
    """Fills a folder with a world, and makes what of it is missing."""
    floats = [Path(shutil.copytree(one.path, folder / "floats" / one.path.name)) for one in (tiny.dense, adaptive)]
    copies = [Artifact(floats[0], tiny.dense.manifest), Artifact(floats[1], adaptive.manifest)]
    int8 = quantize(copies, QuantizeOptions(demo.IMAGES, min_agreement=0, threads=1))[-1].path
    (folder / "world").mkdir()
    return make_world(folder / "world", tiny, adaptive.path, int8, embeds.path)


def make_world(folder: Path, tiny: TinyExport, adaptive: Path, int8: Path, embeds: Path) -> Path:
    """Fills a folder; all but the small model are folders of artifacts of it."""
    for place, name in ((adaptive, ADAPTIVE), (tiny.dense.path, DENSE), (int8, INT8), (embeds, EMBEDS)):
        shutil.copytree(place, folder / name)
    (folder / "artifacts" / "last-export.json").write_text('["dense", "adaptive"]\n')
    shutil.copy(tiny.weights, folder / "weights.safetensors")
    Image.radial_gradient("L").convert("RGB").save(folder / "image.png")
    for number in range(5):
        (folder / "images" / str(number)).mkdir(parents=True)
        shutil.copy(folder / "image.png", folder / "images" / str(number) / "a.png")
    write_parquet(folder)
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (folder / "map.json").write_text('{"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}')
    (folder / "train.toml").write_text("epochs = 1\n")
    for name, config in (("folder", {"architecture": "test_vit", "num_classes": 5}), ("hf", _CONFIG)):
        (folder / name).mkdir()
        shutil.copy(tiny.weights, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "sait_deploy", *TRAIN]
    subprocess.run(command, cwd=folder, env=child_environment(), check=True, capture_output=True)
    return folder


def main(place: Path) -> None:
    """Makes a world of its own at a place, which is not there yet."""
    if place.exists():
        raise FileExistsError(place)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = export_tiny(folder)
        embeds = export_embedders(tiny, folder / "embedders")[-1]
        shutil.move(build_world(folder, tiny, export_adaptive(tiny), embeds), place)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
