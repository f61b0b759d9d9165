"""Names of classes: reading files of them, and telling whether two spellings mean one name."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any, Final

from sait_deploy.errors import InvalidArgument

_HINT: Final = "one class name a line, a JSON list of names, or a JSON object from class number to name; UTF-8"
_MARK: Final = "\ufeff"


def is_class_name(name: str) -> bool:
    """Returns whether a text can name a class: it is not empty and has no control characters and no surrogates."""
    return bool(name) and not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def folded(name: str) -> str:
    """Returns a name without what spellings of it differ in: case, separators, byte-order marks, Unicode forms."""
    plain = unicodedata.normalize("NFKC", name.replace(_MARK, "")).casefold()
    return re.sub(r"[\s_\-.]+", " ", plain).strip()


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Reads the names of a model's classes, in the order of its head's.

    Args:
        path: text with a name a line, a JSON list of names, or a JSON object from class number to name. Byte-order
            marks, empty lines and spaces around names are dropped.
        classes: of the model.

    Raises:
        InvalidArgument: the file cannot be read, a name has control characters, or there are not as many as classes.
    """
    text = read_text(path, "labels file", _HINT)
    data = json_of(path, text, _HINT)
    names = _lines(text) if data is None else _listed(path, data)
    for number, name in enumerate(names):
        if not is_class_name(name):
            raise InvalidArgument(f"labels file {path} names class {number} {name!r}, which cannot be printed", _HINT)
    if len(names) != classes:
        raise InvalidArgument(f"{path} names {len(names)} classes, the model has {classes}", _HINT)
    return tuple(names)


def read_text(path: Path, what: str, hint: str) -> str:
    """Reads a text file without its byte-order mark.

    Raises:
        InvalidArgument: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} {path} cannot be read ({error})", hint) from None


def json_of(path: Path, text: str, hint: str) -> Any:
    """Returns what a JSON file holds; None of text that is no JSON document.

    Raises:
        InvalidArgument: a file that is called .json is no JSON list or object.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, (list, dict)):
        return data
    if path.suffix.lower() == ".json":
        raise InvalidArgument(f"{path} holds no JSON list or object", hint)
    return None


def _lines(text: str) -> list[str]:
    return [line for line in (line.strip(f"{_MARK} \t\r") for line in text.split("\n")) if line]


def _listed(path: Path, data: Any) -> list[str]:
    values = data if isinstance(data, list) else _by_number(path, data)
    # Keras' index of ImageNet has the name behind its WordNet number.
    names = [value[-1] if isinstance(value, list) and len(value) == 2 else value for value in values]
    if not all(isinstance(name, str) for name in names):
        wrong = next(name for name in names if not isinstance(name, str))
        raise InvalidArgument(f"labels file {path} has {wrong!r} for a name", _HINT)
    return [name.strip(f"{_MARK} \t\r\n") for name in names]


def _by_number(path: Path, data: dict[str, Any]) -> list[Any]:
    if set(data) != {str(number) for number in range(len(data))}:
        raise InvalidArgument(f"labels file {path} does not number its classes from 0 to {len(data) - 1}", _HINT)
    return [data[str(number)] for number in range(len(data))]
