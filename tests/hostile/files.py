"""Files that are no files, or not of a size, a depth or an encoding to be read: each of them at each door."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

_GIB: Final = 1 << 30

_OF: Final = ("--artifact", ADAPTIVE)
_EXPORT: Final = ("export", "--model", "test_vit", "--imgsz", "96", "--weights", "weights.safetensors")

DOORS: Final = (
    Door("manifest", ("inspect", ADAPTIVE), f"{ADAPTIVE}/manifest.json"),
    Door("graph", ("predict", "image.png", *_OF), f"{ADAPTIVE}/model.onnx"),
    Door("golden", ("inspect", ADAPTIVE), f"{ADAPTIVE}/golden.npz"),
    Door("point", ("inspect", ADAPTIVE), f"{ADAPTIVE}/points/tuned.json"),
    Door("engine", ("inspect", ADAPTIVE), f"{ADAPTIVE}/engines/mine/manifest.json"),
    Door("last-export", ("inspect",), "artifacts/last-export.json"),
    Door("image", ("predict", "image.png", *_OF, "--strict"), "image.png"),
    Door("images", ("predict", "images", *_OF), "images"),
    Door("labels", ("predict", "image.png", *_OF, "--labels", "labels.txt"), "labels.txt"),
    Door("bench", ("recommend", ADAPTIVE, "--bench", "bench.json", "--max-drop", "1"), "bench.json"),
    Door("class-map", ("evaluate", ADAPTIVE, "--images", "images", "--class-map", "map.json"), "map.json"),
    Door("weights", _EXPORT, "weights.safetensors", True),
    Door("config", _EXPORT, "config.json", True),
    Door("folder", ("export", "--model", "./folder", "--imgsz", "96"), "folder/config.json", True),
    Door("state", ("train", "--data", "images", "--epochs", "1", "-o", "trained"), "trained/state.pt", True),
    Door("options", ("train", "--config", "train.toml", "-o", "trained2"), "train.toml", True),
)

_WRONG: Final = ("bench", "state", "options")
"""Doors whose file the world has not, or has for a command that takes long."""


def removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        os.system(f"rm -r {path}")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 * _GIB)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


def _deep_folder(path: Path) -> None:
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _link_bomb(path: Path) -> None:
    path.mkdir()
    for number in range(12):
        (path / f"d{number}").mkdir()
        for other in range(12):
            (path / f"d{number}" / f"l{other}").symlink_to(Path("..") / f"d{other}")


def _link_out(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _bytes(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


CHANGES: Final[dict[str, Callable[[Path], None]]] = {
    "fifo": _fifo,
    "device": _device,
    "socket": _socket,
    "sparse": _sparse,
    "loop": _loop,
    "folder": _folder,
    "deep-folder": _deep_folder,
    "link-bomb": _link_bomb,
    "link-out": _link_out,
    "empty": _bytes(b""),
    "deep-list": _bytes(b"[" * 3000 + b"]" * 3000),
    "deeper-list": _bytes(b"[" * 300_000),
    "deep-object": _bytes(b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "list": _bytes(b"[]"),
    "null": _bytes(b"null"),
    "number": _bytes(b"9" * 5000),
    "not-utf8": _bytes(b'{"a": "\xff\xfe"}'),
    "nan": _bytes(b'{"schema_version": NaN}'),
    "zeros": _bytes(bytes(1 << 20)),
    "pickle": _bytes(b"\x80\x04cos\nsystem\n(S'touch $SAIT_HOSTILE_RAN'\ntR."),
}

_HARMLESS: Final = frozenset(
    {("config", "folder"), ("config", "empty")}
    | {("engine", change) for change in CHANGES}
    | {("state", change) for change in ("folder",)}
)
"""What the toolkit may go past: an engine is shown as one that cannot be used."""


def cases() -> Iterator[Case]:
    """Yields every change at every door."""
    for door in DOORS:
        if door.name not in _WRONG:
            yield Case(f"right/{door.name}", "right", door, lambda _: None, True, door.name in ("manifest", "labels"))
        for name, change in CHANGES.items():
            if (door.name, name) == ("options", "empty"):  # which is right, and trains
                continue

            def apply(folder: Path, door: Door = door, change: Callable[[Path], None] = change) -> None:
                removed(folder / door.file)
                change(folder / door.file)

            quick = not door.heavy and name in ("fifo", "device", "deep-list", "deep-folder", "null", "pickle")
            yield Case(f"file/{door.name}/{name}", "file", door, apply, (door.name, name) in _HARMLESS, quick)
