"""Which images, and which labels they get: subfolders are classes only where they match the model's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ImageError
from sait_deploy.images import dataset
from sait_deploy.images.dataset import Dataset, evaluation_dataset, evenly_spaced, folder_dataset, shipped_dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.training.data import open_data
from sait_deploy.training.options import DataOptions


def folders(root: Path, names: Iterable[str]) -> Path:
    """Makes a folder with one image in a subfolder for each name."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "image.png")
    return root


def labels(found: Dataset) -> dict[str, int] | None:
    if found.labels is None:
        return None
    return {Path(str(path)).parent.name: int(label) for path, label in zip(found.images, found.labels, strict=True)}


def test_subfolders_named_as_the_model_s_classes(tmp_path: Path) -> None:
    """In the model's order, not the alphabet's; not all need be there."""
    found = folder_dataset(folders(tmp_path, ["cat", "dog", "ant"]), ("dog", "cat", "ant", "bee"), 4)
    assert labels(found) == {"dog": 0, "cat": 1, "ant": 2}
    assert found.source == str(tmp_path)


def test_of_two_classes_of_one_name_the_first_is_taken(tmp_path: Path) -> None:
    assert labels(folder_dataset(folders(tmp_path, ["crane"]), ("dog", "crane", "crane"), 3)) == {"crane": 1}


def test_numbered_subfolders_are_the_classes_of_those_numbers(tmp_path: Path) -> None:
    """Sorted as words, 10 would come before 2."""
    names = [str(number) for number in range(12)]
    assert labels(folder_dataset(folders(tmp_path, names), None, 12)) == {name: int(name) for name in names}


def test_as_many_subfolders_as_classes_are_taken_in_sorted_order(tmp_path: Path) -> None:
    root = folders(tmp_path, ["n02", "n01", "n03"])
    for names in (None, ("dog", "cat", "ant")):
        assert labels(folder_dataset(root, names, 3)) == {"n01": 0, "n02": 1, "n03": 2}


@pytest.mark.parametrize("names", [None, ("dog", "cat", "ant")])
def test_other_subfolders_leave_the_images_unlabelled_and_the_source_says_so(
    tmp_path: Path, names: tuple[str, ...] | None
) -> None:
    found = folder_dataset(folders(tmp_path, ["dog", "wolf"]), names, 3)
    assert found.labels is None
    assert found.source == f"{tmp_path} (unlabelled: its 2 subfolders are not the model's 3 classes)"


def test_a_headless_model_has_no_classes(tmp_path: Path) -> None:
    found = folder_dataset(folders(tmp_path, ["dog", "cat"]), None, 0)
    assert (found.labels, found.source) == (None, str(tmp_path))


def test_a_single_image_and_none(tmp_path: Path) -> None:
    root = folders(tmp_path / "some", ["dog"])
    assert folder_dataset(root / "dog" / "image.png", ("dog",), 1).labels is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError):
        folder_dataset(tmp_path / "empty", None, 2)


def test_a_sample_is_spread_evenly_and_keeps_labels_with_images() -> None:
    images = [np.full((2, 2, 3), index, dtype=np.uint8) for index in range(100)]
    found = Dataset(images, np.arange(100), "numbers").sample(5)
    assert [int(np.asarray(image)[0, 0, 0]) for image in found.images] == [0, 25, 50, 74, 99]
    assert found.labels is not None and found.labels.tolist() == [0, 25, 50, 74, 99]
    assert Dataset(images, None, "numbers").sample(5).labels is None
    assert len(Dataset(images, None, "numbers").sample(1000).images) == 100


@given(st.integers(0, 3000), st.integers(0, 3200))
def test_places_are_evenly_spaced_from_the_first_to_the_last(length: int, most: int) -> None:
    """Each is nearest to where an even spacing has it, so that none comes twice."""
    places = evenly_spaced(length, most).tolist()

    count = min(length, most)
    assert len(places) == len(set(places)) == count
    assert places == sorted(places)
    if count == 1:
        assert places == [0]
    for number, place in enumerate(places if count > 1 else []):
        assert abs(2 * place * (count - 1) - 2 * number * (length - 1)) <= count - 1


@given(st.integers(1, 60), st.integers(1, 70))
def test_a_sample_is_of_the_evenly_spaced_places(length: int, most: int) -> None:
    images = [np.full((2, 2, 3), index, dtype=np.uint8) for index in range(length)]
    found, wanted = Dataset(images, np.arange(length), "numbers").sample(most), evenly_spaced(length, most).tolist()

    assert found.labels is not None and found.labels.tolist() == wanted
    assert [int(np.asarray(image)[0, 0, 0]) for image in found.images] == wanted


@given(st.integers(1, 45))
@settings(max_examples=12, deadline=None)
def test_training_validates_on_the_images_of_a_sample(most: int) -> None:
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    options = DataOptions(str(demo.IMAGES), validation=demo.IMAGES, validation_images=most)
    validation = open_data(options, model.info.classes, model.preprocessing, 0).validation

    sample = folder_dataset(demo.IMAGES, None, len(demo.LABELS)).sample(most)

    found = [validation[index] for index in range(len(sample.images))]
    assert sample.labels is not None and [label for _, label in found] == sample.labels.tolist()
    wanted = preprocess(list(sample.images), model.preprocessing)
    assert np.array_equal(np.stack([image.numpy() for image, _ in found]), wanted)
    assert len(validation) == len(found)  # type: ignore[arg-type]


def test_the_demonstration_s_shipped_images_are_labelled() -> None:
    found = shipped_dataset(demo.NAME)
    counts = labels(found)
    assert counts == {name: index for index, name in enumerate(demo.LABELS)}
    assert found.source == "shipped held-out digits"


def test_other_models_get_photographs() -> None:
    found = shipped_dataset("deit_small_patch16_224")
    assert found.labels is None
    assert len(found.images) == 6


def test_the_demonstration_is_evaluated_on_composed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(dataset, "GENERATED_COUNT", 20)
    first, again = evaluation_dataset(demo.NAME), evaluation_dataset(demo.NAME)
    assert len(first.images) == 20
    assert first.labels is not None and first.labels.shape == (20,)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first.images, again.images, strict=True))


def test_without_scikit_learn_it_is_evaluated_on_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert evaluation_dataset(demo.NAME).source == "shipped held-out digits"
