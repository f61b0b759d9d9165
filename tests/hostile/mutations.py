"""Strategies of hypothesis that change a document or a graph anywhere, a little or much."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.message import Message
from hypothesis import strategies as st
from onnx import ModelProto

_EDGES: Final = (0, 1, -1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(2**63), 1e30, -1e308, 5e-324)
_TEXTS: Final = ("", "images", "logits", "a" * 5000, "\x1b[31m", "\ud800", "../x", "\0")
VALUES: Final = st.one_of(
    st.sampled_from([None, True, False, [], {}, *_EDGES, *_TEXTS]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)
_REPEATED: Final = ("drop", "double", "swap", "inner")


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])


@st.composite
def changed_documents(draw: Callable[..., Any], document: dict[str, Any]) -> dict[str, Any]:
    """Documents that differ from one in up to three places: in a value, by one less or one more."""
    data = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(data))
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(("value", "value", "value", "less", "more", "elsewhere")))
        if how == "less":
            del holder[key]
        elif how == "more" and isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(VALUES)
        elif how == "more":
            holder.append(copy.deepcopy(holder[key]))
        elif how == "elsewhere":
            other, place = places[draw(st.integers(0, len(places) - 1))]
            holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = draw(VALUES)
    return data


@st.composite
def changed_graphs(draw: Callable[..., Any], model: ModelProto) -> ModelProto:
    """Graphs that differ from one in up to three places: in a field, by one message less, or one twice."""
    changed = ModelProto()
    changed.CopyFrom(model)
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, changed)
    return changed


def _change(draw: Callable[..., Any], message: Message) -> None:
    """Changes a message, or one that it holds."""
    while True:
        found = message.ListFields()
        if not found or draw(st.integers(0, 19)) == 0:
            _set(draw, message, draw(st.sampled_from(list(message.DESCRIPTOR.fields))))
            return
        field, value = found[draw(st.integers(0, len(found) - 1))]
        if field.is_repeated and len(value):
            index = draw(st.integers(0, len(value) - 1))
            how = draw(st.sampled_from(_REPEATED))
            if how == "drop":
                del value[index]
                return
            if how == "double":
                value.append(value[index])
                return
            if how == "swap" or field.message_type is None:
                _swap(draw, field, value, index)
                return
            message = value[index]
        elif field.message_type is not None:
            message = value
        else:
            _set(draw, message, field)
            return


def _swap(draw: Callable[..., Any], field: Any, value: Any, index: int) -> None:
    other = draw(st.integers(0, len(value) - 1))
    if field.message_type is None:
        value[index] = value[other]
        return
    kept = copy.deepcopy(value[index])
    value[index].CopyFrom(value[other])
    value[other].CopyFrom(kept)


def _set(draw: Callable[..., Any], message: Message, field: Any) -> None:
    """Gives a field a value of its type; a message that it may hold is made, empty."""
    if field.message_type is not None:
        part = getattr(message, field.name)
        if field.is_repeated:
            part.add()
        else:
            part.SetInParent()
        return
    value = draw(_scalars(field))
    try:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    except ValueError:  # a number of an enumeration that it has not
        message.ClearField(field.name)


def _scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return st.floats(width=32)
    if field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_BYTES:
        return st.binary(max_size=16)
    if field.cpp_type == field.CPPTYPE_STRING:
        return st.text(max_size=8).filter(_is_text) | st.sampled_from([text for text in _TEXTS if _is_text(text)])
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM):
        return st.integers(-1, 30) | st.integers(-(2**31), 2**31 - 1)
    if field.cpp_type == field.CPPTYPE_UINT64:
        return st.integers(0, 2**64 - 1)
    return st.integers(-1, 30) | st.integers(-(2**63), 2**63 - 1)


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
