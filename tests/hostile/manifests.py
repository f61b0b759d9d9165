"""Manifests that decode and mean nonsense: each field with values that it cannot have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

_SHOWN: Final = Door("inspect", ("inspect", ADAPTIVE), f"{ADAPTIVE}/manifest.json")
_RUN: Final = Door("predict", ("predict", "image.png", "--artifact", ADAPTIVE), f"{ADAPTIVE}/manifest.json")

_LARGE: Final = 2**63
_TEXTS: Final = ("", "\x1b[2J\x1b]0;title\x07", "a\nerror: forged", "x" * 100_000, "\x9b31m", "\u202eabc")
_NUMBERS: Final = (-1, _LARGE, 10**400, "1", None, True, 1.5, [])
_LOGITS: Final = {"name": "logits", "dtype": "float32", "shape": ["batch", 5]}
_COUNTS: Final = {"name": "counts", "dtype": "int32", "shape": ["batch"]}
_IMAGES: Final = {"name": "images", "dtype": "float32", "shape": ["batch", 3, 96, 96]}

VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "id": _TEXTS,
    "name": _TEXTS,
    "model.name": _TEXTS,
    "form": ("dense", "density", "x"),
    "schema_version": (0, 1, 3, "2", None),
    "model.image_size": ([10**6, 10**6], [_LARGE, 96], [0, 0], [-96, 96], [96], [95, 96], [48, 96], [96.0, 96], "96"),
    "model.patch_size": ([0, 16], [-16, 16], [10**9, 16], [8, 8], [16]),
    "model.classes": (4, 6, 0, 10**9, *_NUMBERS),
    "model.geometry.depth": (0, 10**9, *_NUMBERS),
    "model.geometry.width": (0, 10**9, *_NUMBERS),
    "model.geometry.attention_width": (0, *_NUMBERS),
    "model.geometry.patch_tokens": (0, 35, 37, 2**31, *_NUMBERS),
    "model.geometry.prefix_tokens": (10**9, *_NUMBERS),
    "model.geometry.embed_macs": _NUMBERS,
    "model.labels": (
        *(["a"] * number for number in (0, 1, 4, 6)),
        *([text] * 5 for text in ("", "x" * 10**6, "\x1b[31m", "a\nb", "\u2028")),
        "abcde",
        [1] * 5,
    ),
    "inputs": ([], [_IMAGES], [{**_IMAGES, "name": "x"}], [{**_IMAGES, "shape": []}], [_LOGITS]),
    "outputs": (
        [],
        [_COUNTS, _LOGITS],
        [_LOGITS],
        [_LOGITS, _LOGITS],
        [{**_LOGITS, "name": "x"}, _COUNTS],
        [{**_LOGITS, "shape": ["batch", 6]}, _COUNTS],
        [{**_LOGITS, "shape": [-1, 5]}, _COUNTS],
        [{**_LOGITS, "shape": ["batch", 10**12]}, _COUNTS],
        [{**_LOGITS, "dtype": "object"}, _COUNTS],
        [{**_LOGITS, "dtype": "int32"}, _COUNTS],
        *(
            [_LOGITS, {"name": f"block{block}_features", "dtype": "float32", "shape": ["batch", 37, 64]}, _COUNTS]
            for block in (0, 6, -1, "9" * 5000, "\x1b[31m")
        ),
    ),
    "preprocessing.image_size": ([10**6, 10**6], [48, 48], [0, 96]),
    "preprocessing.resize": ([10**9, 10**9], [0, 0], [_LARGE, 1]),
    "preprocessing.mean": ([1e30] * 3, [1e308] * 3, [0.5], [10**400] * 3, []),
    "preprocessing.std": ([0.0] * 3, [-1.0] * 3, [1e30] * 3, [1e-30] * 3),
    "opset": (0, 10**9, *_NUMBERS),
    "macs.dense": (0, *_NUMBERS),
    "macs.per_image": (0, *_NUMBERS),
    "pruning.prune_at": (6, 10**9, *_NUMBERS),
    "pruning.importance": ("", "nothing", "keep"),
    "pruning.keep": ("", "nothing", "importance"),
    "pruning.density": ("0.5", "2", "x"),
    "pruning.points": ([], None, {}),
    "pruning.points.0.name": ("fast", "1", *_TEXTS),
    "pruning.points.0.point.mass": (-1.0, 10**400, "1", None),
    "pruning.points.0.point.min_keep": (0, 37, *_NUMBERS),
    "pruning.points.0.point.max_keep": (0, 37, *_NUMBERS),
    "pruning.points.0.kept.most": (37, *_NUMBERS),
    "files": (
        {},
        {"model.onnx": "0" * 64},
        *({"../model.onnx": "0" * 64, name: "0" * 64} for name in ("/etc/passwd", "x" * 300, "a/b", "..", "\x1b[31m")),
    ),
    "files.golden.npz": ("", "x" * 64, "0" * 63, "\x1b" * 64),
}


def cases() -> Iterator[Case]:
    """Yields every value of every field."""
    count = 0
    for path, values in VALUES.items():
        for number, value in enumerate(values):
            if (path, value) in (("model.geometry.depth", 1.5),):
                continue
            count += 1

            def change(folder: Path, path: str = path, value: Any = value) -> None:
                file = folder / _SHOWN.file
                data = json.loads(file.read_text(encoding="utf-8"))
                inner, keys = data, path.split(".") if not path.startswith("files.") else ["files", path[6:]]
                for key in keys[:-1]:
                    inner = inner[int(key) if isinstance(inner, list) else key]
                inner[int(keys[-1]) if isinstance(inner, list) else keys[-1]] = value
                file.write_text(json.dumps(data), encoding="utf-8")

            door = _RUN if count % 4 == 0 else _SHOWN
            yield Case(f"manifest/{path}/{number}", "manifest", door, change, quick=count % 20 == 0)
