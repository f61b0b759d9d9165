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
from sait_deploy.errors import ImageError, InvalidArgument
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


def test_without_names_the_alphabet_is_the_order_and_the_source_says_so(tmp_path: Path) -> None:
    found = folder_dataset(folders(tmp_path, ["zebra", "cat", "dog"]), None, 3)
    assert labels(found) == {"cat": 0, "dog": 1, "zebra": 2}
    assert "alphabetical order" in found.source


def test_without_names_an_order_that_depends_on_who_sorts_is_refused(tmp_path: Path) -> None:
    """torchvision puts capitals first, timm does not."""
    with pytest.raises(InvalidArgument, match="depends on who sorts"):
        folder_dataset(folders(tmp_path, ["Zebra", "cat"]), None, 2)


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["Zebra", "Cat"], ("zebra", "cat")),
        (["golden_retriever", "Great-Dane"], ("Golden Retriever", "great dane")),
        (["\ufeffzebra", "cat"], ("zebra", "cat")),
        (["CAFE\u0301", "cat"], ("caf\u00e9", "cat")),
    ],
)
def test_case_separators_and_marks_do_not_tell_names_apart(
    tmp_path: Path, names: list[str], known: tuple[str, ...]
) -> None:
    assert labels(folder_dataset(folders(tmp_path, names), known, 2)) == {names[0]: 0, names[1]: 1}


def test_the_very_name_comes_before_others_like_it(tmp_path: Path) -> None:
    found = folder_dataset(folders(tmp_path, ["CAT", "dog_house"]), ("cat", "CAT", "dog_house", "dog house"), 4)
    assert labels(found) == {"CAT": 1, "dog_house": 2}
    with pytest.raises(InvalidArgument, match="may be any of"):
        folder_dataset(folders(tmp_path / "other", ["Dog-House"]), ("dog_house", "dog house"), 2)


@pytest.mark.parametrize("names", [["dog", "wolf"], ["wolf", "fox", "bear"]])
def test_other_names_are_refused_and_named(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="'wolf'") as caught:
        folder_dataset(folders(tmp_path, names), ("dog", "cat", "ant"), 3)
    assert "'dog'" not in caught.value.message
    assert "--class-map" in caught.value.hint


@pytest.mark.parametrize("known", [None, ("dog", "cat", "ant")])
def test_subfolders_that_are_no_classes_leave_the_images_unlabelled(
    tmp_path: Path, known: tuple[str, ...] | None
) -> None:
    found = folder_dataset(folders(tmp_path, ["2023-05", "2024-06"]), known, 3)
    assert found.labels is None
    assert found.source == f"{tmp_path} (unlabelled: its 2 subfolders are not the model's 3 classes)"


@pytest.mark.parametrize(
    ("numbers", "first", "said"),
    [
        (range(1, 13), 1, "in the order of their numbers"),
        ((1, 2, 3, 5, 12), 1, "count classes from 1"),
        ((0, 3, 5), 0, ""),
    ],
)
@pytest.mark.parametrize("known", [None, tuple("abcdefghijkl")])
def test_numbered_folders(
    tmp_path: Path, numbers: Iterable[int], first: int, said: str, known: tuple[str, ...] | None
) -> None:
    found = folder_dataset(folders(tmp_path, map(str, numbers)), known, 12)
    assert labels(found) == {str(number): number - first for number in numbers}
    assert said in found.source


def test_numbers_that_may_begin_at_0_or_1_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="from 0 or from 1"):
        folder_dataset(folders(tmp_path, ["3", "7"]), None, 12)


def test_numbers_that_are_labels_are_not_counted(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"'3' in .* is no class of the model"):
        folder_dataset(folders(tmp_path, ["1", "2", "3"]), ("0", "1", "2"), 3)


def test_digits_that_are_no_numbers_are_letters(tmp_path: Path) -> None:
    assert labels(folder_dataset(folders(tmp_path, ["a²", "b³"]), None, 2)) == {"a²": 0, "b³": 1}


def test_all_wordnet_numbers_are_in_order(tmp_path: Path) -> None:
    names = ["n01443537", "n01440764"]
    found = folder_dataset(folders(tmp_path, names), ("tench", "goldfish"), 2)
    assert labels(found) == {"n01440764": 0, "n01443537": 1}
    assert "WordNet" in found.source


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.json", '{"a b": 2, "c": 0}'),
        ("map.json", '{"a b": "ant", "c": "Dog"}'),
        ("map.json", '{"2": ["a b", "x"], "0": ["c", "y"]}'),
        ("map.json", '["c", "other", "a b"]'),
        ("map.json", '{"0": "c", "2": "a b"}'),
        ("map.txt", "a b\t2\nc\tdog\n"),
        ("map.csv", "a b,2\nc,0\n"),
        ("map.txt", "\ufeffa b 2\n\nc 0\n"),
        ("map.txt", "c\nother\na b\n"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_class_map_says_the_class_of_each_folder(tmp_path: Path, name: str, text: str, given: bool) -> None:
    root = folders(tmp_path / "images", ["a b", "c"])
    path = tmp_path / (name if given else f"class_map{'.json' if name.endswith('.json') else '.txt'}")
    path.write_text(text, encoding="utf-8")
    found = folder_dataset(root, ("dog", "cat", "ant"), 3, path if given else None)
    assert labels(found) == {"a b": 2, "c": 0}
    assert ("classes by class_map" in found.source) is not given


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("map.json", '{"a b": 2}', "no class for 'c'"),
        ("map.json", '{"a b": 3, "c": 0}', "none of the model's 3"),
        ("map.json", '{"a b": true, "c": 0}', "none of the model's 3"),
        ("map.json", '{"a b": "wolf", "c": 0}', "'wolf'"),
        ("map.json", "1", "no JSON list or object"),
        ("map.json", "{", "no JSON list or object"),
        ("missing.txt", None, "cannot be read"),
    ],
)
def test_class_maps_that_cannot_be_used(tmp_path: Path, name: str, text: str | None, match: str) -> None:
    root = folders(tmp_path / "images", ["a b", "c"])
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument, match=match):
        folder_dataset(root, ("dog", "cat", "ant"), 3, tmp_path / name)


def test_a_class_map_for_no_folders_of_classes(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{}")
    root = folders(tmp_path / "images", ["a"])
    with pytest.raises(InvalidArgument, match="no folders of classes"):
        folder_dataset(root / "a" / "image.png", None, 3, tmp_path / "map.json")


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
