"""Names of classes: reading files of them, and telling whether two spellings mean one name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.config_files import ConfigFile
from sait_deploy.system import reading

_HINT: Final = "one class name a line, a JSON list of names, or a JSON object from class number to name; UTF-8"
_MARK: Final = "\ufeff"

_UNNAMED: Final = re.compile(r"LABEL_\d+")
"""What Hugging Face calls a class that has no name."""


def is_class_name(name: str) -> bool:
    """Returns whether a text can name a class: it is not empty, and has no control character, line end or surrogate."""
    return bool(name) and not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


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


_KEYS: Final = ("id2label", "label_names")
"""Where Hugging Face's and timm's files beside weights name classes."""


def configured_labels(files: Iterable[ConfigFile], classes: int) -> tuple[tuple[str, ...] | None, str]:
    """Returns the names of classes that files beside weights tell, and in words where they came from.

    Args:
        files: beside the weights: timm's ``label_names`` and Hugging Face's ``id2label`` are read.
        classes: of the model.

    Returns:
        The names; None where no file tells them, or they do not fit the model. The words say which file and, where its
        names are not used, why; they are empty where no file tells any.
    """
    for file in files:
        names, given = _configured(file.data), [key for key in _KEYS if file.data.get(key) is not None]
        if not classes or (names is None and not given) or (names and all(map(_UNNAMED.fullmatch, names))):
            continue
        if names is None:
            return None, f"{file.path.name} has no names of classes in {given[0]}: it is not used"
        if len(names) != classes:
            return None, f"{file.path.name} names {len(names)} classes and the model has {classes}: they are not used"
        if not all(map(is_class_name, names)):
            return None, f"{file.path.name} has names that cannot be printed: they are not used"
        return tuple(names), f"read from {file.path.name}"
    return None, ""


def _configured(data: Mapping[str, Any]) -> list[str] | None:
    """Returns the names of classes in a configuration; None where it has none in order."""
    inner = data.get("pretrained_cfg")
    numbered, names = data.get("id2label"), data.get("label_names")
    if names is None and isinstance(inner, dict):
        names = inner.get("label_names")
    if isinstance(numbered, dict) and set(numbered) == {str(number) for number in range(len(numbered))}:
        names = [numbered[str(number)] for number in range(len(numbered))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return [name.strip(f"{_MARK} \t\r\n") for name in names]


def read_text(path: Path, what: str, hint: str) -> str:
    """Reads a text file without its byte-order mark.

    Raises:
        InvalidArgument: it cannot be read.
    """
    try:
        return reading.read_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} {path} cannot be read ({error})", hint) from None


def json_of(path: Path, text: str, hint: str) -> Any:
    """Returns what a JSON file holds; None of text that is no JSON document.

    Raises:
        InvalidArgument: a file that is called .json is no JSON list or object.
    """
    try:
        data = reading.parse_json(text)
    except ValueError:
        data = None
    if isinstance(data, (list, dict)):
        return data
    if path.suffix.lower() == ".json":
        raise InvalidArgument(f"{path} holds no JSON list or object", hint)
    return None


def _lines(text: str) -> list[str]:
    return [line for line in (line.strip(f"{_MARK} \t\r") for line in text.split("\n")) if line]


def _listed(path: Path, data: Any) -> list[str]:
    configured = _configured(data) if isinstance(data, dict) else None
    if configured is not None:
        return configured
    values = data if isinstance(data, list) else _by_number(path, data)
    # Keras' index of ImageNet has the name behind its WordNet number.
    names = [value[-1] if isinstance(value, list) and len(value) == 2 else value for value in values]
    if not all(isinstance(name, str) for name in names):
        wrong = next(name for name in names if not isinstance(name, str))
        raise InvalidArgument(f"labels file {path} has {wrong!r} for a name", _HINT)
    return [name.strip(f"{_MARK} \t\r\n") for name in names]


def _by_number(path: Path, data: dict[str, Any]) -> list[Any]:
    if data and all(type(number) is int for number in data.values()):  # from name to number, as torchvision has it
        data = {str(number): name for name, number in data.items()}
    if set(data) != {str(number) for number in range(len(data))}:
        raise InvalidArgument(f"labels file {path} does not number its classes from 0 to {len(data) - 1}", _HINT)
    return [data[str(number)] for number in range(len(data))]
