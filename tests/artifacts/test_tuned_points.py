"""Points beside an artifact: opening it makes them its own, or refuses them in a line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.folder import MANIFEST_FILE, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.artifacts.pruning_info import KeptInfo, MacsInfo, PointInfo
from sait_deploy.artifacts.tuned_points import (
    SCHEMA_VERSION,
    Evidence,
    Measure,
    SplitEvidence,
    TunedPoint,
    check_name,
    points_path,
    read_points,
    with_points,
    write_point,
)
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, profiles
from sait_deploy.errors import ArtifactError, InvalidArgument, SaitError, StorageError
from sait_deploy.tokens import OperatingPoint, pruned_macs
from tests.artifacts.places import put
from tests.exported import POINTS, draft, draft_adaptive

EXPORTED = tuple(point.name for point in POINTS)
MANIFEST = draft_adaptive()
TAKEN = (*EXPORTED, "default")
PATCHES = MANIFEST.model.geometry.patch_tokens
EVIDENCE = Evidence(
    measure=Measure.DROP,
    limit_percent=0.5,
    confidence=0.95,
    sequences=2,
    grid=(0.99, 0.9, 0.8),
    tried=3,
    calibration=SplitEvidence(2000, "some images", -0.05, 0.41),
    check=SplitEvidence(1000, "others", 0.1, 0.62),
    check_passed=True,
    check_confirmed=False,
    seed=7,
    runtime="onnxruntime",
    environment={"onnxruntime": "1.22"},
)


def tuned(
    manifest: Manifest, name: str = "tuned", mass: float = 0.8, least: int = 1, most: int = PATCHES, kept: float = 5.5
) -> TunedPoint:
    """A point with figures that the model can have."""
    assert manifest.pruning is not None
    geometry, prune_at = manifest.model.geometry, manifest.pruning.prune_at
    cost = pruned_macs(geometry, prune_at, int(kept))
    dense = manifest.macs.dense
    info = PointInfo(
        name,
        OperatingPoint(mass, least, most),
        KeptInfo(2000, kept, 0.5, float(int(kept)), kept, min(most, int(kept) + 1)),
        MacsInfo(cost, dense, dense / cost),
    )
    return TunedPoint(SCHEMA_VERSION, manifest.id, "2026-01-02T03:04:05+00:00", info, EVIDENCE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An adaptive artifact of 16 patch tokens."""
    return put(Workspace(tmp_path / "artifacts"), MANIFEST)


