"""Engines that nobody here built: whatever their manifest says, their bytes do not reach TensorRT.

Cases run on a stand-in for a GPU: on a machine without one, commands end before they ask who built an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from sait_deploy.engine.cuda import Device
from tests.hostile.case import Case, Door
from tests.hostile.documents import NUMBERS, TEXTS, changed
from tests.hostile.world import DENSE

KIND: Final = "engine"
_FOLDER: Final = f"{DENSE}/engines/tensorrt-rtx-theirs"
_RUN: Final = ("--duration", "0.01", "--warmup", "0", "--batch", "1", "--no-accuracy")
_DOORS: Final = (
    Door("inspect", ("inspect", DENSE), ""),
    Door("bench", ("bench", DENSE, "--runtime", "tensorrt-rtx", *_RUN), ""),
    Door("predict", ("predict", "image.png", "--artifact", DENSE, "--runtime", "tensorrt-rtx"), ""),
)
_PLAN: Final = b"ftrt" + bytes(range(256)) * 64
_GPU: Final = Device("stand-in", "sm86")
_VERSION: Final = "1.7.0"
_SHAPES: Final = {"smallest": [1, 3, 96, 96], "optimum": [1, 3, 96, 96], "largest": [8, 3, 96, 96]}

VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "schema_version": (0, 99, "1"),
    "name": (*TEXTS, 1),
    "artifact": TEXTS,
    "source_sha256": ("0" * 64, "", None),
    "builder": ("tensorrt", "evil", None),
    "builder_version": ("99.0", *TEXTS),
    "targets": ([], ["sm999"], ["\x1b[31m"], "sm86", [1]),
    "gpu": ("\x1b[31m", 1),
    "precision": ("fp8", None),
    "portability": (["version-compatible"], ["hardware-compatible"], ["evil"], "x"),
    "stripped": (True, 1, None),
    "batch": ({"smallest": 0, "optimum": 0, "largest": 0}, {}, None),
    "batch.largest": (2**31, *NUMBERS),
    "parts": ([], None, {}),
    "parts.0.name": ("trunk", "evil"),
    "parts.0.file": ("../model.onnx", "/etc/passwd", "x" * 300, "\x1b[31m"),
    "parts.0.size_bytes": (10**15, *NUMBERS),
    "parts.0.profiles": ([], [{"ranges": {}}], [{"ranges": {"images": {**_SHAPES, "largest": [2**62] * 4}}}]),
    "files": ({}, {"/etc/passwd": "0" * 64}, {"model.plan": "0" * 64}),
    "messages": (["\x1b[31m"], "x"),
}


def standing(folder: Path) -> Path:
    """Writes an engine into the dense artifact that is right but for its plan; returns its manifest."""
    place = folder / _FOLDER
    place.mkdir(parents=True)
    (place / "model.plan").write_bytes(_PLAN)
    artifact = json.loads((folder / DENSE / "manifest.json").read_text(encoding="utf-8"))
    part = {
        "name": "model",
        "file": "model.plan",
        "size_bytes": len(_PLAN),
        "inputs": artifact["inputs"],
        "outputs": artifact["outputs"],
        "profiles": [{"ranges": {"images": _SHAPES}}],
        "network": {"layers": 1, "kinds": {}, "precisions": {}, "attention_fused": 6},
        "build_seconds": 1.0,
    }
    manifest = {
        "schema_version": 1,
        "name": place.name,
        "artifact": artifact["id"],
        "source_sha256": artifact["files"]["model.onnx"],
        "builder": "tensorrt-rtx",
        "builder_version": _VERSION,
        "targets": [_GPU.target],
        "gpu": None,
        "precision": "fp16",
        "precisions_got": ["Half"],
        "selection": None,
        "attention": {"form": "fused", "blocks": 6, "expected": 6, "fused": 6},
        "portability": [],
        "stripped": False,
        "batch": {"smallest": 1, "optimum": 1, "largest": 8},
        "parts": [part],
        "files": {"model.plan": hashlib.sha256(_PLAN).hexdigest()},
        "messages": [],
        "tools": {},
    }
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return place / "manifest.json"


def on_stand_in(ran: Path) -> None:
    """Gives this process a GPU that nothing runs on, and a TensorRT that makes a file where it is to read a plan."""
    import sait_deploy.engine.inspect
    import sait_deploy.runtime.tensorrt

    package = SimpleNamespace(__version__=_VERSION, ILogger=type("ILogger", (), {}), Runtime=lambda _: ran.touch())
    for module in (sait_deploy.engine.inspect, sait_deploy.runtime.tensorrt):
        module.device = lambda: _GPU
        module.load_package = lambda _: package


def cases() -> Iterator[Case]:
    """Yields an engine of others, whole and with every value of every field, at every door."""
    for door in _DOORS:
        # An artifact is shown with engines that cannot be used, and says so.
        harmless = door.name == "inspect"

        def whole(folder: Path) -> None:
            standing(folder)

        yield Case(f"engine/whole/{door.name}", KIND, door, whole, harmless, True)
        for path, values in VALUES.items():
            for number, value in enumerate(values):

                def change(folder: Path, path: str = path, value: Any = value) -> None:
                    changed(standing(folder), path, value)

                yield Case(f"engine/{path}/{number}/{door.name}", KIND, door, change, harmless)
