"""Labels, images and options that do not fit."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sait_deploy.artifacts.manifest import AccuracyStatus
from sait_deploy.errors import ImageError, InvalidArgument, ModelError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import PARITY_IMAGES, export
from sait_deploy.runtime import load
from tests.exporting.exports import ONE_THREAD, kept_at_default, names, smallest, to
from tests.tiny import HALF, random_batch


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(["null", "  eins ", "", *map(str, range(2, 9)), "neün"]) + "\n", encoding="utf-8")
    (dense,) = export(smallest(), to(tmp_path / "a", labels=labels))
    assert dense.manifest.model.labels == ("null", "eins", *map(str, range(2, 9)), "neün")
    (found,) = load(dense, options=ONE_THREAD).predict(np.zeros((8, 8, 3), np.uint8), top=10)
    assert set(found.labels) == set(dense.manifest.model.labels)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a\nb\n", "names 2 classes, the model has 10"),
        (b"", "names 0 classes"),
        (b"\xff\xfe\n" * 10, "cannot be read"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InvalidArgument, match=match):
        export(smallest(), to(tmp_path / "a", labels=tmp_path / "labels.txt"))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        export(smallest(), to(tmp_path / "a", labels=tmp_path / "none.txt"))
    assert names(tmp_path) == {"labels.txt"}


def pictures(folder: Path, classes: int, each: int) -> Path:
    draw = np.random.default_rng(0)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for index in range(each):
            pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{index}.png")
    return folder


def test_accuracy_is_measured_where_images_have_classes(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 10, 2)
    (dense,) = export(smallest(), to(tmp_path / "a", images=folder))
    accuracy, parity = dense.manifest.accuracy, dense.manifest.parity
    assert (accuracy.status, accuracy.images) == (AccuracyStatus.MEASURED, 20)
    assert (parity.images, parity.image_source) == (20, str(folder))
    runner, right = load(dense, options=ONE_THREAD), 0
    for path in sorted(folder.rglob("*.png")):
        right += runner.run(runner.preprocess(path)).logits.argmax() == int(path.parent.name)
    assert accuracy.top1_percent == pytest.approx(100 * right / 20)


def test_no_more_images_are_compared_than_needed(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 1, PARITY_IMAGES + 6) / "0"
    (dense,) = export(smallest(), to(tmp_path / "a", images=folder))
    assert dense.manifest.parity.images == PARITY_IMAGES
    assert dense.manifest.accuracy.status is AccuracyStatus.UNMEASURED


@pytest.mark.parametrize("spoil", ["text", "empty folder", "none"])
def test_images_that_cannot_be_read_leave_nothing(tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "images"
    if spoil != "none":
        folder.mkdir()
    if spoil == "text":
        (folder / "a.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError):
        export(smallest(), to(tmp_path / "a", images=folder))
    assert names(tmp_path / "a") == set()


@pytest.mark.parametrize("opset", [-1, 0, 16, 26, 100])
def test_opsets_that_are_not_supported(tmp_path: Path, opset: int) -> None:
    with pytest.raises(InvalidArgument, match=f"opset {opset}") as caught:
        export(smallest(), to(tmp_path / "a", opset=opset))
    assert "17 to 25" in caught.value.hint
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prune_at": 1}, "prune_at 1"),
        ({"prune_at": -1}, "prune_at -1"),
        ({"densities": (Decimal("1.5"),)}, r"outside \(0, 1\]"),
        ({"densities": (Decimal(0),)}, "density 0 is outside"),
    ],
)
def test_prunings_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        export(smallest(), dataclasses.replace(to(tmp_path / "a", densities=(HALF,)), **changes))
    assert not (tmp_path / "a").exists()


def test_a_model_that_is_not_supported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Linear"):
        export(torch.nn.Linear(2, 2), to(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_the_least_and_the_most_that_can_be_kept(tmp_path: Path) -> None:
    vit = smallest()
    densities = (Decimal("0.000001"), Decimal(1))
    _, one, everything = export(vit, to(tmp_path, densities=densities))
    assert [kept_at_default(artifact) for artifact in (one, everything)] == [1, 16]
    images = random_batch((3, 3, 32, 32))
    with torch.no_grad():
        expected = vit(torch.from_numpy(images)).numpy()
    found = load(everything, options=ONE_THREAD).run(images)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert load(one, options=ONE_THREAD).run(images).kept.tolist() == [1, 1, 1]


def test_a_wide_image_is_exported_from_memory(tmp_path: Path) -> None:
    (dense,) = export(smallest(img_size=(24, 48)), to(tmp_path))
    assert dense.manifest.model.image_size == (24, 48)
    assert load(dense, options=ONE_THREAD).run(random_batch((2, 3, 24, 48))).kept.tolist() == [18, 18]


@pytest.mark.parametrize("density", [Decimal("NaN"), Decimal("1.5"), Decimal(0), "x", float("inf")])
def test_densities_are_checked_where_options_are_made(density: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"densit(y|ies)"):
        ExportOptions(densities=(density,))


def test_text_and_floats_are_densities_as_they_show() -> None:
    assert ExportOptions(densities=("0.60", 0.07)).densities == (Decimal("0.6"), Decimal("0.07"))  # type: ignore[arg-type]
