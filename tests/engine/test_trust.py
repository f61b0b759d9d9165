"""Whose engines are loaded: what this user built here, and nothing else unless the user says so."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from sait_deploy.engine.trust import Consent, EngineTrust, built_here, check_built, record_built
from sait_deploy.errors import ArtifactError, InvalidArgument

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for state of a user whose other folders are not to be found."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    return tmp_path


def test_what_was_built_here_is_known(state: Path) -> None:
    assert not built_here(ONE)
    assert record_built([ONE])
    assert built_here(ONE) and not built_here(OTHER)
    check_built("mine", [ONE], Consent())
    with pytest.raises(ArtifactError, match="engine theirs was not built here by this user") as caught:
        check_built("theirs", [ONE, OTHER], Consent())
    assert "--trust-engine" in caught.value.hint
    check_built("theirs", [ONE, OTHER], Consent(EngineTrust.ANY))


def test_without_a_home_a_temporary_folder_of_the_user_serves(state: Path) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        (state / name).write_text("no folder")
    assert record_built([ONE])
    assert built_here(ONE)
    assert list((state / "temporary").iterdir())


@pytest.mark.parametrize("mask", [0, 0o002, 0o022, 0o077])
def test_whatever_the_umask_the_folders_are_the_users_alone(state: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert record_built([ONE])
    finally:
        os.umask(before)
    assert built_here(ONE)
    assert not (state / "temporary").exists()


@pytest.mark.parametrize("place", ["HOME", "XDG_STATE_HOME", "temporary"])
def test_the_working_folder_says_nothing(state: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It may have come from others as a whole, with records in it."""
    record_built([ONE])
    theirs = state / "theirs"
    kept = state / "XDG_STATE_HOME" / "sait-deploy"
    inside = {"HOME": ".local/state/sait-deploy", "XDG_STATE_HOME": "sait-deploy"}
    (theirs / ".local" / "state").mkdir(parents=True)
    kept.rename(theirs / inside.get(place, f"sait-deploy-{os.getuid()}"))
    monkeypatch.chdir(theirs)
    if place == "temporary":
        monkeypatch.setattr(tempfile, "gettempdir", lambda: str(theirs))
    else:
        monkeypatch.setenv(place, ".")
    assert not built_here(ONE)


def test_consent_is_one_of_the_words() -> None:
    with pytest.raises(InvalidArgument, match="engines cannot be 'all'"):
        Consent("all")  # type: ignore[arg-type]


def test_where_nothing_can_be_written_nothing_is_known(state: Path) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "temporary"):
        (state / name).write_text("no folder")
    assert not record_built([ONE])
    assert not built_here(ONE)


def test_a_folder_that_others_can_write_to_says_nothing(state: Path) -> None:
    assert record_built([ONE])
    folder = state / "XDG_STATE_HOME" / "sait-deploy" / "built"
    os.chmod(folder, 0o777)  # noqa: PTH101 - as another would have made it
    assert not built_here(ONE)


def test_a_folder_that_is_a_link_says_nothing(state: Path) -> None:
    (state / "theirs" / "built").mkdir(parents=True)
    (state / "theirs" / "built" / ONE).touch()
    (state / "XDG_STATE_HOME").mkdir()
    (state / "XDG_STATE_HOME" / "sait-deploy").symlink_to(state / "theirs")
    assert not built_here(ONE)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "x" * 64, "1" * 63])
def test_what_is_no_hash_is_not_looked_up(state: Path, digest: str) -> None:
    assert not built_here(digest)
