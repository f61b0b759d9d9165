"""The manifest as JSON: nothing is lost, and whatever is not a manifest is refused with the name of the field."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.manifest_document import from_json, to_json
from sait_deploy.artifacts.manifest_parts import fingerprint
from sait_deploy.errors import ArtifactError
from tests.exported import POINTS, draft, draft_adaptive

Path: TypeAlias = tuple[str | int, ...]


@functools.cache
def manifest() -> Manifest:
    return draft()


def good() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(to_json(manifest()))
    return data


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """Every place in a JSON document, the document itself left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from paths(item, (*above, key))


PATHS = list(paths(good()))
FREE_KEYS = ("files", "tools")
"""Objects whose keys are names of things, not of fields."""
FIELDS = [path for path in PATHS if (isinstance(path[-1], str) and path[0] not in FREE_KEYS) or len(path) == 1]


def at(data: Any, path: Path) -> Any:
    return functools.reduce(lambda value, key: value[key], path, data)


def replaced(path: Path, value: Any) -> dict[str, Any]:
    data = good()
    at(data, path[:-1])[path[-1]] = value
    return data


def shown(path: Path) -> str:
    """A place as errors write it: ``model.image_size[0]``, ``files['model.onnx']``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif not key.isidentifier():
            text += f"[{key!r}]"
        else:
            text += f".{key}" if text else key
    return text


def refusal(data: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        from_json(json.dumps(data))
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_there_and_back() -> None:
    assert from_json(to_json(manifest())) == manifest()


def test_a_dense_manifest_with_its_empty_fields() -> None:
    dense = dataclasses.replace(
        manifest(),
        form=Form.DENSE,
        pruning=None,
        outputs=manifest().outputs[:1],
        baseline=None,
        model=dataclasses.replace(manifest().model, labels=None),
        weights=dataclasses.replace(manifest().weights, origin=None),
        parity=dataclasses.replace(manifest().parity, top1_agreement=None, kept_sets_equal_torch=None, points=()),
        accuracy=dataclasses.replace(manifest().accuracy, top1_percent=None),
    )
    assert from_json(to_json(dense)) == dense
    assert dense.default_point is None


def test_an_adaptive_manifest_with_its_points_in_order() -> None:
    adaptive = draft_adaptive()
    read = from_json(to_json(adaptive))
    assert read == adaptive
    assert read.pruning is not None and read.pruning.density is None
    assert [info.name for info in read.pruning.points] == [point.name for point in POINTS]
    assert read.default_point == read.pruning.points[0]
    assert [tensor.name for tensor in read.inputs] == ["images", "mass", "keep_limits"]


def test_the_point_of_a_density_is_its_default() -> None:
    info = manifest().default_point
    assert info is not None
    assert (info.name, info.point.min_keep, info.point.max_keep, info.kept.mean) == ("default", 8, 8, 8.0)


def test_it_is_json_for_other_languages() -> None:
    def no_constant(name: str) -> float:
        raise AssertionError(name)

    json.loads(to_json(manifest()), parse_constant=no_constant)
    assert "\n  " in to_json(manifest())


def test_the_sample_reaches_every_kind_of_field() -> None:
    assert len(FIELDS) > 70
    assert {type(at(good(), path)) for path in FIELDS} == {str, int, float, bool, list, dict}


def others(value: Any) -> list[Any]:
    """JSON values of other types than this one."""
    kinds: list[Any] = ["text", 3, 2.5, True, [3], {"a": 3}]
    same = (int, float) if isinstance(value, float) else (type(value),)
    return [kind for kind in kinds if type(kind) not in same]


@pytest.mark.parametrize("path", [path for path in PATHS if path != ("schema_version",)], ids=shown)
def test_a_value_of_another_type_is_named(path: Path) -> None:
    for value in others(at(good(), path)):
        if path[-2:-1] == ("shape",) and type(value) in (int, str):
            continue
        message = refusal(replaced(path, value)).message
        assert shown(path) in message, (value, message)


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(at(good(), path), float)], ids=shown)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_numbers_are_finite(path: Path, value: float) -> None:
    refusal(replaced(path, value))


@pytest.mark.parametrize("version", [0, 1, 3, -1, "2", 2.0, True, None, [2], 10**30])
def test_another_schema_version_is_named_before_anything_else(version: object) -> None:
    data = {"schema_version": version, "what": "ever"}
    assert "schema_version" in refusal(data).message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("preprocessing", "std"), [0.0, 1.0, 1.0]),
        (("preprocessing", "std"), [-1.0, 1.0, 1.0]),
        (("preprocessing", "mean"), [0.5]),
        (("preprocessing", "image_size"), [0, 32]),
        (("preprocessing", "image_size"), [32]),
        (("preprocessing", "antialias"), False),
    ],
)
def test_values_that_cannot_be_meant_are_refused(path: Path, value: object) -> None:
    assert "preprocessing" in refusal(replaced(path, value)).message


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "7", '"text"', "\x00", "{}", "[" * 200_000, "1" * 10_000, '{"a": 1}{"a": 1}']
)
def test_text_that_is_no_manifest(text: str) -> None:
    with pytest.raises(ArtifactError):
        from_json(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=5), v, max_size=3))


@given(st.sampled_from(PATHS), VALUES)
def test_any_value_anywhere_is_refused_or_kept(path: Path, value: Any) -> None:
    data = replaced(path, value)
    try:
        read = from_json(json.dumps(data))
    except ArtifactError:
        return
    assert json.loads(to_json(read)) == data


def test_fingerprints_are_short_stable_and_tell_parts_apart() -> None:
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len(fingerprint("a")) == 12
    assert int(fingerprint("a"), 16) >= 0
    distinct = [("a", "b"), ("b", "a"), ("ab",), ("a",), ("a", None), ("a", "b", ""), (1, 2), (12,)]
    assert len({fingerprint(*parts) for parts in distinct}) == len(distinct)


@pytest.mark.parametrize("form", list(Form))
def test_a_form_that_does_not_fit_its_pruning_is_refused(form: Form) -> None:
    """And so is one without points, which nothing could run at."""
    found = manifest()
    pruning = found.pruning
    assert pruning is not None
    for changed in (
        dataclasses.replace(found, form=form, pruning=dataclasses.replace(pruning, points=())),
        dataclasses.replace(found, form=form, pruning=None if form is not Form.DENSE else pruning),
    ):
        with pytest.raises(ArtifactError, match=f"is not (that|one) of a {form}"):
            from_json(to_json(changed))
