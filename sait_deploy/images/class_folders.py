"""Which class a folder of images is of: by its name, an index file or the user; where neither tells, it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.labels import folded, json_of, read_text

_INDEX_FILES: Final = (
    *("class_to_idx.json", "class_map.json", "class_map.txt", "classes.txt", "class_index.json"),
    "imagenet_class_index.json",
)
_MAP_HINT: Final = "give a JSON object from folder to class, or lines of folder and class number or name"
_CHOOSE: Final = "give --class-map FILE, which says the class of each folder"
_NAMED: Final = 3
_MOST_DIGITS: Final = 9
"""How many names an error shows."""

_WORDNET: Final = re.compile(r"n\d{8}")
"""A WordNet number, as ImageNet's folders are called."""

ALPHABETICAL: Final = "the folders' alphabetical order is taken for that of the classes, which have no names"
NATURAL: Final = "the numbered folders are the classes in the order of their numbers"
WORDNET: Final = "WordNet numbers are the classes in their order"


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """The classes of folders.

    Attributes:
        classes: of each folder, the index of its class.
        assumption: how that is known, in words, where names do not tell it; else empty.
    """

    classes: tuple[int, ...]
    assumption: str = ""


def natural_order(names: Sequence[str]) -> list[str]:
    """Returns names as timm sorts class folders: numbers in them by their value, letters without their case."""
    return sorted(names, key=_natural)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def all_numbered(names: Sequence[str]) -> bool:
    """Returns whether every name is a number."""
    return all(name.isascii() and name.isdigit() for name in names)


def match_folders(
    root: Path, folders: Sequence[str], labels: Sequence[str] | None, classes: int, class_map: Path | None = None
) -> ClassFolders | None:
    """Finds the class of each folder.

    It is what the map says; else the class of that very name; else of that name in another case or with other
    separators; else what an index file in the folder or above says; else, of numbers and where the classes have no
    names, the order.

    Args:
        root: where the folders are.
        folders: their names.
        labels: names of the model's classes, where they are known.
        classes: how many it has.
        class_map: a file of the user's that says the class of each folder.

    Returns:
        The classes; None where the folders are others than classes: no name is one, and they are not as many.

    Raises:
        InvalidArgument: some folders are classes and others not, their order is not clear, or a map cannot be used.
    """
    if class_map is not None:
        return ClassFolders(_mapped(class_map, folders, labels, classes))
    by_name = None if labels is None else _by_name(folders, labels)
    if by_name is not None and None not in by_name:
        return ClassFolders(tuple(index for index in by_name if index is not None))
    index_file = next((p / n for p in (root, root.parent) for n in _INDEX_FILES if (p / n).is_file()), None)
    if index_file is not None:
        return ClassFolders(_mapped(index_file, folders, labels, classes), f"classes by {index_file.name}")
    # Where some of the labels are numbers themselves, the others of the folders are no classes.
    if all_numbered(folders) and (by_name is None or not any(index is not None for index in by_name)):
        return _numbered(root, folders, classes)
    if len(folders) == classes and all(map(_WORDNET.fullmatch, folders)):
        return _in_order(folders, sorted(folders), WORDNET)
    if by_name is not None and (len(folders) == classes or any(index is not None for index in by_name)):
        wrong = [folder for folder, index in zip(folders, by_name, strict=True) if index is None]
        raise InvalidArgument(f"{_some(wrong)} in {root} {_be(wrong)} no class of the model", _CHOOSE)
    if len(folders) != classes:
        return None
    ordered = natural_order(folders)
    if ordered != sorted(folders):
        raise InvalidArgument(
            f"the classes have no names, and the order of {_some(sorted(folders))} in {root} depends on who sorts",
            f"give the names with --labels FILE, or {_CHOOSE.removeprefix('give ')}",
        )
    return _in_order(folders, ordered, ALPHABETICAL)


def _in_order(folders: Sequence[str], ordered: Sequence[str], assumption: str) -> ClassFolders:
    place = {name: index for index, name in enumerate(ordered)}
    return ClassFolders(tuple(place[name] for name in folders), assumption)


