"""Where results go is found out before work starts, and a name in another encoding spoils no report."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from sait_deploy.artifacts.files import check_writable, write_whole
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import StorageError
from tests.cli.calls import Sait

ODD = os.fsdecode(b"caf\xe9")
"""A name of a file that is not UTF-8."""

BENCH = ("--duration", "0.01", "--warmup", "0", "--batch", "1", "--no-accuracy")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images, whose name and names are not UTF-8."""
    if sys.platform != "linux":
        pytest.skip("this system has no such names")
    from PIL import Image

    for number in range(5):
        place = tmp_path / ODD / str(number)
        place.mkdir(parents=True)
        Image.radial_gradient("L").convert("RGB").rotate(90 * number).save(place / f"{ODD}.png")
    return tmp_path / ODD


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file where a folder is wanted."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


@pytest.mark.parametrize("ending", [".json", ".html", ".md"])
def test_reports_of_images_with_such_names(sait: Sait, tiny_adaptive: Artifact, images: Path, ending: str) -> None:
    output = images.parent / f"{ODD}{ending}"
    done = sait("evaluate", tiny_adaptive.path, "--images", images, "--control", "none", "-o", output)
    assert done.code == 0, done.err
    text = output.read_text(encoding="utf-8")
    assert "caf" in text
    assert ending != ".json" or json.loads(text)
    done = sait("bench", tiny_adaptive.path, "--images", images, *BENCH, "-o", output)
    assert done.code == 0, done.err
    output.read_text(encoding="utf-8")


def test_pictures_of_images_with_long_names(sait: Sait, tiny_adaptive: Artifact, images: Path) -> None:
    long = images / f"{'名' * 83}.png"
    shutil.copy(next(images.rglob("*.png")), long)
    done = sait("predict", images, "--artifact", tiny_adaptive.path, "--visualize", images.parent / "pictures")
    assert done.code == 0, done.err
    assert len(list((images.parent / "pictures").glob("0*.png"))) == 6


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path, file: Path
) -> None:
    """Each of these would fail otherwise, by what is not there."""
    nothing = tmp_path / "nothing"
    shutil.copytree(tiny_adaptive.path, tmp_path / "copied")
    (tmp_path / "copied" / "points").touch()
    for command in (
        ("export", "--model", nothing, "-o", file / "artifacts"),
        ("train", "--model", nothing, "-o", file / "training"),
        ("predict", nothing, "--visualize", file),
        ("predict", nothing, "--visualize", file / "pictures"),
        ("evaluate", nothing, "-o", file / "report.json"),
        ("recommend", "--bench", nothing, "--max-drop", "1", "-o", file / "report.json"),
        ("bench", tiny_adaptive.path, "--images", nothing, "-o", file / "report.json"),
        ("batch", nothing, "--artifact", tiny_adaptive.path, "-o", file / "out"),
        ("triton-repository", nothing, "-o", file / "repository"),
        ("tune", tmp_path / "copied", "--images", nothing, "--max-drop", "1"),
    ):
        done = sait(*command)
        assert done.code == 9, (command, done.err)
        assert "cannot write" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "file"]


@pytest.mark.parametrize("name", ["\ud800.json", "a\0b.json", "x" * 300 + ".json"], ids=["surrogate", "nul", "long"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        check_writable(tmp_path / name)
    with pytest.raises(StorageError, match="cannot write"):
        write_whole(tmp_path / name, "text")
    assert list(tmp_path.iterdir()) == []