def refused(place: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        open_artifact(place)
    assert "delete it" in caught.value.hint
    assert "\n" not in caught.value.message


def names(place: Path) -> tuple[str, ...]:
    pruning = open_artifact(place).manifest.pruning
    assert pruning is not None
    return tuple(info.name for info in pruning.points)


def test_tuned_points_come_after_the_exported_ones(place: Path) -> None:
    before = (place / MANIFEST_FILE).read_bytes()
    manifest = open_artifact(place).manifest
    for name, mass in (("tuned", 0.8), ("careful", 0.95)):
        file = write_point(place, manifest, tuned(manifest, name, mass))
        assert file == place / "points" / f"{name}.json"
    assert names(place) == (*EXPORTED, "careful", "tuned")
    opened = open_artifact(place)
    assert opened.manifest.default_point == manifest.default_point
    point = resolve(opened.manifest, 2, PointChoice("careful"))
    assert point is not None
    assert point.mass.tolist() == pytest.approx([0.95, 0.95])
    assert point.keep_limits.tolist() == [[1, PATCHES]] * 2
    assert (place / MANIFEST_FILE).read_bytes() == before, "the manifest's own file is never rewritten"
    assert sorted(path.name for path in (place / "points").iterdir()) == ["careful.json", "tuned.json"]


def test_a_point_reads_back_with_its_evidence(place: Path) -> None:
    manifest = open_artifact(place).manifest
    written = tuned(manifest)
    write_point(place, manifest, written)
    assert read_points(place, manifest) == (written,)


def test_a_tuned_point_is_replaced_by_one_of_its_name(place: Path) -> None:
    manifest = open_artifact(place).manifest
    write_point(place, manifest, tuned(manifest, mass=0.8))
    again = open_artifact(place).manifest
    write_point(place, again, tuned(again, mass=0.7))
    assert [one.point.point.mass for one in read_points(place, manifest)] == [0.7]
    assert names(place) == (*EXPORTED, "tuned")


def test_engines_are_tuned_for_them(place: Path) -> None:
    def optima() -> list[int]:
        manifest = open_artifact(place).manifest
        trunk = profiles(manifest, BatchRange(1, 8, 32), BuilderName.TENSORRT)[PartName.TRUNK]
        return [profile.ranges["kept"].optimum[0] for profile in trunk]

    before = optima()
    write_point(place, MANIFEST, tuned(MANIFEST, kept=3.5))
    assert 8 * 3.5 + 8 in optima() and 8 * 3.5 + 8 not in before


@pytest.mark.parametrize("name", [*EXPORTED, "default", "", "two words", "../up", "1st", "x" * 101])
def test_names_that_a_tuned_point_cannot_have(place: Path, name: str) -> None:
    manifest = open_artifact(place).manifest
    with pytest.raises(InvalidArgument):
        check_name(place, manifest, name)
    with pytest.raises(InvalidArgument):
        write_point(place, manifest, tuned(manifest, name))
    assert not (place / "points").exists()


def test_an_artifact_of_a_fixed_point_has_none(tmp_path: Path) -> None:
    density = put(Workspace(tmp_path / "artifacts"), draft())
    with pytest.raises(InvalidArgument, match="operating point is fixed"):
        check_name(density, open_artifact(density).manifest, "tuned")
    file = points_path(density, "tuned")
    file.parent.mkdir()
    file.write_text("{}")
    refused(density, "density artifact")


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("another artifact", lambda d: d.update(artifact="other-123"), "belongs to artifact other-123"),
    ("an unknown field", lambda d: d.update(more=1), "more is an unknown field"),
    (
        "an unknown field inside",
        lambda d: d["evidence"]["check"].update(more=1),
        "evidence.check.more is an unknown field",
    ),
    ("a missing field", lambda d: d["point"].pop("kept"), "point.kept is missing"),
    ("another version's", lambda d: d.update(schema_version=2), "schema_version 2"),
    ("another name", lambda d: d["point"].update(name="other"), "holds the point 'other'"),
    ("no mass", lambda d: d["point"]["point"].update(mass=-1), "no number from 0 on"),
    ("too many tokens", lambda d: d["point"]["point"].update(max_keep=PATCHES + 1), "patch tokens"),
    ("limits reversed", lambda d: d["point"]["point"].update(min_keep=9, max_keep=8), "cannot be"),
    ("kept more than the limit", lambda d: d["point"]["kept"].update(most=PATCHES + 1), "cannot keep"),
    ("kept less than one", lambda d: d["point"]["kept"].update(mean=0.5), "cannot keep"),
    ("kept by no images", lambda d: d["point"]["kept"].update(images=0), "cannot keep"),
    ("more than dense", lambda d: d["point"]["macs"].update(per_image=10**12, ratio=1e-9), "MACs"),
    ("another model's dense", lambda d: d["point"]["macs"].update(dense=1, ratio=1e-6), "MACs"),
    ("another ratio", lambda d: d["point"]["macs"].update(ratio=9.0), "MACs"),
    ("no confidence", lambda d: d["evidence"].update(confidence=1.0), "cannot be"),
    ("a measure unknown", lambda d: d["evidence"].update(measure="luck"), "'luck': input should be"),
    ("a bound below the value", lambda d: d["evidence"]["check"].update(bound_percent=0.05), "below the value"),
    ("a bound beyond the limit", lambda d: d["evidence"]["calibration"].update(bound_percent=0.6), "beyond the limit"),
    ("a check that did not pass", lambda d: d["evidence"]["check"].update(value_percent=0.6), "do not say passed"),
    ("a check confirmed", lambda d: d["evidence"].update(check_confirmed=True), "do not say passed"),
]


