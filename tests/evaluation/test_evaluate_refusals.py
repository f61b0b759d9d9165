"""Evaluations of folders of images; data, sizes, points and options that cannot be evaluated."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.images.dataset import folder_dataset
from tests.evaluation.blotches import grouped, noise, small
from tests.tiny import HALF

NO_RIVAL = EvaluateOptions(lower_resolutions=())


def test_images_of_other_modes_in_folders_of_the_classes(tmp_path: Path) -> None:
    loaded = small(num_classes=2)
    for name, mode in (("0", "L"), ("1", "RGBA")):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(1, 64).images[0]).convert(mode).save(tmp_path / name / "image.png")  # type: ignore[arg-type]

    found = evaluate(loaded, folder_dataset(tmp_path, None, 2), NO_RIVAL)

    assert (found.images, found.labelled) == (2, True)


def test_folders_that_are_no_classes_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "cats" / "image.png")

    found = evaluate(small(), folder_dataset(tmp_path, None, 10), NO_RIVAL)

    assert not found.labelled
    assert any("1 subfolders are not the model's 10 classes" in note.text for note in found.notes)


def test_a_damaged_image_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    with pytest.raises(ImageError, match=r"bad\.png"):
        evaluate(small(), folder_dataset(tmp_path, None, 10), NO_RIVAL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": []}, "no images"),
        ({"labels": np.array([0, 1, 10])}, "label 10"),
        ({"labels": np.array([0, -1, 2])}, "label -1"),
    ],
)
def test_data_that_cannot_be_used_is_refused(change: dict[str, object], said: str) -> None:
    dataset = dataclasses.replace(noise(3), **change)  # type: ignore[arg-type]

    with pytest.raises(InvalidArgument, match=said):
        evaluate(small(), dataset, NO_RIVAL)


def test_groups_of_other_images_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="by size is of 2 images, not of 3"):
        evaluate(small(), noise(3), NO_RIVAL, groupings=[grouped("size", ["a", "b"])])


@pytest.mark.parametrize("height", [12, 32, 40])
def test_a_lower_resolution_that_is_none_is_refused(height: int) -> None:
    with pytest.raises(InvalidArgument, match=f"lower resolution {height}"):
        evaluate(small(), noise(3), EvaluateOptions(lower_resolutions=(height,)))


def test_a_point_of_more_tokens_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="the model has 16"):
        evaluate(small(), noise(3), EvaluateOptions(points=(PointRequest("wide", 0.5, 1, 17),)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvaluateOptions(densities=(Decimal(0),)),
        lambda: EvaluateOptions(controls=(Decimal("1.5"),)),
        lambda: EvaluateOptions(densities=(Decimal("NaN"),)),
        lambda: EvaluateOptions(densities=(HALF, Decimal("0.50"))),
        lambda: EvaluateOptions(points=(mass_point(0.5), mass_point(0.5))),
        lambda: EvaluateOptions(batch=0),
        lambda: EvaluateOptions(limit=0),
        lambda: EvaluateOptions(threads=0),
        lambda: EvaluateOptions(bench_batch=4),
        lambda: EvaluateOptions(bench_runtime="torch"),
        lambda: EvaluateOptions(bench_report=Path("bench.json"), bench_batch=0),
    ],
)
def test_options_that_cannot_be_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidArgument):
        make()
