"""Whose engines commands load, on a stand-in for a GPU: those that ``build-engine`` made here, or as the user says."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.engine.folder import Engine, engine_folders, open_engine, write_engine_manifest
from sait_deploy.engine.options import Portability
from sait_deploy.engine.trust import Consent, EngineTrust, HostCode
from sait_deploy.errors import ArtifactError
from sait_deploy.runtime import RunOptions, load
from tests.cli.calls import Sait
from tests.engine.cases import builder_version
from tests.exported import TinyExport
from tests.runtime.engines import on_host

RTX = "tensorrt-rtx"
BENCH = ("--batch", "1", "--duration", "0.01", "--warmup", "0", "--no-accuracy")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, whose other folders are not to be found."""
    builder_version()
    for folder in ("home", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def built(sait: Sait, tiny: TinyExport, user: Path) -> Engine:
    """An engine that the command line built in a copy of the dense artifact."""
    place = Path(shutil.copytree(tiny.dense.path, user / tiny.dense.path.name))
    assert sait("build-engine", place, "--target", "sm89", "--batch", "1:1:1").code == 0
    artifact = open_artifact(place)
    return open_engine(artifact, engine_folders(artifact)[0])


@pytest.mark.parametrize("home", ["there", "missing", "unwritable"])
def test_what_was_built_runs_where_it_was_built_and_elsewhere_only_as_the_user_says(
    sait: Sait, tiny: TinyExport, user: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    if home == "missing":
        # Then the home is that of the list of users, which is to be left alone.
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pathlib.Path.home", _no_home)
    elif home == "unwritable":
        monkeypatch.setenv("HOME", "/proc")
    place = Path(shutil.copytree(tiny.dense.path, user / tiny.dense.path.name))
    built = sait("build-engine", place, "--target", "sm89", "--batch", "1:1:1")
    assert built.code == 0, built.err
    assert "--trust-engine" not in built.err
    artifact = open_artifact(place)
    (folder,) = engine_folders(artifact)
    _, package = on_host(open_engine(artifact, folder), RTX, monkeypatch)

    done = sait("bench", place, *BENCH)
    assert done.code == 0, done.err
    assert RTX in done.out and "--trust-engine" not in done.out + done.err
    assert package.contexts

    for kept in ("home", "temporary"):
        shutil.rmtree(user / kept)
        (user / kept).mkdir()
    package.contexts.clear()
    for arguments in (("bench", place, *BENCH), ("inspect", place)):
        done = sait(*arguments)
        assert done.code == 0, done.err
        assert "was not built here by this user" in done.out + done.err
        assert "--trust-engine" in done.out + done.err
    done = sait("bench", place, *BENCH, "--runtime", RTX)
    assert done.code == ArtifactError.exit_code
    assert not package.contexts, "nothing was deserialised"

    done = sait("bench", place, *BENCH, "--trust-engine")
    assert done.code == 0, done.err
    assert package.contexts
    assert sait("bench", place, *BENCH, "--runtime", RTX).code == ArtifactError.exit_code, "it holds for one command"


def test_code_for_the_processor_is_consented_to_by_itself(
    sait: Sait, tiny: TinyExport, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the engine is the user's own; and the GPU's memory is not asked for before."""
    engine = built(sait, tiny, user)
    place, artifact = engine.artifact.path, engine.artifact
    said = dataclasses.replace(engine.manifest, portability=(Portability.VERSIONS,))
    device, _ = on_host(dataclasses.replace(engine, manifest=said), RTX, monkeypatch)
    for consent in (None, Consent(EngineTrust.ANY)):
        with pytest.raises(ArtifactError, match="--allow-host-code"):
            load(artifact, RTX, RunOptions(consent=consent))
    assert not device.memory.blocks
    load(artifact, RTX, RunOptions(consent=Consent(host_code=HostCode.ALLOWED)))
    done = sait("bench", place, *BENCH, "--allow-host-code")
    assert done.code == 0 and "--allow-host-code" not in done.out, done.err


def test_a_plan_whose_manifest_was_changed_is_not_what_was_built(
    sait: Sait, tiny: TinyExport, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan for exact rows that is given rows to spare would gather beyond its tokens."""
    engine = built(sait, tiny, user)
    artifact = engine.artifact
    on_host(engine, RTX, monkeypatch)
    load(artifact, RTX)
    said = open_engine(artifact, engine.path).manifest
    write_engine_manifest(engine.path, dataclasses.replace(said, spare_rows=True))
    with pytest.raises(ArtifactError, match="was not built here by this user"):
        load(artifact, RTX)


def test_no_engine_is_written_through_a_link(sait: Sait, tiny: TinyExport, user: Path) -> None:
    place = Path(shutil.copytree(tiny.dense.path, user / tiny.dense.path.name))
    (user / "elsewhere").mkdir()
    (place / "engines").symlink_to(user / "elsewhere")
    done = sait("build-engine", place, "--target", "sm89")
    assert done.code == ArtifactError.exit_code
    assert "is a link" in done.err
    assert not list((user / "elsewhere").iterdir())


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
