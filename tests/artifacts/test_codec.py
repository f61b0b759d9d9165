"""Reading documents: what is wrong is named, whatever the document is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.codec import Codec
from sait_deploy.errors import ArtifactError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    size: tuple[int, int]
    weight: float


@dataclass(frozen=True)
class Document:
    schema_version: int
    colour: Colour
    parts: tuple[Part, ...]
    names: dict[str, str]
    note: str | None
    dims: tuple[int | str, ...]


CODEC = Codec("the document", "write it again", 1)
GOOD = Document(1, Colour.RED, (Part((1, 2), 0.5),), {"a": "b"}, None, (1, "batch"))


def changed(**fields: Any) -> str:
    return json.dumps({**dataclasses.asdict(GOOD), **fields})


def test_a_document_reads_back_as_it_was_written() -> None:
    assert CODEC.read(Document, changed()) == GOOD


def test_a_whole_number_is_a_fraction_too() -> None:
    (part,) = CODEC.read(Document, changed(parts=[{"size": [1, 2], "weight": 2}])).parts
    assert part == Part((1, 2), 2.0)
    assert type(part.weight) is float


def test_half_a_surrogate_pair_is_read_as_a_question_mark() -> None:
    """A file's name can hold one, which JSON can escape and UTF-8 cannot hold."""
    assert CODEC.read(Document, changed(note="bad\udc80name")).note == "bad?name"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"colour": "green"}, "colour is 'green': input should be 'red' or 'blue'"),
        ({"parts": [{"size": [1], "weight": 1.0}]}, "parts[0].size[1] is missing"),
        ({"parts": [{"size": [1, 2.5], "weight": 1.0}]}, "parts[0].size[1] is 2.5: input should be a valid integer"),
        ({"parts": [{"size": [1, 2], "weight": True}]}, "parts[0].weight is True: input should be a valid number"),
        ({"parts": [{"size": [1, 2]}]}, "parts[0].weight is missing"),
        ({"parts": {}}, "parts is {}: input should be a valid array"),
        ({"names": {"a": 1}}, "names.a is 1: input should be a valid string"),
        ({"note": 3}, "note is 3: input should be a valid string"),
        ({"dims": [1.5]}, "dims[0] is 1.5: input should be a valid integer"),
        ({"more": 1}, "more is an unknown field"),
        ({"schema_version": 2}, "schema_version 2, not 1"),
        ({"schema_version": True}, "schema_version True, not 1"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ArtifactError) as error:
        CODEC.read(Document, changed(**fields))
    assert named in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "NaN", '{"schema_version": 1, "colour": NaN}', "[" * 100_000])
def test_text_that_is_no_document_is_one_error(text: str) -> None:
    with pytest.raises(ArtifactError):
        CODEC.read(Document, text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_a_field_raises_anything_else(value: Any) -> None:
    for field in dataclasses.fields(Document):
        try:
            CODEC.read(Document, changed(**{field.name: value}))
        except ArtifactError as error:
            assert error.message
