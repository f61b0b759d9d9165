"""Weights whose safetensors header is wrong: lengths, types, shapes, offsets and names."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Door

KIND: Final = "weights"

_DOOR: Final = Door(
    "safetensors",
    ("export", "--model", "test_vit", "--imgsz", "96", "--weights", "weights.safetensors", "-o", "made"),
    "weights.safetensors",
    True,
)
_EMPTY: Final = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
_ONE: Final = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
_HEADERS: Final[dict[str, Any]] = {
    "none": {},
    "list": [],
    "type": {"a": _ONE | {"dtype": "EVIL"}},
    "eight-bits": {"cls_token": _ONE | {"dtype": "F8_E4M3", "shape": [4]}},
    "overlap": {"a": _ONE, "b": _ONE},
    "product": {"a": _EMPTY | {"shape": [2**32, 2**32]}},
    "no-elements": {"a": _EMPTY | {"shape": [0, 2**62]}},
    "negative": {"a": _ONE | {"shape": [-1]}},
    "dimensions": {"a": _ONE | {"shape": [1] * 5000}},
    "backwards": {"a": _ONE | {"data_offsets": [4, 0]}},
    "beyond": {"a": _ONE | {"data_offsets": [0, 2**63]}},
    "terminal": {"\x1b[31m": _ONE},
    "metadata": {"__metadata__": {"format": "\x1b[31m"}, "a": _ONE},
    "metadata-number": {"__metadata__": {"format": 1}},
    "many": {f"a{number}": _EMPTY for number in range(150_000)},
}
_LENGTHS: Final = {"length-negative": 2**63, "length-large": 99 << 20}


def cases() -> Iterator[Case]:
    """Yields every header."""
    made = {name: _framed(json.dumps(header).encode()) for name, header in _HEADERS.items()}
    made["deep"] = _framed(b'{"a":' * 5000 + b"1" + b"}" * 5000)
    made |= {name: struct.pack("<Q", length) + b"{}" for name, length in _LENGTHS.items()}
    for name, data in made.items():

        def write(folder: Path, data: bytes = data) -> None:
            (folder / _DOOR.file).write_bytes(data)

        yield Case(f"weights/{name}", KIND, _DOOR, write)


def _framed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(4)
