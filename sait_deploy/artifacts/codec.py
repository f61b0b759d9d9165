"""JSON documents to dataclasses, checked by pydantic: an error names the document, the field and its value."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sait_deploy.errors import ArtifactError
from sait_deploy.system.reading import parse_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

_LONGEST_SHOWN: Final = 60
_LONGEST_TEXT: Final = 1 << 16
_LARGEST_NUMBER: Final = 2**63 - 1

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
        from pydantic import ValidationError

        try:
            data = parse_json(text)
            # pydantic reads UTF-8; half a surrogate pair, which JSON can escape, has no UTF-8.
            encoded = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
        except ValueError as error:
            raise ArtifactError(f"{self.subject} is not JSON: {error}", self.hint) from None
        version = data.get("schema_version") if isinstance(data, dict) else None
        if type(version) is not int or version != self.schema_version:
            raise ArtifactError(
                f"{self.subject} has schema_version {shown(version)}, not {self.schema_version}",
                "read it with the version of sait-deploy that wrote it",
            )
        try:
            _check_values(data)
        except ValueError as error:
            raise ArtifactError(f"{self.subject} cannot be read: {error}", self.hint) from None
        try:
            decoded: Decoded = adapter(kind).validate_json(encoded)  # type: ignore[arg-type]  # a class is hashable
        except ValidationError as error:
            raise ArtifactError(f"{self.subject}{problem(data, error.errors()[0])}", self.hint) from None
        return decoded


def _check_values(data: Any) -> None:
    """Checks every number and text of a document, which ``parse_json`` has found to be of some depth.

    Raises:
        ValueError: a whole number has more than 64 bits, or a text is longer than any that means something.
    """
    if isinstance(data, dict):
        for key, value in data.items():
            _check_values(key)
            _check_values(value)
    elif isinstance(data, list):
        for value in data:
            _check_values(value)
    elif isinstance(data, str) and len(data) > _LONGEST_TEXT:
        raise ValueError(f"it has a text of {len(data)} characters")
    elif isinstance(data, int) and abs(data) > _LARGEST_NUMBER:
        raise ValueError(f"it has the number {shown(data)}")


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Returns what checks JSON against a type: values strictly of it, no unknown fields, finite numbers."""
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    # pydantic takes a configuration for a union, and not for a dataclass itself.
    return TypeAdapter(kind | None, config=config)


def problem(data: Any, error: ErrorDetails) -> str:
    """Returns what pydantic finds wrong in a document: the end of a sentence that begins with the document's name."""
    where, value = "", data
    for key in error["loc"]:
        if isinstance(value, dict if isinstance(key, str) else list):
            where += f"[{key!r}]" if not str(key).isidentifier() else f".{key}" if where else f"'s {key}"
            value = dict(enumerate(value) if isinstance(value, list) else value).get(key)
    match error["type"]:
        case "missing":
            return f"{where} is missing"
        case "unexpected_keyword_argument":
            return f"{where} is an unknown field"
        case "value_error":
            return f"{where} is not valid: {error['ctx']['error']}"
        case _:
            return f"{where} is {shown(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"


def shown(value: object) -> str:
    """Returns a value as an error shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