def _numbered(root: Path, folders: Sequence[str], classes: int) -> ClassFolders | None:
    """Numbers are indices from 0, or counted from 1 where the highest is the number of classes."""
    numbers = [int(name) for name in folders]
    if len(set(numbers)) == len(numbers) == classes:
        ordered = natural_order(folders)
        plain = sorted(numbers) == list(range(classes))
        return _in_order(folders, ordered, "" if plain else NATURAL)
    if len(set(numbers)) < len(numbers) or max(numbers) > classes:
        return None
    if 0 in numbers and max(numbers) < classes:
        return ClassFolders(tuple(numbers))
    if 0 not in numbers and max(numbers) == classes:
        return ClassFolders(tuple(number - 1 for number in numbers), "the numbered folders count classes from 1")
    raise InvalidArgument(
        f"the {len(folders)} numbered folders in {root} may count the model's {classes} classes from 0 or from 1",
        _CHOOSE,
    )


def _by_name(folders: Sequence[str], labels: Sequence[str]) -> list[int | None]:
    """Returns the class of each folder that is one, the first of several of the very same name."""
    find = _finder(labels)
    return [find(folder) for folder in folders]


def _finder(labels: Sequence[str]) -> Callable[[str], int | None]:
    exact = {name: index for index, name in reversed(list(enumerate(labels)))}
    alike: dict[str, set[str]] = {}
    for name in labels:
        alike.setdefault(folded(name), set()).add(name)

    def find(text: str) -> int | None:
        if text in exact:
            return exact[text]
        names = alike.get(folded(text), set())
        if len(names) > 1:
            raise InvalidArgument(f"{text} may be any of the classes {_some(sorted(names))}", _CHOOSE)
        return exact[next(iter(names))] if names else None

    return find


def _mapped(path: Path, folders: Sequence[str], labels: Sequence[str] | None, classes: int) -> tuple[int, ...]:
    given = _read_map(path, folders)
    missing = [folder for folder in folders if folder not in given]
    if missing:
        raise InvalidArgument(f"{path} has no class for {_some(missing)}", _MAP_HINT)
    find = _finder(labels or ())
    found = []
    for folder in folders:
        value = given[folder]
        index = find(value) if isinstance(value, str) else value
        if index is None and isinstance(value, str):
            index = _class_number(value)
        if type(index) is not int or not 0 <= index < classes:
            raise InvalidArgument(
                f"{path} gives {folder} the class {value!r}, which is none of the model's {classes}", _MAP_HINT
            )
        found.append(index)
    return tuple(found)


def _read_map(path: Path, folders: Sequence[str]) -> Mapping[str, Any]:
    text = read_text(path, "class map", _MAP_HINT)
    data = json_of(path, text, _MAP_HINT)
    if isinstance(data, list):
        return {str(name): index for index, name in enumerate(data)}
    if data is not None and all(_class_number(key) is not None and value in folders for key, value in data.items()):
        return {value: _class_number(key) for key, value in data.items()}
    if data is not None:
        return {name: index for key, value in data.items() for name, index in _entries(key, value)}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A line a folder, in the order of the classes: timm's form.
    if all(line in folders or len(_columns(line)) == 1 for line in lines):
        return {line: index for index, line in enumerate(lines)}
    columns = [_columns(line) for line in lines]
    wrong = next((line for line, parts in zip(lines, columns, strict=True) if len(parts) != 2), None)
    if wrong is not None:
        raise InvalidArgument(f"{path} has the line {wrong!r}, which is no folder and class", _MAP_HINT)
    return {parts[0]: parts[1] for parts in columns}


def _entries(key: str, value: Any) -> list[tuple[str, Any]]:
    """Returns folder and class of an entry: {"cat": 0}, or {"0": ["n01440764", "tench"]}."""
    number = _class_number(key)
    if isinstance(value, list) and number is not None:
        return [(str(name), number) for name in value]
    return [(key, value)]


def _class_number(text: str) -> int | None:
    """Returns the number that a text is; None where it is none, or longer than any class's."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _columns(line: str) -> list[str]:
    for separator in ("\t", ","):
        if separator in line:
            return [part.strip() for part in line.split(separator, 1)]
    first, _, last = line.rpartition(" ")
    if first and last.isdigit():
        return [first.strip(), last]
    return line.split(None, 1)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
