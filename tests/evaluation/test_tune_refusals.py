"""What cannot be tuned: images, names, artifacts and options, refused before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_results import Search, TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.evaluation.tune_trials import PointFamily
from tests.evaluation.tunings import EXPORTED, draw, options
from tests.exported import TinyExport


def test_a_drop_needs_labels(adaptive: Artifact, images: Path) -> None:
    with pytest.raises(InvalidArgument, match="no labels") as refused:
        tune(adaptive, TuneOptions(max_drop=1.0, splits=SplitOptions(images)))
    assert "--max-disagreement" in refused.value.hint


def test_a_name_that_is_taken_is_refused_before_anything_runs(
    adaptive: Artifact, tiny: TinyExport, images: Path
) -> None:
    for name in (*EXPORTED, "default"):
        with pytest.raises(InvalidArgument, match=name):
            tune(adaptive, options(images, name=name))
    for fixed in (tiny.dense, tiny.half):
        with pytest.raises(InvalidArgument, match="operating point is fixed"):
            tune(fixed, options(images))


def test_limits_that_the_model_cannot_keep_to(adaptive: Artifact, tmp_path: Path) -> None:
    """Refused before the images, which are not there, are looked for."""
    for least, most in ((37, None), (1, 37)):
        with pytest.raises(InvalidArgument, match="the model has 36"):
            tune(adaptive, options(tmp_path / "none", min_keep=least, max_keep=most))


def test_images_that_are_none(adaptive: Artifact, tmp_path: Path) -> None:
    draw(tmp_path / "images", 60, 4)
    draw(tmp_path / "check", 3, 5)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        tune(adaptive, options(tmp_path / "images", check=tmp_path / "check"))
    with pytest.raises(ImageError):
        tune(adaptive, options(tmp_path / "none"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_keep": 0},
        {"min_keep": 5, "max_keep": 4},
        {"min_keep": 5, "families": (PointFamily.DENSITY,)},
        {"max_keep": 5, "families": (PointFamily.DENSITY,)},
        {"max_drop": 1.0},
        {"max_disagreement": None},
        {"max_disagreement": 0.0},
        {"max_disagreement": 100.0},
        {"confidence": 1.0},
        {"confidence": 0.3},
        {"grid": ()},
        {"grid": (0.9, 0.95)},
        {"grid": (0.9, 0.9)},
        {"grid": (1.0, 0.9)},
        {"families": ()},
        {"families": (PointFamily.MASS, PointFamily.MASS)},
        {"batch": 0},
        {"search": (Search.SCORE,), "runtime": "tensorrt"},
    ],
    ids=str,
)
def test_options_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        dataclasses.replace(TuneOptions(max_disagreement=1.0), **wrong)  # type: ignore[arg-type]
    assert "\n" not in refused.value.message
