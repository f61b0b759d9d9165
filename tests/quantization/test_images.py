"""What is calibrated on and what is compared on: two sets that share no image."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.errors import ImageError
from sait_deploy.quantization.images import quantization_images
from sait_deploy.quantization.options import CALIBRATION_IMAGES, QuantizeOptions
from tests.exported import draft

ONE = next((demo.IMAGES / "3").iterdir())


def demonstration() -> Manifest:
    return dataclasses.replace(draft(), model=dataclasses.replace(draft().model, name=demo.NAME))


def folder_of(place: Path, count: int) -> Path:
    place.mkdir()
    for number in range(count):
        shutil.copy(ONE, place / f"{number:03d}.png")
    return place


@pytest.mark.parametrize(("count", "calibrating"), [(32, 24), (40, 30), (128, 96), (171, 128), (300, 128)])
def test_a_folder_is_divided(tmp_path: Path, count: int, calibrating: int) -> None:
    images = quantization_images(draft(), QuantizeOptions(images=folder_of(tmp_path / "images", count)))
    first, second = set(images.calibration.images), set(images.held_out.images)
    assert (len(first), len(second), len(first & second)) == (calibrating, count - calibrating, 0)


def test_too_few_images_and_none(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has 31 images, too few") as caught:
        quantization_images(draft(), QuantizeOptions(images=folder_of(tmp_path / "few", 31)))
    assert "32" in caught.value.hint
    with pytest.raises(ImageError, match="no images to calibrate small on") as caught:
        quantization_images(draft(), QuantizeOptions())
    assert "--images" in caught.value.hint


def test_the_demonstration_is_calibrated_on_images_of_its_training_split() -> None:
    images = quantization_images(demonstration(), QuantizeOptions())
    assert len(images.calibration.images) == CALIBRATION_IMAGES
    assert "training" in images.calibration.source
    assert "held-out" in images.held_out.source
    assert images.classes == len(demo.LABELS)


def test_random_weights_need_no_images_of_their_kind() -> None:
    weights = dataclasses.replace(draft().weights, source=WeightsSource.RANDOM)
    images = quantization_images(dataclasses.replace(draft(), weights=weights), QuantizeOptions())
    assert len(images.calibration.images) == CALIBRATION_IMAGES


def test_without_what_composes_images_the_shipped_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    images = quantization_images(demonstration(), QuantizeOptions())
    assert (len(images.calibration.images), len(images.held_out.images)) == (30, 10)
    assert images.calibration.source == "shipped held-out digits"
