"""Values of options: text becomes the enum or path that its annotation names; a value of another type is refused."""

from __future__ import annotations

import contextlib
import numbers
import types
from collections.abc import Iterable
from dataclasses import is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sait_deploy.errors import InvalidArgument

Choice = TypeVar("Choice", bound=Enum)


def chosen(kind: type[Choice], value: object, name: str) -> Choice:
    """Returns the member of an enum that a value is, or names.

    Args:
        kind: the enum.
        value: a member, or a member's value such as ``"fp16"``.
        name: what the error calls the option.

    Raises:
        InvalidArgument: it is neither.
    """
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(repr(member.value) for member in kind)
        raise InvalidArgument(f"{name} cannot be {value!r}", f"use one of {allowed}") from None


def check_options(options: object) -> None:
    """Gives every field of a frozen dataclass the type that its annotation names. Its ``__post_init__`` calls this.

    Text becomes the enum member or path it names, a list becomes a tuple or frozen set, and text in place of a list is
    a list of one. Text fields, mappings and tuples of a fixed length are left as they are.

    Args:
        options: the dataclass.

    Raises:
        InvalidArgument: a value is of another type, or names no member of an enum.
    """
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        checked = _checked(name, kind, value)
        if checked is not value:
            object.__setattr__(options, name, checked)


def _checked(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        # The options' unions are of one type and None.
        return None if value is None else _checked(name, get_args(kind)[0], value)
    if get_origin(kind) is frozenset or (get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis):
        given = (value,) if isinstance(value, str) else value
        if not isinstance(given, Iterable):
            raise InvalidArgument(f"{name} {value!r} is no list", f"give a list, such as [{value!r}]")
        return get_origin(kind)(_checked(name, get_args(kind)[0], item) for item in given)
    if not isinstance(kind, type):
        return value
    if issubclass(kind, Enum):
        return chosen(kind, value, name)
    if issubclass(kind, Path) and isinstance(value, str):
        return Path(value)
    if kind is Decimal and isinstance(value, (str, int, float)):
        with contextlib.suppress(InvalidOperation):
            return Decimal(str(value))
    if not isinstance(value, _accepted(kind)) or (kind in (int, float) and isinstance(value, bool)):
        raise InvalidArgument(f"{name} cannot be {value!r}", f"give {_called(kind)}")
    return value


def _accepted(kind: type) -> type:
    """Returns the class whose instances a field takes: NumPy's numbers are numbers too."""
    known: dict[type, type] = {int: numbers.Integral, float: numbers.Real, bool: bool}
    return known.get(kind, kind if issubclass(kind, (Path, Decimal)) or is_dataclass(kind) else object)


def _called(kind: type) -> str:
    known = {int: "a whole number", float: "a number", Decimal: "a number", bool: "True or False"}
    return known.get(kind, f"a {kind.__name__}")
