"""JSON to annotated dataclasses: every field's presence and type is checked, and an error names the field."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from sait_deploy.errors import ArtifactError, InvalidArgument

_LONGEST_SHOWN: Final = 60
_WANTED: Final = {float: "a finite number", int: "an integer", bool: "true or false", str: "text"}

Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Codec:
    """Reads one kind of document.

    Attributes:
        subject: what the document is called in errors: "the manifest".
        hint: what to do about a wrong one.
        schema_version: the version that is understood.
    """

    subject: str
    hint: str
    schema_version: int

    def read(self, kind: type[Decoded], text: str) -> Decoded:
        """Reads a document into a dataclass that has a ``schema_version``.

        Raises:
            ArtifactError: it is no JSON, of another schema version, or a field is missing, unknown or of another type.
        """
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{self.subject} is not JSON: {error}", self.hint) from None
        version = data.get("schema_version") if isinstance(data, dict) else None
        if type(version) is not int or version != self.schema_version:
            raise ArtifactError(
                f"{self.subject} has schema_version {shown(version)}, not {self.schema_version}",
                "read it with the version of sait-deploy that wrote it",
            )
        decoded: Decoded = self._fields(kind, data, "")
        return decoded

    def _value(self, kind: Any, value: Any, where: str) -> Any:
        if isinstance(kind, types.UnionType):
            return self._union(typing.get_args(kind), value, where)
        if dataclasses.is_dataclass(kind):
            return self._fields(kind, value, where)
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin is tuple:
            return self._tuple(parts, value, where)
        if origin is dict:
            if type(value) is not dict:
                raise self._wrong(where, value, "an object")
            return {key: self._value(parts[1], item, f"{where}[{shown(key)}]") for key, item in value.items()}
        return self._scalar(kind, value, where)

    def _union(self, parts: tuple[Any, ...], value: Any, where: str) -> Any:
        if value is None and types.NoneType in parts:
            return None
        kinds = [part for part in parts if part is not types.NoneType]
        if len(kinds) == 1:
            return self._value(kinds[0], value, where)
        for kind in kinds:
            if type(value) is kind:
                return value
        raise self._wrong(where, value, " or ".join(_WANTED[kind] for kind in kinds))

    def _tuple(self, parts: tuple[Any, ...], value: Any, where: str) -> Any:
        if type(value) is not list:
            raise self._wrong(where, value, "a list")
        kinds = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) != len(value):
            raise self._wrong(where, value, f"a list of {len(kinds)}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(self._value(kind, item, f"{where}[{index}]") for index, (kind, item) in pairs)

    def _scalar(self, kind: Any, value: Any, where: str) -> Any:
        if issubclass(kind, StrEnum):
            if value not in tuple(kind):
                raise self._wrong(where, value, "one of " + ", ".join(kind))
            return kind(value)
        if kind is float and type(value) in (int, float):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
        elif type(value) is kind:
            return value
        raise self._wrong(where, value, _WANTED.get(kind, str(kind)))

    def _fields(self, kind: Any, value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise self._wrong(where, value, "an object")
        hints = typing.get_type_hints(kind)
        place = f"{self.subject}'s {where}" if where else self.subject
        for problem, names in (
            ("lacks", hints.keys() - value.keys()),
            ("has the unknown", value.keys() - hints.keys()),
        ):
            if names:
                raise ArtifactError(f"{place} {problem} field {min(names)!r}", self.hint)
        prefix = f"{where}." if where else ""
        fields = {name: self._value(hint, value[name], prefix + name) for name, hint in hints.items()}
        try:
            return kind(**fields)
        except InvalidArgument as error:
            raise ArtifactError(f"{place} cannot be meant: {error.message}", self.hint) from None

    def _wrong(self, where: str, value: object, wanted: str) -> ArtifactError:
        place = f"{self.subject}'s {where}" if where else self.subject
        return ArtifactError(f"{place} is {shown(value)}, not {wanted}", self.hint)


def shown(value: object) -> str:
    """Returns a value as an error shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
