"""Images in, classes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.runtime import Output, Runner, load
from sait_deploy.runtime.answers import predictions
from tests.exported import CLASSES, TinyExport
from tests.runtime.cases import GOOD, KEPT, ONE_THREAD, SHAPE


def test_images_are_prepared_as_the_manifest_says(runner: Runner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    batch = runner.preprocess([pixels, pixels])
    assert batch.shape == (2, *SHAPE) and batch.dtype == np.float32
    assert runner.preprocess(pixels).shape == (1, *SHAPE)
    np.testing.assert_array_equal(runner.preprocess(pixels)[0], batch[1])


def test_predictions_are_the_likeliest_classes(runner: Runner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    found = runner.predict(list(pixels), top=3)
    logits = runner.run(runner.preprocess(list(pixels))).logits.astype(np.float64)
    for prediction, row in zip(found, logits, strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        order = np.argsort(-row)[:3]
        assert prediction.labels == tuple(str(i) for i in order)
        np.testing.assert_allclose(prediction.probabilities, probabilities[order], rtol=1e-4)
        assert prediction.kept == KEPT
    everything = runner.predict(pixels[0], top=100)[0]
    assert len(everything.labels) == CLASSES
    assert sum(everything.probabilities) == pytest.approx(1, abs=1e-5)


def with_model(artifact: Artifact, **changes: Any) -> Manifest:
    model = dataclasses.replace(artifact.manifest.model, **changes)
    return dataclasses.replace(artifact.manifest, model=model)


def test_predictions_bear_the_labels_of_the_manifest(tiny: TinyExport) -> None:
    labels = ("ape", "bee", "cat", "dog", "eel")
    logits = np.array([[0, 1, 5, 2, 3]], dtype=np.float32)
    output = Output(logits, np.array([7], dtype=np.int32))
    (found,) = predictions(with_model(tiny.half, labels=labels), output, 3)
    assert (found.labels, found.kept) == (("cat", "eel", "dog"), 7)


def test_huge_logits_have_probabilities_too(tiny: TinyExport) -> None:
    logits = np.array([[1e30, -1e30, 0, 0, 1e4]], dtype=np.float32)
    (found,) = predictions(tiny.half.manifest, Output(logits, np.array([7], dtype=np.int32)), 5)
    assert found.probabilities[0] == 1.0
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize("top", [-1, 0, True, 2.5, None])
def test_how_many_classes_is_one_or_more(tiny: TinyExport, top: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"top {top!r} is no number of classes"):
        load(tiny.half, options=ONE_THREAD).predict(np.zeros((96, 96, 3), dtype=np.uint8), top)


def test_a_headless_model_predicts_nothing(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match="headless"):
        predictions(with_model(tiny.half, classes=0), Output(GOOD[:, 0, 0], np.ones(2, np.int32)), 5)


def test_an_image_that_is_none_is_refused(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError, match=r"text\.png"):
        runner.predict([tmp_path / "text.png"])
