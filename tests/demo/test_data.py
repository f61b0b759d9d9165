"""The demonstration's data: composed from split digits, the same every time; and its model is what the report says."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sait_deploy import demo
from sait_deploy.demo.data import (
    CANVAS,
    CLASSES,
    CanvasOptions,
    Sources,
    Split,
    compose,
    compose_many,
    compose_scene,
    compose_scenes,
    load_sources,
    stacked,
    stacked_masks,
)
from sait_deploy.images.dataset import evaluation_dataset, shipped_dataset


def test_splits_share_no_source_digit() -> None:
    train, held_out = load_sources(Split.TRAIN), load_sources(Split.HELD_OUT)
    seen = {digit.tobytes() for digit in train.pixels}
    assert len(train.pixels) + len(held_out.pixels) == 1797
    assert sum(digit.tobytes() in seen for digit in held_out.pixels) == 0
    assert set(held_out.labels) == set(train.labels) == set(range(CLASSES))
    assert all((part.pixels.min(), part.pixels.max()) == (0, 1) for part in (train, held_out))


def test_splits_share_no_photograph() -> None:
    train, held_out = (load_sources(split).photographs for split in Split)
    assert len(train) >= 8 and len(held_out) >= 4
    assert len({photograph.tobytes() for photograph in (*train, *held_out)}) == len(train) + len(held_out)
    assert all(photograph.mode == "L" and min(photograph.size) >= CANVAS for photograph in (*train, *held_out))


def test_the_same_seed_composes_the_same_images() -> None:
    images, labels = compose_many(Split.HELD_OUT, 6, seed=3)
    again, labels_again = compose_many(Split.HELD_OUT, 6, seed=3)
    other, _ = compose_many(Split.HELD_OUT, 6, seed=4)
    assert images.shape == (6, CANVAS, CANVAS, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(images, other)


PLAIN: dict[str, Any] = {"fragments": (0, 0), "noise": (0.0, 0.0), "background": (0.0, 0.0), "photograph": 0.0}


def bright(options: CanvasOptions) -> float:
    """The share of pixels that are bright, over forty images."""
    images, _ = compose_many(Split.TRAIN, 40, 0, options)
    return float((images[..., 0] > 100).mean())


def test_size_and_clutter_vary() -> None:
    """Without clutter or noise the bright area follows the digit's size, and fragments add to it."""
    small, large = (CanvasOptions(digit_scale=(scale, scale), **PLAIN) for scale in (2.5, 6.0))
    cluttered = dataclasses.replace(small, fragments=(8, 8), fragment_scale=(5.0, 5.0))
    assert bright(large) > 3 * bright(small)
    assert bright(cluttered) > 2 * bright(small)


def test_copies_are_more_digits_of_the_same_class() -> None:
    one = CanvasOptions(digit_scale=(2.5, 2.5), **PLAIN)
    assert bright(dataclasses.replace(one, copies=(4, 4))) > 2.5 * bright(one)
    sources = load_sources(Split.TRAIN)
    # Each class in an intensity of its own: what shines tells which digits an image is made of.
    shades = (0.3 + 0.05 * sources.labels).astype(np.float32)
    flat = Sources(np.ones_like(sources.pixels) * shades[:, None, None], sources.labels, sources.photographs)
    options = CanvasOptions(digit_intensity=(1.0, 1.0), copies=(3, 3), **{**PLAIN, "background": (-1.0, -1.0)})
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, label = compose(flat, rng, options)
        assert set(np.unique(pixels)) <= {0, int((0.3 + 0.05 * label) * 255 + 0.5)}


def test_photographs_are_backgrounds_of_the_contrast_asked_for() -> None:
    options = {"digit_intensity": (0.0, 0.0), **PLAIN, "photograph": 1.0}
    seen = []
    for contrast in (0.1, 0.5):
        images, _ = compose_many(Split.HELD_OUT, 20, 0, CanvasOptions(**options, photograph_contrast=(contrast,) * 2))
        assert images.max() <= 255 * contrast + 1
        assert float(np.mean([image.std() for image in images])) > 20 * contrast
        seen.append(float(images.mean()))
    assert seen[1] == pytest.approx(5 * seen[0], rel=0.05)


def test_a_photograph_stands_behind_about_half_of_the_images() -> None:
    """Without noise a plain background is a ramp, whose second difference is nothing but rounding."""
    options = CanvasOptions(digit_intensity=(0.0, 0.0), fragments=(0, 0), noise=(0.0, 0.0), background=(0.4, 0.5))
    images, _ = compose_many(Split.TRAIN, 200, 0, options)
    bent = np.abs(np.diff(images[..., 0].astype(int), n=2, axis=1)).max(axis=(1, 2)) > 2
    assert 0.38 < float(bent.mean()) < 0.62


