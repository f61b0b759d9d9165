"""The demonstration's further tasks: labels, sources kept apart, the same images for the same seed, refusals."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sait_deploy import demo
from sait_deploy.demo.data import CANVAS, CanvasOptions, Sources, Split, load_sources, stacked
from sait_deploy.demo.fashion import CLASSES, Goods, read_goods
from sait_deploy.demo.goods import GoodsOptions, compose_goods
from sait_deploy.demo.many import ManyOptions, compose_many_digits
from sait_deploy.demo.tasks import GOODS, MANY, TASKS, composed_scenes, composer_of
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.preprocess import list_images
from sait_deploy.training.options import DataOptions

PLAIN = CanvasOptions(photograph=0.0, fragments=(0, 0), noise=(0.0, 0.0), background=(0.0, 0.0))


def flat_digits() -> Sources:
    """Ten digits, each a full square as bright as its value."""
    values = np.arange(10, dtype=np.float32)
    return Sources(np.tile(((values + 1) / 10)[:, None, None], (1, 8, 8)), np.arange(10), ())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_label_is_the_largest_of_the_digits_and_stands_there_once(seed: int) -> None:
    canvas = CanvasOptions(
        photograph=0.0, fragments=(0, 0), noise=(0.0, 0.0), background=(0.0, 0.0), digit_intensity=(1.0, 1.0)
    )
    scene = compose_many_digits(flat_digits(), np.random.default_rng(seed), ManyOptions(canvas=canvas))
    assert 1 <= scene.digits <= 6
    assert scene.pixels.shape == (CANVAS, CANVAS) and scene.pixels.dtype == np.uint8
    brightness = 255 * (scene.label + 1) / 10
    assert scene.pixels.max() <= max(brightness, 255 * 0.31) + 1  # shades are up to 0.3
    if scene.label >= 4:
        bright = scene.pixels >= brightness - 1
        rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
        assert len(rows) == len(columns) <= 32
        assert bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_classes_are_equally_frequent_whatever_the_number_of_digits() -> None:
    scenes = [compose_many_digits(load_sources(Split.TRAIN), np.random.default_rng(i)) for i in range(600)]
    for digits in (1, 6):
        found = np.bincount([scene.label for scene in scenes if scene.digits == digits], minlength=10)
        assert found.max() <= 3 * found.mean()
    areas = [np.mean([scene.area for scene in scenes if scene.digits == digits]) for digits in range(1, 7)]
    assert areas == sorted(areas) and areas[-1] > 4 * areas[0]


def goods() -> Goods:
    """Product images that are full squares, each of its class's brightness."""
    pixels = np.tile((np.arange(10, dtype=np.uint8) * 10 + 150)[:, None, None], (1, 28, 28))
    return Goods(pixels, np.arange(10, dtype=np.uint8))


def test_a_product_takes_its_share_of_the_frame() -> None:
    options = GoodsOptions(canvas=PLAIN, intensity=(1.0, 1.0))
    for seed in range(30):
        scene = compose_goods(goods(), load_sources(Split.TRAIN), np.random.default_rng(seed), options)
        assert 0.2 <= scene.share <= 0.8
        assert (scene.pixels == 150 + 10 * scene.label).sum() == round(scene.share * CANVAS) ** 2


@pytest.mark.parametrize("name", ["digits", "many"])
def test_the_same_seed_composes_the_same_images(name: str) -> None:
    images, labels = stacked(composed_scenes(TASKS[name], Split.HELD_OUT, 4, seed=3))
    again, labels_again = stacked(composed_scenes(TASKS[name], Split.HELD_OUT, 4, seed=3))
    other, _ = stacked(composed_scenes(TASKS[name], Split.TRAIN, 4, seed=3))
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    assert not np.array_equal(images, other)


def test_every_task_is_a_source_of_training_images() -> None:
    assert {DataOptions(task.source).task for task in TASKS.values()} == set(TASKS.values())
    assert DataOptions("photographs").task is None
    assert len(MANY.labels) == len(GOODS.labels) == len(CLASSES) == 10


def test_goods_without_a_folder_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="its folder is not named"):
        composer_of(GOODS, Split.TRAIN)


def test_other_files_than_those_of_fashion_mnist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no .*t10k-images-idx3-ubyte\.gz"):
        read_goods(tmp_path, Split.HELD_OUT)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 100))
    with pytest.raises(ImageError, match="another SHA-256"):
        read_goods(tmp_path, Split.HELD_OUT)
    for content in (b"no gzip", gzip.compress(b"\0" * 100)[:-12]):
        path.write_bytes(content)
        with pytest.raises(ImageError, match="cannot be read"):
            read_goods(tmp_path, Split.HELD_OUT)


def test_the_shipped_goods_are_as_many_of_each_class_and_their_licence_lies_beside_them() -> None:
    found = list_images(demo.GOODS_IMAGES)
    assert found.classes is not None and sorted(found.classes) == sorted(CLASSES)
    assert np.bincount(np.array(found.labels)).tolist() == [24] * 10
    assert all(np.asarray(Image.open(path)).shape == (CANVAS, CANVAS) for path in found.paths)
    assert "MIT licence" in (demo.GOODS_IMAGES / "NOTICE.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in demo.GOODS_IMAGES.rglob("*") if path.is_file()) < 1_000_000
