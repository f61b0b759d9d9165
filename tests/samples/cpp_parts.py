"""What the tests of the C++ consumer share: how it is compiled and run, and engines of the stand-in for TensorRT."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import GOLDEN_FILE
from sait_deploy.artifacts.golden import Golden, write_golden

SAMPLE: Final = Path(__file__).parent.parent.parent / "samples" / "cpp_engine"
DOUBLE: Final = Path(__file__).parent / "tensorrt_double"
COMPILE: Final = ("g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
PROGRAM: Final = ("run_engine.cpp", "pipeline.cpp", "engine.cpp", "weights.cpp", "golden.cpp")

TOKENS, IMAGES, CLASSES = 37, 2, 5
LIMITS = np.array([[1, 10], [1, 20]], np.int32)
MASS = np.array([0.5, 0.75], np.float32)

MODEL = """part model
input images float32 -1 3 4 4
output logits float32 -1 5
output counts int32 -1
profile images 1 3 4 4 : 8 3 4 4 : 32 3 4 4
"""
STEM = """part stem
input images float32 -1 3 4 4
input mass float32 -1
input keep_limits int32 -1 2
output rows int32 -1
output cu_seqlens int32 -1
output tokens float32 -1 1
output guard float32 -1 1
output counts int32 -1
output keep int32 -1 37
profile images 1 3 4 4 : 8 3 4 4 : 32 3 4 4
profile mass 1 : 8 : 32
profile keep_limits 1 2 : 8 2 : 32 2
"""
TRUNK = """part trunk
input cu_seqlens int32 -1
input tokens float32 -1 1
input guard float32 -1 1
input kept int32 -1
input lanes int32 -1
output logits float32 -1 5
"""


def trunk(*rows: tuple[int, int, int]) -> str:
    """Returns a trunk with a profile for each smallest, optimal and largest number of rows."""
    lines = []
    for low, optimum, high in rows:
        lines += [
            "profile cu_seqlens 2 : 9 : 33",
            "profile tokens 37 1 : 296 1 : 1184 1",
            "profile guard 1 1 : 8 1 : 32 1",
            f"profile kept {low} : {optimum} : {high}",
            "profile lanes 1 : 20 : 37",
        ]
    return TRUNK + "\n".join(lines) + "\n"


def golden_of(counts: NDArray[np.int32], first: NDArray[np.float32], **further: Any) -> Golden:
    """Returns a golden file's arrays, with the logits of the stand-in's models: one more for each class."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    images = np.linspace(-2, 2, IMAGES * 48, dtype=np.float32).reshape(IMAGES, 3, 4, 4)
    logits = np.asarray(first[:, None] + np.arange(CLASSES), np.float32)
    return Golden(pixels, images, logits, counts, **further)


def dense_golden() -> Golden:
    images = golden_of(np.zeros(2, np.int32), np.zeros(2, np.float32)).images
    return golden_of(np.full(IMAGES, 19, np.int32), images[:, -1, -1, -1])


def adaptive_golden() -> Golden:
    """Returns what the stand-in's stem and trunk answer: sums of the class token's and the last tokens' indices."""
    sums = [
        TOKENS * image + np.arange(TOKENS * (image + 1) - limit, TOKENS * (image + 1)).sum() + mass
        for image, (limit, mass) in enumerate(zip(LIMITS[:, 1], MASS, strict=True))
    ]
    return golden_of(LIMITS[:, 1] + 1, np.array(sums, np.float32), mass=MASS, keep_limits=LIMITS)


def run(program: Path, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [program, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the one line of a program that could not do its work."""
    assert done.returncode == 2, done
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("upload", "download", "run"))]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def artifact(folder: Path, golden: Golden, **plans: str) -> Path:
    """Writes an artifact's golden file and an engine folder in it, and returns that."""
    engine = folder / "engines" / "double"
    engine.mkdir(parents=True)
    write_golden(folder / GOLDEN_FILE, golden)
    for name, plan in plans.items():
        (engine / f"{name}.plan").write_text(plan, encoding="utf-8")
    return engine