def test_a_scene_says_what_it_was_composed_of() -> None:
    options = CanvasOptions(fragments=(2, 9), digit_scale=(3.0, 5.0), noise=(0.0, 0.0), photograph=0.3)
    scenes = compose_scenes(Split.TRAIN, 60, 7, options)
    images, labels = compose_many(Split.TRAIN, 60, 7, options)
    assert np.array_equal(stacked(scenes)[0], images)
    assert np.array_equal(stacked(scenes)[1], labels)
    assert all(3 <= scene.digit_scale <= 5 and 2 <= scene.fragments <= 9 for scene in scenes)
    assert len({scene.fragments for scene in scenes}) > 4
    assert 0.1 < np.mean([scene.photograph for scene in scenes]) < 0.5
    rng, again = np.random.default_rng(7), np.random.default_rng(7)
    sources = load_sources(Split.TRAIN)
    for _ in range(3):
        pixels, label = compose(sources, rng, options)
        scene = compose_scene(sources, again, options)
        assert np.array_equal(pixels, scene.pixels)
        assert label == scene.label


def test_the_size_that_a_scene_tells_is_that_of_its_digit() -> None:
    scenes = compose_scenes(Split.TRAIN, 80, 0, CanvasOptions(**PLAIN))
    areas = [float((scene.pixels > 100).mean()) for scene in scenes]
    assert np.corrcoef(areas, [scene.digit_scale**2 for scene in scenes])[0, 1] > 0.8


@pytest.mark.parametrize("split", Split)
def test_the_largest_digit_still_fits(split: Split) -> None:
    images, _ = compose_many(split, 5, 0, CanvasOptions(digit_scale=(12.0, 12.0), fragment_scale=(12.0, 12.0)))
    assert images.shape == (5, CANVAS, CANVAS, 3)


def test_shipped_images_are_labelled_and_of_the_model_s_size() -> None:
    shipped = shipped_dataset(demo.NAME)
    assert shipped.labels is not None
    assert np.bincount(shipped.labels).tolist() == [4] * CLASSES
    sizes = {Image.open(str(path)).size for path in shipped.images}
    assert sizes == {(CANVAS, CANVAS)}


def test_the_evaluation_images_are_composed_ones_where_scikit_learn_is_installed() -> None:
    found = evaluation_dataset(demo.NAME)
    assert found.labels is not None
    assert len(found.images) == len(found.labels) == 1000
    assert "composed" in found.source


def test_other_models_get_photographs_without_labels() -> None:
    found = evaluation_dataset("deit_small_patch16_224")
    assert found.labels is None
    assert len(found.images) == 6


@pytest.mark.slow
def test_the_shipped_model_is_as_right_as_its_report_says() -> None:
    """Dense and pruned, on the report's own images: answers differ where processors round otherwise, no more."""
    from sait_deploy.artifacts.manifest import WeightsSource
    from sait_deploy.evaluation.evaluate import evaluate
    from sait_deploy.evaluation.options import EvaluateOptions
    from sait_deploy.models.registry import WeightsRequest, load_model

    said = json.loads(demo.REPORT.read_text(encoding="utf-8"))["held_out"]
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    options = EvaluateOptions(densities=(Decimal("0.3"),), lower_resolutions=(), threads=1)
    found = evaluate(model, options=options)
    assert found.images == said["images"]
    for row in found.rows:
        assert row.top1_percent == pytest.approx(said["top1_percent"][row.id], abs=0.5)
        assert row.top1_percent is not None and row.top1_percent > 80


@pytest.mark.parametrize("copies", [1, 2])
def test_masks_are_the_strokes_of_whole_digits_and_no_clutter(copies: int) -> None:
    plain = {**PLAIN, "copies": (copies, copies), "digit_intensity": (1.0, 1.0), "digit_scale": (2.0, 4.0)}
    scenes = compose_scenes(Split.HELD_OUT, 8, 3, CanvasOptions(**plain))
    masks = stacked_masks(scenes)
    assert masks.shape == (8, CANVAS, CANVAS) and masks.dtype == np.uint8
    for scene, mask in zip(scenes, masks, strict=True):
        assert set(np.unique(mask)) == {0, scene.label + 1}
        assert np.array_equal(scene.mask, mask > 0)
        assert scene.pixels[scene.mask].min() >= 63  # a quarter of full intensity, on a background that is never bright
        assert scene.pixels[~scene.mask].max() < 110
    cluttered = compose_scenes(Split.HELD_OUT, 8, 3, CanvasOptions(**{**plain, "fragments": (6, 6)}))
    assert all((scene.pixels[~scene.mask] > 80).any() for scene in cluttered)
