"""A linear segmentation head learns what is linear, its figure is the field's, and masks must be the images' own."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.registry import describe
from sait_deploy.training.linear_head import HeadOptions, feature_maps, mean_iou, train_head
from tests.tiny import small_vit

SIZE, GRID, CLASSES = (32, 48), (4, 6), 3
RNG = np.random.default_rng(0)
OPTIONS = HeadOptions(epochs=30, batch=32)


def blocks(count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Features that say the class of each patch, in noise, and masks of whole patches."""
    classes = RNG.integers(CLASSES, size=(count, *GRID))
    features = np.eye(CLASSES, 8)[classes] * 5 + RNG.standard_normal((count, *GRID, 8)) + 100
    return features.astype(np.float32), np.kron(classes, np.ones((1, 8, 8))).astype(np.uint8)


def test_it_learns_what_the_features_say() -> None:
    features, masks = blocks(24)
    head = train_head(features, masks, SIZE, CLASSES, OPTIONS)
    others, their_masks = blocks(8)
    found = head.segment(others, SIZE)
    assert found.shape == their_masks.shape and found.dtype == np.uint8
    # Between patches logits are interpolated: near a patch's middle the patch alone decides.
    middle = (slice(None), slice(4, None, 8), slice(4, None, 8))
    assert (found[middle] == their_masks[middle]).mean() > 0.95
    again = train_head(features, masks, SIZE, CLASSES, OPTIONS).segment(others, SIZE)
    np.testing.assert_array_equal(found, again)
    reordered = train_head(features, masks, SIZE, CLASSES, dataclasses.replace(OPTIONS, seed=1))
    assert not torch.equal(reordered.layer.weight, head.layer.weight)


def test_features_that_say_nothing_give_the_most_frequent_class() -> None:
    _, masks = blocks(8)
    masks[:, 8:] = 2
    found = train_head(np.ones((8, *GRID, 4), np.float32), masks, SIZE, CLASSES, OPTIONS)
    assert (found.segment(np.ones((2, *GRID, 4), np.float32), SIZE) == 2).all()


@pytest.mark.parametrize("kinds", [2, 4])
def test_mean_iou_is_that_of_scikit_learn(kinds: int) -> None:
    found, masks = (RNG.integers(kinds, size=(5, 6, 7)).astype(np.uint8) for _ in range(2))
    assert mean_iou(found, masks, 4) == pytest.approx(jaccard_score(masks.ravel(), found.ravel(), average="macro"))


def test_maps_are_the_patches_in_their_rows() -> None:
    info = describe(small_vit(img_size=(32, 64), patch_size=8), "small", WeightsSource.FILE, "w.pth").info
    assert info.grid == (4, 8)
    tokens = np.arange(2 * 33, dtype=np.float32).reshape(2, 33, 1)
    maps = feature_maps([tokens, -tokens], info)
    assert maps.shape == (2, 4, 8, 2)
    assert maps[1, 2, 3].tolist() == [33 + 1 + 2 * 8 + 3, -(33 + 1 + 2 * 8 + 3)]


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (np.zeros((3, 32, 32), np.uint8), r"masks are uint8 \[3, 32, 32\], and their images uint8 \[3, 32, 48\]"),
        (np.zeros((2, *SIZE), np.uint8), r"uint8 \[2, 32, 48\]"),
        (np.zeros((3, *SIZE, 3), np.uint8), r"uint8 \[3, 32, 48, 3\]"),
        (np.zeros((3, *SIZE), np.int64), "masks are int64"),
        (np.full((3, *SIZE), CLASSES, np.uint8), "a mask has class 3, and the head 3 classes"),
    ],
)
def test_masks_of_another_shape_are_refused(masks: NDArray[Any], said: str) -> None:
    features, _ = blocks(3)
    with pytest.raises(InvalidArgument, match=said) as caught:
        train_head(features, masks, SIZE, CLASSES)
    assert caught.value.hint


def test_patches_that_do_not_fill_the_masks_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="4 × 6 patches do not fill masks of 30 × 48"):
        train_head(np.zeros((1, *GRID, 2), np.float32), np.zeros((1, 30, 48), np.uint8), (30, 48), CLASSES)
