"""The commands that load engines with NVIDIA's own tools: one for each file and profile, at shapes it takes."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trtexec import trtexec_commands, write_inputs
from sait_deploy.runtime.engine_buffers import EngineTensors
from tests.engine.cases import RTX, TRT, adaptive_manifest, engine_manifest
from tests.exported import draft

BATCH = BatchRange(1, 4, 16)


def engine(source: Manifest, builder: BuilderName = RTX, place: str = "/a/engines/e") -> Engine:
    manifest = engine_manifest(source, builder=builder, batch=BATCH)
    return Engine(Artifact(Path(place).parents[1], source), Path(place), manifest)


def options(command: str) -> dict[str, str]:
    """Options of a command line by their names, as a shell would hand them over; the tool as ``tool``."""
    tool, *words = shlex.split(command)
    pairs = [word.removeprefix("--").partition("=") for word in words]
    return {"tool": tool} | {name: value for name, _, value in pairs}


def shapes(command: str) -> dict[str, tuple[int, ...]]:
    parts = [part.partition(":") for part in options(command)["shapes"].split(",")]
    return {name: tuple(map(int, sizes.split("x"))) for name, _, sizes in parts}


@pytest.mark.parametrize("source", [draft(), dataclasses.replace(draft(), pruning=None)], ids=["density", "dense"])
def test_one_file_is_one_command(source: Manifest) -> None:
    (command,) = trtexec_commands(engine(source))
    assert options(command) == {
        "tool": "tensorrt_rtx",
        "loadEngine": "/a/engines/e/model.plan",
        "shapes": "images:4x3x32x32",
    }


def test_an_engine_without_weights_has_none() -> None:
    made = engine(draft())
    assert not trtexec_commands(dataclasses.replace(made, manifest=dataclasses.replace(made.manifest, stripped=True)))


def test_stem_and_trunk_have_one_each() -> None:
    made = engine(adaptive_manifest())
    stem, trunk = trtexec_commands(made)
    assert options(stem)["loadEngine"].endswith("stem.plan")
    assert options(trunk)["loadEngine"].endswith("trunk.plan")
    assert shapes(stem) == {"images": (4, 3, 32, 32), "mass": (4,), "keep_limits": (4, 2)}
    assert shapes(trunk) == {"tokens": (68, 32), "cu_seqlens": (5,), "guard": (4, 1), "kept": (36,), "lanes": (13,)}


def test_each_profile_of_tensorrt_is_named_and_takes_its_shapes() -> None:
    made = engine(adaptive_manifest(), TRT)
    stem, *trunk = trtexec_commands(made)
    profiles = made.manifest.part(PartName.TRUNK).profiles
    assert len(trunk) == len(profiles) > 1
    assert "useProfile" not in options(stem)
    for index, (command, profile) in enumerate(zip(trunk, profiles, strict=True)):
        assert options(command)["tool"] == "trtexec"
        assert options(command)["useProfile"] == str(index)
        found = shapes(command)
        assert found.keys() == profile.ranges.keys()
        assert all(profile.ranges[name].holds(shape) for name, shape in found.items())


def loaded(command: str) -> dict[str, NDArray[np.int32]]:
    """What the command would read from files, in the shapes that it gives."""
    places = dict(part.split(":") for part in options(command).get("loadInputs", "").split(",") if part)
    return {name: np.fromfile(place, np.int32).reshape(shapes(command)[name]) for name, place in places.items()}


@pytest.mark.parametrize("builder", BuilderName)
@pytest.mark.parametrize("points", [((8.0, 12),), ((1.0, 1), (3.5, 9), (16.0, 16))])
def test_indices_and_limits_are_read_from_files_of_a_batch_that_can_be(
    tmp_path: Path, builder: BuilderName, points: tuple[tuple[float, int], ...]
) -> None:
    """Left to itself the tool fills inputs with random numbers, which as indices would point anywhere."""
    source = adaptive_manifest(points=points)
    made, geometry = engine(source, builder, f"{tmp_path}/engines/e"), source.model.geometry
    made.path.mkdir(parents=True)
    write_inputs(made.path, made.manifest.parts, geometry)
    stem, *trunk = trtexec_commands(made)
    assert loaded(stem)["keep_limits"].tolist() == [[1, geometry.patch_tokens]] * BATCH.optimum
    for command in trunk:
        inputs = loaded(command)
        assert inputs.keys() == {"cu_seqlens", "kept", "lanes"}
        extents = EngineTensors(made.manifest, geometry).extents(inputs["cu_seqlens"])
        assert extents.rows == len(inputs["kept"])
        assert extents.longest <= len(inputs["lanes"])
        assert inputs["lanes"].tolist() == list(range(len(inputs["lanes"])))
        image = np.repeat(np.arange(len(inputs["cu_seqlens"]) - 1), np.diff(inputs["cu_seqlens"]))
        np.testing.assert_array_equal(inputs["kept"] // geometry.tokens, image)
        assert (np.diff(inputs["kept"]) > 0).all()


def test_a_dense_engine_has_no_inputs_that_may_not_be_random(tmp_path: Path) -> None:
    made = engine(draft(), place=f"{tmp_path}/engines/e")
    write_inputs(made.path, made.manifest.parts, made.artifact.manifest.model.geometry)
    assert not list(tmp_path.iterdir())


def test_a_place_with_spaces_is_one_word() -> None:
    (command,) = trtexec_commands(engine(draft(), place="/my artifacts; and more/engines/e"))
    assert options(command)["loadEngine"] == "/my artifacts; and more/engines/e/model.plan"
