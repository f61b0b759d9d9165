"""The engine's manifest: it says all it says through JSON and back, and a wrong field is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.engine.manifest import EngineManifest, from_json, to_json
from sait_deploy.engine.options import BatchRange, Portability
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.names import EnginePrecision, SelectionForm
from tests.engine.cases import engine_manifest
from tests.exported import draft, draft_adaptive

SOURCES = (draft(), draft_adaptive())
MADE = engine_manifest(SOURCES[1])

MANIFESTS = st.builds(
    engine_manifest,
    st.sampled_from(SOURCES),
    builder=st.sampled_from(BuilderName),
    batch=st.just(BatchRange(1, 2, 3)),
    name=st.text(),
    gpu=st.none() | st.text(),
    targets=st.lists(st.text()).map(tuple),
    precision=st.sampled_from(EnginePrecision),
    selection=st.none() | st.sampled_from(SelectionForm),
    portability=st.lists(st.sampled_from(Portability), unique=True).map(tuple),
    stripped=st.booleans(),
    spare_rows=st.booleans(),
    weights=st.none() | st.dictionaries(st.text(), st.text(), min_size=1),
    messages=st.lists(st.text()).map(tuple),
    tools=st.dictionaries(st.text(), st.text()),
)


@given(MANIFESTS)
def test_what_is_written_is_read_again(manifest: EngineManifest) -> None:
    assert from_json(to_json(manifest)) == manifest


def test_an_earlier_manifest_says_nothing_of_rows_to_spare_and_of_weights() -> None:
    assert not {"spare_rows", "weights"} & json.loads(to_json(dataclasses.replace(MADE, spare_rows=False))).keys()


def test_a_part_is_found_by_its_name() -> None:
    for name in (PartName.STEM, PartName.TRUNK):
        assert MADE.part(name).name is name


Change = Callable[[dict[str, Any]], object]

WRONG: list[tuple[str, Change]] = [
    ("batch is missing", lambda data: data.pop("batch")),
    ("parts[0].profiles is missing", lambda data: data["parts"][0].pop("profiles")),
    (
        "builder is 'openvino': input should be 'tensorrt' or 'tensorrt-rtx'",
        lambda data: data.update(builder="openvino"),
    ),
    ("portability[0] is 'all': input should be", lambda data: data.update(portability=["all"])),
    (
        "parts[0].name is 'trunks': input should be 'model', 'stem' or 'trunk'",
        lambda data: data["parts"][0].update(name="trunks"),
    ),
    ("batch is not valid: batch 9:8:32 is out of order", lambda data: data["batch"].update(smallest=9)),
    ("smallest[0] is 1.5", lambda data: data["parts"][0]["profiles"][0]["ranges"]["mass"].update(smallest=[1.5])),
    ("schema_version 2, not 1", lambda data: data.update(schema_version=2)),
]


@pytest.mark.parametrize(("message", "change"), WRONG, ids=[message for message, _ in WRONG])
def test_a_wrong_field_is_named(message: str, change: Change) -> None:
    data = json.loads(to_json(MADE))
    change(data)
    with pytest.raises(ArtifactError) as caught:
        from_json(json.dumps(data))
    assert message in caught.value.message
    assert "the engine's manifest" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"engine"', '{"schema_version": NaN}', "[" * 100_000])
def test_what_is_no_manifest_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(ArtifactError, match="the engine's manifest"):
        from_json(text)
