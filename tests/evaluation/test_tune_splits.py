"""Two sets of images that share none, the same for the same seed, alike in their classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sait_deploy import demo
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.evaluation import tune_splits as splits
from sait_deploy.evaluation.tune_splits import SplitOptions, make_splits, split
from sait_deploy.images.dataset import Dataset
from tests.exported import draft

MODEL = draft().model


def numbered(labels: list[int] | None, count: int) -> Dataset:
    found = None if labels is None else np.array(labels, dtype=np.int64)
    return Dataset([str(number) for number in range(count)], found, "numbers")


@settings(max_examples=80, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=4, max_size=120), share=st.floats(0.3, 0.7), seed=st.integers(0, 99))
def test_every_image_is_in_one_set_and_every_class_in_proportion(labels: list[int], share: float, seed: int) -> None:
    whole = numbered(labels, len(labels))
    made = split(whole, SplitOptions(calibration_share=share, seed=seed))
    parts = [[int(str(image)) for image in part.images] for part in (made.calibration, made.check)]
    assert sorted(parts[0] + parts[1]) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts)
    for numbers, part in zip(parts, (made.calibration, made.check), strict=True):
        assert part.labels is not None
        assert part.labels.tolist() == [labels[number] for number in numbers]
    for label in set(labels):
        there = sum(labels[number] == label for number in parts[0])
        assert abs(there - share * labels.count(label)) < 1 + 1e-6
    again = split(whole, SplitOptions(calibration_share=share, seed=seed))
    assert list(again.calibration.images) == list(made.calibration.images)


def test_another_seed_splits_otherwise() -> None:
    whole = numbered(None, 200)
    first, second = (split(whole, SplitOptions(seed=seed)) for seed in (0, 1))
    assert first.calibration.labels is None and not first.labelled
    assert len(first.calibration.images) == len(first.check.images) == 100
    assert list(first.calibration.images) != list(second.calibration.images)


def test_what_cannot_be_split() -> None:
    with pytest.raises(ImageError, match="1 image of numbers"):
        split(numbered(None, 1), SplitOptions())
    for wrong in ({"calibration_share": 1.0}, {"calibration_share": 0.0}, {"seed": -1}, {"check_images": Path()}):
        with pytest.raises(InvalidArgument):
            SplitOptions(**wrong)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of three images each."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{name}{number}.png")
    return tmp_path / "a", tmp_path / "b"


def test_images_to_check_on_may_be_named(folders: tuple[Path, Path]) -> None:
    made = make_splits(MODEL, SplitOptions(*folders))
    assert [Path(str(image)).name for image in made.calibration.images] == ["a0.png", "a1.png", "a2.png"]
    assert [Path(str(image)).name for image in made.check.images] == ["b0.png", "b1.png", "b2.png"]


def test_an_image_in_both_sets_is_refused(folders: tuple[Path, Path]) -> None:
    (folders[1] / "link.png").symlink_to(folders[0] / "a1.png")
    with pytest.raises(InvalidArgument, match=r"a1\.png is among both"):
        make_splits(MODEL, SplitOptions(*folders))


def test_the_demonstration_model_gets_two_sets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "COMPOSED_IMAGES", 12)
    model = dataclasses.replace(MODEL, name=demo.NAME)
    made, again, other = (make_splits(model, SplitOptions(seed=seed)) for seed in (0, 0, 1))
    assert made.labelled
    sets = [
        np.stack([np.asarray(i) for i in part.images]) for one in (made, other) for part in (one.calibration, one.check)
    ]
    images = sets[0].reshape(12, -1)
    for different in sets[1:]:
        assert not (images[:, None] == different.reshape(1, 12, -1)).all(axis=2).any()
    assert (images == np.stack([np.asarray(i) for i in again.calibration.images]).reshape(12, -1)).all()


def test_other_models_get_the_shipped_photographs() -> None:
    made = make_splits(MODEL, SplitOptions())
    assert not made.labelled
    assert len(made.calibration.images) + len(made.check.images) == len(
        list((demo.FOLDER / "photographs").glob("*.jpg"))
    )


def test_photographs_get_the_fourth_channel_that_a_model_reads() -> None:
    made = make_splits(MODEL, SplitOptions(), channels=4)
    images = (*made.calibration.images, *made.check.images)
    assert {np.asarray(image).shape[-1] for image in images} == {4}
