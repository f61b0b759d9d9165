"""Documents that others write beside weights and artifacts: a field of them with a value that it cannot have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.hostile.case import Case, Change, Door
from tests.hostile.world import DENSE, EMBEDS, INT8

TEXTS: Final = ("", "\x1b[2J\x1b]0;title\x07", "a\nerror: forged", "x" * 100_000, "\u202eabc", "../../etc/passwd")
NUMBERS: Final = (-1, 0, 2**63, 10**400, "1", None, True, 1.5, [], {})

_CONFIG: Final = Door("hf-config", ("export", "--model", "./hf", "--dense", "-o", "made"), "hf/config.json", True)
CONFIGS: Final[dict[str, tuple[Any, ...]]] = {
    "architectures": ([], ["Evil"], ["ViTModel", "ViTModel"], "ViTModel", None, [1]),
    "model_type": ("evil", "dinov2", 1, None),
    "hidden_size": (63, 10**9, *NUMBERS),
    "num_hidden_layers": (10**6, *NUMBERS),
    "num_attention_heads": (3, 10**9, *NUMBERS),
    "intermediate_size": (10**9, *NUMBERS),
    "image_size": ([10**6, 10**6], [96], "96", *NUMBERS),
    "patch_size": (1, [16, 0], *NUMBERS),
    "num_channels": (2, 10**9, *NUMBERS),
    "hidden_act": ("evil", *TEXTS, 1, None),
    "layer_norm_eps": (10**400, "1", None, []),
    "id2label": ({"0": "a"}, {str(n): "\x1b[31m" for n in range(5)}, {str(n): "a" for n in range(10**5)}, [], 1),
    "quantization_config": ({"bits": 4},),
}
_CLASS_MAP: Final = Door("class-map", ("evaluate", DENSE, "--images", "images", "--class-map", "map.json"), "map.json")
_CLASSES: Final = Door(
    "class-embeddings",
    ("evaluate", EMBEDS, "--images", "images", "--control", "none", "--class-embeddings", "classes.npz"),
    "classes.npz",
    True,
)
_SHOWN: Final = Door("int8", ("inspect", INT8), f"{INT8}/manifest.json")
_EMBEDS: Final = Door("embeds", ("inspect", EMBEDS), f"{EMBEDS}/manifest.json")
INT8_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "dtype": ("fp32", "int4", None),
    "quantized_from": (1, []),
    "quantization": ({}, [], "x"),
    "quantization.calibration.images": ("1", 1.5, []),
    "quantization.calibration.source": (1, None),
    "quantization.gate": ("x", None),
    "quantization.layers": ("x", {"a": 1}),
    "quantization.compared": (None, [{}]),
}
EMBED_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "model.embedding.width": (0, 63, 10**9, *NUMBERS),
    "model.embedding.head": ("x", None),
    "model.embedding": ([], {}, "x"),
    "model.classes": (5, 10**9),
}


def _arrays(**arrays: Any) -> Change:
    def change(folder: Path) -> None:
        np.savez(folder / "classes.npz", **arrays)

    return change


def _named(count: int) -> Any:
    return np.array([f"class {number}" for number in range(count)])


_CLASS_MAPS: Final[dict[str, Any]] = {
    "long-class": {"0": "9" * 5000, "1": 0, "2": 1, "3": 2, "4": 3},
    "long-key": {"9" * 5000: "0", "1": "1", "2": "2", "3": "3", "4": "4"},
    "long-key-of-list": {"9" * 5000: ["0"], "1": ["1"], "2": ["2"], "3": ["3"], "4": ["4"]},
    "no-ascii-digit": {"\u00b2": ["0"], "1": ["1"], "2": ["2"], "3": ["3"], "4": ["4"]},
    "no-ascii-class": {"0": "\u00b2", "1": 0, "2": 1, "3": 2, "4": 3},
    "minus": {"0": -1, "1": 0, "2": 1, "3": 2, "4": 3},
    "of-another-kind": {"0": [[0]], "1": None, "2": {}, "3": True, "4": 1.5},
    "list": [[], {}, None, 1, "4"],
    "no-number": {"0": float("nan"), "1": 1, "2": 2, "3": 3, "4": 4},
    "beyond": {"0": 2**70, "1": 1, "2": 2, "3": 3, "4": 4},
}
_CLASS_LINES: Final[dict[str, str]] = {
    "folder-alone": "0",
    "three-words": "0 0 0",
    "zero-byte": "0 \x00",
    "terminal": "0 \x1b[31m",
    "lines-twice": "0 0\n0 1\n1 1\n2 2\n3 3\n4 4",
    "field-twice": '{"0": 0, "0": 1, "1": 1, "2": 2, "3": 3, "4": 4}',
    "empty-lines": "\n" * 10**6,
    "below-zero": "0 -1\n1 1\n2 2\n3 3\n4 4",
}
_GOOD: Final = np.eye(3, 64, dtype=np.float32)
ARRAYS: Final[dict[str, Change]] = {
    "none": _arrays(),
    "no-labels": _arrays(embeddings=_GOOD),
    "objects": _arrays(embeddings=_GOOD, labels=np.array([{}, [], ()], dtype=object)),
    "numbers": _arrays(embeddings=_GOOD, labels=np.arange(3)),
    "fewer-labels": _arrays(embeddings=_GOOD, labels=_named(2)),
    "narrow": _arrays(embeddings=_GOOD[:, :8], labels=_named(3)),
    "flat": _arrays(embeddings=_GOOD[0], labels=_named(3)),
    "text": _arrays(embeddings=_GOOD.astype(str), labels=_named(3)),
    "complex": _arrays(embeddings=_GOOD.astype(np.complex64), labels=_named(3)),
    "not-finite": _arrays(embeddings=_GOOD * np.float32("nan"), labels=_named(3)),
    "zero": _arrays(embeddings=_GOOD * 0, labels=_named(3)),
    "twice": _arrays(embeddings=_GOOD, labels=np.array(["a", "a", "b"])),
    "terminal": _arrays(embeddings=_GOOD, labels=np.array(["\x1b[31m", "a\nb", "c"])),
    "bomb": _arrays(embeddings=np.zeros((1, 1)), labels=_named(1), more=np.zeros(1 << 20)),
}


def changed(file: Path, path: str, value: Any) -> None:
    """Puts a value into a JSON document, at keys with dots between them."""
    data = json.loads(file.read_text(encoding="utf-8"))
    inner, keys = data, path.split(".")
    for key in keys[:-1]:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[int(keys[-1]) if isinstance(inner, list) else keys[-1]] = value
    file.write_text(json.dumps(data), encoding="utf-8")


def cases() -> Iterator[Case]:
    """Yields every value of every field, and every wrong file of class embeddings."""
    yield Case("right/hf-config", "right", _CONFIG, lambda _: None, True)
    for kind, door, fields in (
        ("config", _CONFIG, CONFIGS),
        ("int8", _SHOWN, INT8_FIELDS),
        ("embeds", _EMBEDS, EMBED_FIELDS),
    ):
        for path, values in fields.items():
            for number, value in enumerate(values):

                def change(folder: Path, file: str = door.file, path: str = path, value: Any = value) -> None:
                    changed(folder / file, path, value)

                # Labels that cannot be used are left out, which the export says.
                harmless, quick = path == "id2label", kind != "config" and number == 0
                yield Case(f"{kind}/{path}/{number}", kind, door, change, harmless, quick)
    for name, text in ({name: json.dumps(document) for name, document in _CLASS_MAPS.items()} | _CLASS_LINES).items():

        def write(folder: Path, text: str = text) -> None:
            (folder / _CLASS_MAP.file).write_text(text, encoding="utf-8")

        yield Case(f"class-map/{name}", "class-map", _CLASS_MAP, write)
    right = _arrays(embeddings=_GOOD, labels=_named(3))
    yield Case("right/class-embeddings", "right", _CLASSES, right, True)
    for name, change in ARRAYS.items():
        yield Case(f"class-embeddings/{name}", "class-embeddings", _CLASSES, change)
