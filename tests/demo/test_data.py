"""The demonstration's data: composed from split digits, the same every time; and its model is what the report says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sait_deploy import demo
from sait_deploy.dataset import evaluation_dataset, shipped_dataset
from sait_deploy.demo.data import CANVAS, CLASSES, CanvasOptions, Split, compose_many, load_digits
from sait_deploy.preprocess import normalised


def test_splits_share_no_source_digit() -> None:
    train, held_out = load_digits(Split.TRAIN), load_digits(Split.HELD_OUT)
    seen = {digit.tobytes() for digit in train.pixels}
    assert len(train.pixels) + len(held_out.pixels) == 1797
    assert sum(digit.tobytes() in seen for digit in held_out.pixels) == 0
    assert set(held_out.labels) == set(range(CLASSES))


def test_the_same_seed_composes_the_same_images() -> None:
    images, labels = compose_many(Split.HELD_OUT, 6, seed=3)
    again, labels_again = compose_many(Split.HELD_OUT, 6, seed=3)
    other, _ = compose_many(Split.HELD_OUT, 6, seed=4)
    assert images.shape == (6, CANVAS, CANVAS, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(images, other)


def test_size_and_clutter_vary() -> None:
    """Without clutter or noise the bright area follows the digit's size, and fragments add to it."""
    plain = {"fragments": (0, 0), "noise": (0.0, 0.0), "background": (0.0, 0.0)}
    areas = {}
    for name, options in {
        "small": CanvasOptions(digit_scale=(2.5, 2.5), **plain),
        "large": CanvasOptions(digit_scale=(6.0, 6.0), **plain),
        "cluttered": CanvasOptions(digit_scale=(2.5, 2.5), **{**plain, "fragments": (8, 8)}),
    }.items():
        images, _ = compose_many(Split.TRAIN, 40, 0, options)
        areas[name] = float((images[..., 0] > 100).mean())
    assert areas["large"] > 3 * areas["small"]
    assert areas["cluttered"] > 2 * areas["small"]


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
    import torch

    from sait_deploy.manifest import WeightsSource
    from sait_deploy.zoo import WeightsRequest, load_model

    report = json.loads(demo.REPORT.read_text(encoding="utf-8"))
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    count, options = 1000, report["cycles"][-1]["options"]
    pixels, labels = compose_many(Split.HELD_OUT, count, options["evaluation_seed"])
    with torch.inference_mode():
        batches = torch.from_numpy(normalised(pixels, model.preprocessing)).split(100)
        answers = np.concatenate([model.vit(batch).argmax(1).numpy() for batch in batches])
    top1 = 100.0 * float((answers == labels).mean())
    # Half of the report's images: three standard errors of a proportion are about 4.5 points.
    assert abs(top1 - report["held_out"]["top1_percent"]) < 4.5
    assert top1 > 50.0
