"""Protobuf's text format, as Triton reads configurations of models in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

_INDENT: Final = "  "


class Symbol(str):
    """The name of an enum's value, which stands without quotes."""


def text_of(fields: Mapping[str, Any], depth: int = 0) -> str:
    """Returns a message's fields as text.

    Args:
        fields: by name. A mapping is a message, a sequence a repeated field, a text a text unless it is a ``Symbol``.
        depth: how far the lines are indented.
    """
    return "".join(_field(name, value, depth) for name, value in fields.items())


def map_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a map field, which text format writes as a repeated message of key and value."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _field(name: str, value: Any, depth: int) -> str:
    space = _INDENT * depth
    if isinstance(value, Mapping):
        return f"{space}{name} {{\n{text_of(value, depth + 1)}{space}}}\n"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and isinstance(value[0], Mapping):
            return "".join(_field(name, item, depth) for item in value)
        return f"{space}{name}: [{', '.join(map(_scalar, value))}]\n"
    return f"{space}{name}: {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, Symbol):
        return str(value)
    return json.dumps(value, ensure_ascii=True)
