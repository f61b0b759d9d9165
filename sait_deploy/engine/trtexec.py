"""``trtexec`` command lines that load and time engines with NVIDIA's own tool.

The tool fills inputs with random numbers, which as indices would read beyond the data. The commands load indices and
limits from files beside the engine.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.engine.folder import Engine
from sait_deploy.engine.manifest import PartInfo
from sait_deploy.engine.packages import PACKAGES
from sait_deploy.engine.profiles import Profile, Shape
from sait_deploy.exporters.names import CU_SEQLENS, KEEP_LIMITS, KEPT, LANES
from sait_deploy.tokens import Geometry

INPUTS_FOLDER: Final = "trtexec"


def trtexec_commands(engine: Engine) -> list[str]:
    """Returns one command for each engine file and profile, at the shapes that the profile is tuned for.

    There is none for an engine without weights: the tool would run it on none.
    """
    if engine.manifest.stripped:
        return []
    return [
        _command(engine, part, index, profile)
        for part in engine.manifest.parts
        for index, profile in enumerate(part.profiles)
    ]


def write_inputs(folder: Path, parts: Sequence[PartInfo], geometry: Geometry) -> None:
    """Writes the inputs that may not be random, of an engine that has such.

    Args:
        folder: the engine's.
        parts: its parts.
        geometry: the model's sizes.
    """
    for part in parts:
        for index, profile in enumerate(part.profiles):
            for name, array in _inputs(profile, geometry).items():
                file = _file(folder, part, index, name)
                file.parent.mkdir(exist_ok=True)
                array.tofile(file)


def _inputs(profile: Profile, geometry: Geometry) -> dict[str, NDArray[np.int32]]:
    """Returns keep limits that let the mass decide, or the indices of a batch whose images keep equally many rows."""
    optima = {name: span.optimum for name, span in profile.ranges.items()}
    if KEEP_LIMITS in optima:
        return {KEEP_LIMITS: np.full(optima[KEEP_LIMITS], (1, geometry.patch_tokens), np.int32)}
    if KEPT not in optima:
        return {}
    images, rows = optima[CU_SEQLENS][0] - 1, optima[KEPT][0]
    cu_seqlens = (np.arange(images + 1, dtype=np.int64) * rows // images).astype(np.int32)
    image = np.repeat(np.arange(images, dtype=np.int32), np.diff(cu_seqlens))
    kept = np.arange(rows, dtype=np.int32) - cu_seqlens[image] + image * np.int32(geometry.tokens)
    return {CU_SEQLENS: cu_seqlens, KEPT: kept, LANES: np.arange(optima[LANES][0], dtype=np.int32)}


def _file(folder: Path, part: PartInfo, index: int, name: str) -> Path:
    return folder / INPUTS_FOLDER / f"{part.name}-{index}-{name}.bin"


def _command(engine: Engine, part: PartInfo, index: int, profile: Profile) -> str:
    words = [PACKAGES[engine.manifest.builder].tool, f"--loadEngine={engine.plan_path(part.name)}"]
    shapes = {tensor.name: profile.ranges[tensor.name].optimum for tensor in part.inputs}
    words.append("--shapes=" + ",".join(f"{name}:{_shape(shape)}" for name, shape in shapes.items()))
    files: dict[str, Any] = {tensor.name: _file(engine.path, part, index, tensor.name) for tensor in part.inputs}
    loaded = [f"{name}:{file}" for name, file in files.items() if file.is_file()]
    if loaded:
        words.append("--loadInputs=" + ",".join(loaded))
    if len(part.profiles) > 1:
        words.append(f"--useProfile={index}")
    return shlex.join(words)


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))
