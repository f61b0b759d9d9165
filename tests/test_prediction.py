"""The predict stage from Python: answers image by image, and an adaptive artifact's sheet in order of difficulty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import StorageError
from sait_deploy.images.contact_sheet import tile
from sait_deploy.images.preprocess import cropped, open_image
from sait_deploy.prediction import BATCH, CONTACT_SHEET, Answer, answers_to
from sait_deploy.runtime import Runner, RunOptions, load
from tests.exported import IMAGE_SIZE, TinyExport

COUNT = BATCH + 3
CHOICE = PointChoice(mass=0.5, min_keep=2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """More images than a batch holds, each of its own pixels."""
    place, random = tmp_path_factory.mktemp("images"), np.random.default_rng(4)
    found = [place / f"{index:02d}.png" for index in range(COUNT)]
    for path in found:
        coarse = random.integers(0, 256, (random.integers(2, 20), 24, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((IMAGE_SIZE + 30, IMAGE_SIZE + 9)).save(path)
    return found


@pytest.fixture(scope="module")
def runner(tiny_adaptive: Artifact) -> Runner:
    return load(tiny_adaptive, options=RunOptions(threads=1))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn") / "below" / "pictures"


@pytest.fixture(scope="module")
def answers(runner: Runner, paths: list[Path], pictures: Path) -> list[Answer]:
    return list(answers_to(runner, paths, top=2, visualize=pictures, choice=CHOICE))


def place_of(part: NDArray[np.uint8], sheet: NDArray[np.uint8]) -> tuple[int, int]:
    """Finds the only place, row and column, where a picture stands on a sheet."""
    height, width = part.shape[:2]
    starts = np.argwhere((sheet == part[0, 0]).all(axis=2)).tolist()
    (found,) = [(y, x) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], part)]
    return found


def test_pictures_change_no_answer(runner: Runner, paths: list[Path], answers: list[Answer]) -> None:
    plain = list(answers_to(runner, paths, top=2, choice=CHOICE))
    output = runner.run(runner.preprocess(paths), mass=0.5, min_keep=2)
    assert [answer.path for answer in answers] == [answer.path for answer in plain] == paths
    for answer, other, kept, logits in zip(answers, plain, output.kept, output.logits, strict=True):
        assert answer.prediction.kept == other.prediction.kept == kept
        assert answer.prediction.labels == other.prediction.labels
        assert answer.prediction.labels[0] == str(logits.argmax())
        assert answer.prediction.probabilities == pytest.approx(other.prediction.probabilities, abs=1e-4)
    assert len({answer.prediction.kept for answer in answers}) > 3, "images should keep numbers of their own"


def test_every_image_gets_a_picture_and_all_of_them_a_sheet(answers: list[Answer], pictures: Path) -> None:
    names = [f"{index:04d}-{answer.path.stem}.png" for index, answer in enumerate(answers)]
    assert sorted(path.name for path in pictures.iterdir()) == [*names, CONTACT_SHEET]


def test_the_sheet_goes_from_the_fewest_kept_to_the_most(
    runner: Runner, paths: list[Path], answers: list[Answer], pictures: Path
) -> None:
    """Each thumbnail, made again from what was kept, is found on it; so all batches are there."""
    keep = runner.select(runner.preprocess(paths), mass=0.5, min_keep=2).keep[:, 1:]
    with Image.open(pictures / CONTACT_SHEET) as picture:
        sheet = np.asarray(picture)
    places = []
    for path, row, answer in zip(paths, keep, answers, strict=True):
        pixels = np.asarray(cropped(open_image(path), runner.artifact.manifest.preprocessing))
        kept = answer.prediction.kept
        thumbnail = np.asarray(tile(pixels, row, (6, 6), kept=kept, label="").picture)
        places.append((place_of(thumbnail, sheet), kept))
    ordered = [kept for _, kept in sorted(places)]
    assert ordered == sorted(ordered)
    assert len({row for (row, _), _ in places}) > 1, "it should have several rows"


def test_the_sheet_is_written_when_all_is_answered(runner: Runner, paths: list[Path], tmp_path: Path) -> None:
    going = answers_to(runner, paths[:2], visualize=tmp_path)
    next(going)
    next(going)
    assert not (tmp_path / CONTACT_SHEET).exists()
    assert list(going) == []
    assert (tmp_path / CONTACT_SHEET).exists()


def test_dense_and_density_have_no_sheet(tiny: TinyExport, paths: list[Path], tmp_path: Path) -> None:
    for artifact in (tiny.dense, tiny.half):
        place = tmp_path / artifact.manifest.form
        found = list(answers_to(load(artifact, options=RunOptions(threads=1)), paths[:2], visualize=place))
        assert len({answer.prediction.kept for answer in found}) == 1
        assert sorted(path.name for path in place.iterdir()) == ["0000-00.png", "0001-01.png"]


def test_a_folder_that_cannot_be_written_to(runner: Runner, paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write") as caught:
        list(answers_to(runner, paths[:1], visualize=tmp_path / "file"))
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "in the way"
