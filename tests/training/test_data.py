"""Training data: folders in both layouts, images of every mode, what is wrong with a folder, and the order."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.demo.data import Split, compose_many
from sait_deploy.errors import ImageError, InvalidArgument, SaitError
from sait_deploy.images.preprocess import normalised, preprocess
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.training.data import (
    VALIDATION_SEED,
    EpochSampler,
    TrainingData,
    data_classes,
    loader_of,
    open_data,
)
from sait_deploy.training.options import Augmentation, DataOptions
from tests.training.small import COLOURS, small_model, square_folder, squares


@pytest.fixture
def model() -> LoadedModel:
    return small_model()


def opened(options: DataOptions, model: LoadedModel, seed: int = 0) -> TrainingData:
    return open_data(options, model.info.classes, model.preprocessing, seed)


def of_folder(root: Path, **options: object) -> DataOptions:
    return DataOptions(str(root), **{"augmentation": Augmentation.NONE, **options})  # type: ignore[arg-type]


def items(dataset: object) -> list[tuple[Tensor, int]]:
    return [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type, index]


def test_a_folder_of_train_and_val(tmp_path: Path, model: LoadedModel) -> None:
    data = opened(of_folder(squares(tmp_path, 4, 2)), model)
    assert data.class_names == tuple(COLOURS)
    assert (data.classes, data.images) == (3, 12)
    assert data.source == str(tmp_path / "train")
    assert Counter(label for _, label in items(data.train)) == {0: 4, 1: 4, 2: 4}
    assert Counter(label for _, label in items(data.validation)) == {0: 2, 1: 2, 2: 2}
    assert data_classes(of_folder(tmp_path)) == 3


def test_a_flat_folder_with_validation_of_its_own(tmp_path: Path, model: LoadedModel) -> None:
    square_folder(tmp_path / "all", 3)
    square_folder(tmp_path / "held out", 1, seed=1)
    data = opened(of_folder(tmp_path / "all", validation=tmp_path / "held out"), model)
    assert (len(items(data.train)), len(items(data.validation))) == (9, 3)
    assert data.source == str(tmp_path / "all")


@pytest.mark.parametrize("name", ["val", "validation"])
def test_named_validation_goes_before_that_of_the_folder(tmp_path: Path, model: LoadedModel, name: str) -> None:
    square_folder(tmp_path / "train", 3)
    square_folder(tmp_path / name, 2, seed=1)
    square_folder(tmp_path / "other", 1, seed=2)
    assert len(items(opened(of_folder(tmp_path), model).validation)) == 6
    assert len(items(opened(of_folder(tmp_path, validation=tmp_path / "other"), model).validation)) == 3


def test_a_train_folder_alone_needs_validation(tmp_path: Path, model: LoadedModel) -> None:
    square_folder(tmp_path / "train", 2)
    square_folder(tmp_path.with_name(f"{tmp_path.name}-val"), 2)
    with pytest.raises(InvalidArgument, match="no validation images were named") as refused:
        opened(of_folder(tmp_path), model)
    assert refused.value.hint == "give --val"
    data = opened(of_folder(tmp_path, validation=tmp_path.with_name(f"{tmp_path.name}-val")), model)
    assert data.source == str(tmp_path / "train")


def test_images_are_scaled_as_the_deployed_model_sees_them(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 2, 2)
    data = opened(of_folder(tmp_path), model)
    for part, dataset in (("train", data.train), ("val", data.validation)):
        for path, (image, label) in zip(sorted((tmp_path / part).rglob("*.png")), items(dataset), strict=True):
            expected = preprocess(path, model.preprocessing)[0]
            assert image.dtype == torch.float32
            assert list(COLOURS)[label] == path.parent.name
            # timm rounds the size before the crop otherwise than deployment does, by a pixel at most.
            assert np.abs(image.numpy() - expected).mean() < (1e-6 if part == "val" else 0.2)


@pytest.mark.parametrize("augmentation", Augmentation)
def test_augmentation(tmp_path: Path, model: LoadedModel, augmentation: Augmentation) -> None:
    squares(tmp_path, 2, 1)
    train = opened(of_folder(tmp_path, augmentation=augmentation), model).train
    seen = []
    for _ in range(4):
        image, _ = train[0]
        assert image.shape == (3, 32, 32)
        assert image.dtype == torch.float32
        assert torch.isfinite(image).all()
        seen.append(image)
    varied = any(not torch.equal(seen[0], other) for other in seen[1:])
    assert varied == (augmentation is not Augmentation.NONE)


def test_grey_transparent_and_palette_images(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 1, 1)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 24, 3), dtype=np.uint8)
    whole = Image.fromarray(pixels)
    whole.convert("L").save(tmp_path / "train" / "red" / "grey.png")
    whole.convert("1").save(tmp_path / "train" / "red" / "bits.png")
    whole.convert("RGBA").save(tmp_path / "train" / "red" / "transparent.png")
    whole.convert("P").save(tmp_path / "train" / "red" / "palette.png", transparency=b"\x00\x80")
    whole.convert("LA").save(tmp_path / "train" / "red" / "grey with alpha.png")
    whole.convert("I;16").save(tmp_path / "train" / "red" / "deep.png")
    whole.convert("CMYK").save(tmp_path / "train" / "red" / "inks.jpg")
    for part in ("train", "val"):
        if part == "val":
            shutil.rmtree(tmp_path / "val")
            shutil.copytree(tmp_path / "train", tmp_path / "val")
        data = opened(of_folder(tmp_path, augmentation=Augmentation.STANDARD), model)
        found = items(data.train if part == "train" else data.validation)
        assert len(found) == 10
        assert all(image.shape == (3, 32, 32) and torch.isfinite(image).all() for image, _ in found)


def test_validation_images_are_spread_over_all_classes(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 1, 8)
    data = opened(of_folder(tmp_path, validation_images=6), model)
    assert Counter(label for _, label in items(data.validation)) == {0: 2, 1: 2, 2: 2}
    assert len(items(opened(of_folder(tmp_path, validation_images=1), model).validation)) == 1
    assert len(items(opened(of_folder(tmp_path, validation_images=99), model).validation)) == 24


def refuse(options: DataOptions, model: LoadedModel) -> SaitError:
    with pytest.raises(SaitError) as refused:
        opened(options, model)
    assert "\n" not in refused.value.message
    assert refused.value.hint
    return refused.value


def test_a_folder_that_is_not_there(tmp_path: Path, model: LoadedModel) -> None:
    error = refuse(of_folder(tmp_path / "nowhere"), model)
    assert isinstance(error, ImageError)
    assert str(tmp_path / "nowhere") in error.message


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_folder(tmp_path: Path, model: LoadedModel, part: str) -> None:
    squares(tmp_path, 1, 1)
    shutil.rmtree(tmp_path / part)
    (tmp_path / part).mkdir()
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, ImageError)
    assert f"folder {tmp_path / part} holds no image" in error.message


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_class(tmp_path: Path, model: LoadedModel, part: str) -> None:
    squares(tmp_path, 1, 1)
    shutil.rmtree(tmp_path / part / "green")
    (tmp_path / part / "green").mkdir()
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, ImageError)
    assert error.message == f"class folder {tmp_path / part / 'green'} holds no image"


@pytest.mark.parametrize("place", ["loose.png", "red/deeper/image.png"])
def test_images_outside_the_classes_folders(tmp_path: Path, model: LoadedModel, place: str) -> None:
    squares(tmp_path, 1, 1)
    (tmp_path / "train" / place).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "train" / "red" / "000.png", tmp_path / "train" / place)
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, ImageError)
    assert "do not all lie in one subfolder per class" in error.message


def test_one_class(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 1, 1)
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / "green")
        shutil.rmtree(tmp_path / part / "blue")
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, InvalidArgument)
    assert error.message == f"{tmp_path / 'train'} has one class only, 'red'"
    with pytest.raises(InvalidArgument, match="one class only"):
        data_classes(of_folder(tmp_path))


@pytest.mark.parametrize("classes", [2, 4, 1000, 0])
def test_other_classes_than_the_models(tmp_path: Path, classes: int) -> None:
    squares(tmp_path, 1, 1)
    error = refuse(of_folder(tmp_path), small_model(num_classes=classes))
    assert isinstance(error, InvalidArgument)
    assert error.message == f"{tmp_path / 'train'} has 3 classes, the model {classes}"
    assert "--new-head" in error.hint


@pytest.mark.parametrize("name", ["red\n", "r\x1b[31med", "red\udcff"], ids=ascii)
def test_a_class_that_cannot_be_printed(tmp_path: Path, model: LoadedModel, name: str) -> None:
    squares(tmp_path, 1, 1)
    try:
        (tmp_path / "train" / "red").rename(tmp_path / "train" / name)
    except OSError:
        pytest.skip("no folder can have that name here")
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, InvalidArgument)
    assert error.message == f"class folder {name!r} in {tmp_path / 'train'} has no name that can be printed"


def test_classes_are_called_whatever_can_be_written(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 1, 1)
    for part in ("train", "val"):
        (tmp_path / part / "red").rename(tmp_path / part / "می\u200cشود\u3000猫")
    assert opened(of_folder(tmp_path), model).class_names == ("blue", "green", "می\u200cشود\u3000猫")


def test_validation_of_other_classes(tmp_path: Path, model: LoadedModel) -> None:
    squares(tmp_path, 1, 1)
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "rot")
    error = refuse(of_folder(tmp_path), model)
    assert isinstance(error, InvalidArgument)
    assert "other classes" in error.message
    assert "red" in error.message and "rot" in error.message


def test_demo_data_and_a_model_of_other_classes(model: LoadedModel) -> None:
    error = refuse(DataOptions(), model)
    assert error.message == "the demonstration's data has 10 classes, the model 3"
    assert data_classes(DataOptions()) == 10


def test_demo_data() -> None:
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    data = opened(DataOptions(epoch_images=5, validation_images=4), model)
    data.start(0)
    first = items(data.train)
    assert len(first) == 5
    assert first[0][0].shape == (3, 96, 96)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, items(data.train), strict=True))
    data.start(1)
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first, items(data.train), strict=True))
    data.start(0)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, items(data.train), strict=True))
    other = items(opened(DataOptions(epoch_images=5, validation_images=4), model, seed=1).train)
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))
    assert data.class_names == demo.LABELS
    images, labels = compose_many(Split.HELD_OUT, 4, VALIDATION_SEED)
    wanted = preprocess(images, model.preprocessing)
    for (image, label), expected, known in zip(items(data.validation), wanted, labels, strict=True):
        assert np.array_equal(image.numpy(), expected)
        assert label == known


def test_the_demonstrations_training_images_look_as_its_validation_images_do() -> None:
    """The one kind is normalised without being resized, the other by the deployed preprocessing."""
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    data = opened(DataOptions(epoch_images=100, validation_images=100), model)
    train, validation = (torch.stack([image for image, _ in items(part)]) for part in (data.train, data.validation))
    black = float(normalised(np.zeros((1, 1, 1, 3), dtype=np.uint8), model.preprocessing).min())
    assert float(train.min()) == float(validation.min()) == black
    assert abs(float(train.mean() - validation.mean())) < 0.3
    assert abs(float(train.std() - validation.std())) < 0.3


def order(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.epoch = epoch
    return list(sampler)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(50, seed=3)
    assert sorted(order(sampler, 0)) == list(range(50))
    assert order(sampler, 0) == order(EpochSampler(50, seed=3), 0)
    assert len({tuple(order(sampler, epoch)) for epoch in range(5)}) == 5
    assert order(sampler, 1) == order(EpochSampler(50, seed=3), 1)
    assert order(EpochSampler(50, seed=4), 0) != order(sampler, 0)
    assert len(sampler) == 50


def test_batches_follow_the_sampler_and_are_whole(tmp_path: Path, model: LoadedModel) -> None:
    data = opened(of_folder(squares(tmp_path, 5, 2)), model)
    data.start(2)
    labels = [int(label) for _, batch in loader_of(data.train, 4, 0, data.sampler) for label in batch]
    assert labels == [index // 5 for index in order(data.sampler, 2)][:12]
    few = [len(batch) for _, batch in loader_of(data.train, 64, 0, data.sampler)]
    assert few == [15], "fewer images than a batch has are a batch of their own"
    assert [len(batch) for _, batch in loader_of(data.validation, 4, 0)] == [4, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_compose_the_images_of_their_epoch(workers: int) -> None:
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    data = opened(DataOptions(epoch_images=4, validation_images=1), model)
    loader = loader_of(data.train, 2, workers, data.sampler)
    for epoch in (0, 1):
        data.start(epoch)
        expected = [data.train[index] for index in data.sampler]
        found = [pair for images, labels in loader for pair in zip(images, labels.tolist(), strict=True)]
        for (image, label), (wanted, known) in zip(found, expected, strict=True):
            assert torch.equal(image, wanted)
            assert label == known
