"""Points that were tuned, as files beside an artifact: a field of them with a value that it cannot have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Door
from tests.hostile.documents import changed
from tests.hostile.world import ADAPTIVE

KIND: Final = "point"

_DOOR: Final = Door("point", ("inspect", ADAPTIVE), f"{ADAPTIVE}/points/tuned.json")
_RUN: Final = Door("point-run", ("predict", "image.png", "--artifact", ADAPTIVE, "--point", "tuned"), _DOOR.file)
_SPLIT: Final = {"images": 2, "source": "2 of 5 images", "value_percent": 0.0, "bound_percent": 77.6}
_POINT: Final[dict[str, Any]] = {
    "schema_version": 1,
    "created": "2026-11-30T01:22:46+00:00",
    "point": {
        "name": "tuned",
        "point": {"mass": 0.5, "min_keep": 1, "max_keep": 36},
        "kept": {"images": 2, "mean": 12.0, "sd": 0.0, "p5": 12.0, "p95": 12.0, "most": 12},
        "macs": {"per_image": 6777920, "dense": 11914304, "ratio": 11914304 / 6777920},
    },
    "evidence": {
        "measure": "disagreement",
        "limit_percent": 99.0,
        "confidence": 0.95,
        "sequences": 1,
        "grid": [0.9, 0.5],
        "tried": 2,
        "calibration": _SPLIT,
        "check": _SPLIT,
        "check_passed": True,
        "check_confirmed": True,
        "seed": 0,
        "runtime": "onnxruntime",
        "environment": {"onnxruntime": "1.32.0"},
    },
}
_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "schema_version": (0, 2**63, "1"),
    "artifact": ("another", "../adaptive", "\x1b[2J"),
    "created": (1, None),
    "point.name": ("other", "../tuned", "\x1b[2J", "x" * 300),
    "point.point.mass": (-1, 10**400, "0.5", True),
    "point.point.min_keep": (0, -1, 37, 2**63, 1.5),
    "point.point.max_keep": (0, 37, 10**400, None),
    "point.kept.images": (0, -1),
    "point.kept.mean": (-1.0, 37.0, 1e300),
    "point.kept.most": (0, 37, 2**63),
    "point.macs.per_image": (0, 1, 2**63),
    "point.macs.dense": (0, 1),
    "point.macs.ratio": (0.0, 2.5, 10**400),
    "point": (None, [], {}),
    "evidence.measure": ("evil", None),
    "evidence.limit_percent": (0.0, -1.0, 10**400),
    "evidence.confidence": (0.0, 1.0, 2.0),
    "evidence.sequences": (0, -1),
    "evidence.grid": ([1.5], [0.0], "0.9", [[]]),
    "evidence.tried": (0, 1.5),
    "evidence.check.images": (0, -1),
    "evidence.check.bound_percent": (-1.0, 99.5),
    "evidence.check_passed": (False, 1),
    "evidence.environment": ([], {"onnxruntime": 1}),
    "evidence": (None, [], {}),
}


def _written(folder: Path) -> Path:
    file, manifest = folder / _DOOR.file, folder / ADAPTIVE / "manifest.json"
    file.parent.mkdir(exist_ok=True)
    artifact = json.loads(manifest.read_text(encoding="utf-8"))["id"]
    file.write_text(json.dumps(_POINT | {"artifact": artifact}), encoding="utf-8")
    return file


def _write(folder: Path) -> None:
    _written(folder)


def cases() -> Iterator[Case]:
    """Yields the right point, and every value of every field at two doors."""
    for door in (_DOOR, _RUN):
        yield Case(f"right/tuned-{door.name}", "right", door, _write, True)
    for index, (path, values) in enumerate(_FIELDS.items()):
        for number, value in enumerate(values):

            def change(folder: Path, path: str = path, value: Any = value) -> None:
                changed(_written(folder), path, value)

            door = (_DOOR, _RUN)[(index + number) % 2]
            yield Case(f"point/{path}/{number}", KIND, door, change, quick=number == 0 and index % 8 == 0)
