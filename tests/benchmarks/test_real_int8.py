"""Features of the real tower by int8 artifacts, on a small model in its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import real_int8
from benchmarks.real_folds import Fold
from benchmarks.real_prepared import Prepared
from sait_deploy.images.preprocess import preprocess
from tests.evaluation.blotches import noise, small


def fold_of(number: int, folder: Path) -> Fold:
    """A fold of a few composites of which nothing else was computed."""
    pixels = np.stack(noise(80 + number).images)
    count = len(pixels)
    tokens, importance = np.zeros((count, 17, 32), np.float16), np.zeros((count, 1, 16), np.float32)
    return Fold(number, ("one.jpg",), pixels, np.arange(count), tokens, importance, folder)


@pytest.mark.slow
def test_int8_features_are_close_to_the_float_models_and_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_int8, "PRUNE_AT", 1)
    monkeypatch.setattr(real_int8, "CALIBRATED_ON", 80)
    model, folds, told = small(num_classes=0), [fold_of(n, tmp_path) for n in (0, 1)], []
    prepared = Prepared(
        model, [], folds, lambda *_: pytest.fail("not asked"), model.preprocessing, "fp32", tmp_path,
        lambda what, _: told.append(what),
    )  # fmt: skip
    asked = np.array([1, 4, 6])

    dense, pruned = real_int8.int8_features(prepared, folds[0], asked, Decimal("0.5"))

    with torch.inference_mode():
        images = preprocess(list(folds[0].pixels[asked]), model.preprocessing)
        whole = model.vit(torch.from_numpy(images)).numpy()
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    assert ((dense * whole).sum(1) > 0.99).all()
    assert ((pruned * whole).sum(1) > 0.5).all() and not np.allclose(pruned, dense, atol=1e-3)
    before, again = len(told), real_int8.int8_features(prepared, folds[0], asked, Decimal("0.5"))
    assert len(told) == before, "kept features are read"
    np.testing.assert_array_equal(again[1], pruned)