@pytest.mark.parametrize(("change", "match"), [change[1:] for change in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_file_that_is_changed(place: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    file = write_point(place, MANIFEST, tuned(MANIFEST))
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=match) as caught:
        open_artifact(place)
    assert str(file) in caught.value.message and "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b" " * (1 << 20) + b"{}"], ids=len)
def test_a_file_that_is_damaged(place: Path, content: bytes) -> None:
    file = write_point(place, MANIFEST, tuned(MANIFEST))
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tuned\.json"):
        open_artifact(place)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_file_with_bytes_changed_is_read_or_refused_in_a_line(place: Path, data: st.DataObject) -> None:
    file = write_point(place, MANIFEST, tuned(MANIFEST))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    try:
        manifest = with_points(place, MANIFEST)
    except ArtifactError as error:
        assert error.hint and "\n" not in error.message
    else:
        assert manifest.pruning is not None and len(manifest.pruning.points) == len(EXPORTED) + 1
    finally:
        file.unlink()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
        lambda n: n not in (*EXPORTED, "default")
    ),
    mass=st.floats(0, 1e6),
    least=st.integers(1, PATCHES),
    more=st.integers(0, PATCHES - 1),
)
def test_what_is_written_opens(place: Path, name: str, mass: float, least: int, more: int) -> None:
    most = min(PATCHES, least + more)
    written = tuned(MANIFEST, name, mass, least, most, kept=float(most))
    file = write_point(place, MANIFEST, written)
    try:
        assert read_points(place, MANIFEST) == (written,)
    finally:
        file.unlink()


def test_links_are_refused(place: Path, tmp_path: Path) -> None:
    file = write_point(place, MANIFEST, tuned(MANIFEST))
    away = tmp_path / "away.json"
    file.rename(away)
    file.symlink_to(away)
    refused(place, "is a link")
    file.unlink()
    os.link(away, file)
    refused(place, "has 2 names on this disk: hard links")
    file.unlink()
    file.parent.rmdir()
    (tmp_path / "elsewhere").mkdir()
    file.parent.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    refused(place, "is a link")
    with pytest.raises(ArtifactError, match="is a link"):
        write_point(place, MANIFEST, tuned(MANIFEST))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_no_file_is_refused_without_waiting(place: Path) -> None:
    folder = place / "points"
    (folder / "a.json").mkdir(parents=True)
    refused(place, "is no file")
    (folder / "a.json").rmdir()
    os.mkfifo(folder / "b.json")
    refused(place, "is no file")


def test_what_a_crash_or_an_editor_leaves_is_passed_over(place: Path) -> None:
    (place / "points").mkdir()
    for name in (".tuned.json.partial", ".hidden.json", "notes.txt", "tuned.json~"):
        (place / "points" / name).write_text("{")
    assert names(place) == EXPORTED


def test_another_artifact_of_the_same_workspace_does_not_take_it(place: Path) -> None:
    other = dataclasses.replace(MANIFEST, name="other", id="other-1")
    second = put(Workspace(place.parent), other)
    file = write_point(place, MANIFEST, tuned(MANIFEST))
    points_path(second, "tuned").parent.mkdir()
    points_path(second, "tuned").write_bytes(file.read_bytes())
    refused(second, "belongs to artifact")
    with pytest.raises(InvalidArgument, match="belongs to artifact"):
        write_point(second, other, tuned(MANIFEST))


def test_a_place_that_cannot_be_written(place: Path) -> None:
    (place / "points").write_text("in the way")
    with pytest.raises(StorageError):
        write_point(place, MANIFEST, tuned(MANIFEST))
    assert names(place) == EXPORTED


def test_all_refusals_are_of_the_projects_kind() -> None:
    for wrong in ({"images": 0}, {"bound_percent": -1.0}):
        with pytest.raises(SaitError):
            dataclasses.replace(EVIDENCE.check, **wrong)
