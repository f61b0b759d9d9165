"""Files of options that others wrote, and numbers on the command line that no machine has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

KIND: Final = "options"

_DOOR: Final = Door(
    "options", ("predict", "image.png", "--artifact", ADAPTIVE, "--config", "options.toml"), "options.toml"
)
_FILES: Final[dict[str, str]] = {
    "twice": "top=1\ntop=2",
    "table": "[a]\nb=1",
    "list": 'artifact=["a","b"]',
    "date": "top=1979-05-27",
    "byte-order": "\ufefftop=1",
    "infinite": "mass=inf",
    "no-number": "mass=nan",
    "long-number": "top=" + "9" * 5000,
    "truth": "top=true",
    "terminal": 'runtime="\\u001b[31m"',
    "terminal-name": '"\\u001b[2J"=1',
    "itself": 'config="options.toml"',
    "trust": "trust-engine=true",
    "host-code": "allow-host-code=true",
    "download": "download=true",
    "empty": 'top=""',
    "deep": "a=" + "[" * 5000 + "]" * 5000,
    "dotted": "a" + ".a" * 3000 + "=1",
    "negative": "threads=-1",
    "wide-letters": '"ｔｏｐ"=1',
    "help": "help=true",
    "quiet": 'quiet="maybe"',
    "verbose": "verbose=[1]",
    "labels": "labels=5",
}
_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "threads": ("predict", "image.png", "--artifact", ADAPTIVE, "--threads", "1000000000"),
    "mass": ("predict", "image.png", "--artifact", ADAPTIVE, "--mass", "9" * 5000),
    "least": ("predict", "image.png", "--artifact", ADAPTIVE, "--mass", "0.5", "--min-keep", "9" * 5000),
    "kept": ("bench", ADAPTIVE, "--kept", "1e400:1", "--duration", "0.1"),
    "batch": ("bench", ADAPTIVE, "--batch", "9" * 5000),
    "batch-large": ("bench", ADAPTIVE, "--batch", "99999999", "--duration", "0.1"),
    "duration": ("bench", ADAPTIVE, "--duration", "nan"),
    "grid": ("tune", ADAPTIVE, "--max-disagreement", "99", "--images", "images", "--grid", f"0.{'9' * 5000},0.5"),
    "seed": ("tune", ADAPTIVE, "--max-disagreement", "99", "--images", "images", "--seed", "-1"),
    "name": ("tune", ADAPTIVE, "--max-disagreement", "99", "--images", "images", "--name", "x" * 300),
}


def cases() -> Iterator[Case]:
    """Yields every file and every number."""
    for name, text in _FILES.items():

        def write(folder: Path, text: str = text) -> None:
            (folder / _DOOR.file).write_text(text, encoding="utf-8")

        yield Case(f"options/{name}", KIND, _DOOR, write)
    for name, arguments in _ARGUMENTS.items():
        door = dataclasses.replace(_DOOR, name="arguments", arguments=arguments)
        yield Case(f"arguments/{name}", KIND, door, lambda _: None)
