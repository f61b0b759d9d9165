"""What cannot be quantised is said in a line with a hint, and leaves nothing half-written."""

from __future__ import annotations

import builtins
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.errors import (
    ImageError,
    InvalidArgument,
    MissingDependency,
    NotFinite,
    SaitError,
    StorageError,
    TargetMissed,
)
from sait_deploy.exporting.stage import export
from sait_deploy.quantization.options import Exclude, QuantizeOptions, parse_exclude
from sait_deploy.quantization.stage import quantize
from sait_deploy.quantization.tables import quantize_notes
from tests.exported import TinyExport, graph_of, with_graph
from tests.exporting.exports import names, smallest, to
from tests.quantization.conftest import ANY_AGREEMENT, copies


def refused(kind: type[SaitError], folder: Path, artifacts: list[Artifact], **options: Any) -> SaitError:
    """Quantises, and returns the error after checking that nothing was left."""
    before = names(folder)
    with pytest.raises(kind) as caught:
        quantize(artifacts, dataclasses.replace(ANY_AGREEMENT, **options))
    assert names(folder) == before
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def test_one_that_is_quantised_already(quantised: list[Artifact], tmp_path: Path) -> None:
    error = refused(InvalidArgument, tmp_path, copies(tmp_path, quantised[0]))
    assert "is quantised already" in error.message
    assert error.hint == "quantise test_vit-96px-dense, which it was made from"


def test_one_in_half_precision(tiny_fp16: TinyExport, tmp_path: Path) -> None:
    assert "int8 is made from fp32" in refused(InvalidArgument, tmp_path, copies(tmp_path, tiny_fp16.dense)).message


def test_too_few_answers_agree_in_one_of_them(floats: list[Artifact], tmp_path: Path) -> None:
    """Int8 changes no dense answer of this model, and some pruned ones, as other tokens are kept."""
    options = {"exclude": Exclude.NONE, "min_agreement": 100}
    error = refused(TargetMissed, tmp_path, copies(tmp_path, floats[0], floats[2]), **options)
    assert "adaptive-int8" in error.message and "not 100 %" in error.message
    assert "--min-agreement" in error.hint


def test_an_image_that_cannot_be_read(floats: list[Artifact], tmp_path: Path) -> None:
    images = Path(shutil.copytree(demo.IMAGES, tmp_path / "images"))
    (images / "3" / "0.png").write_bytes(b"no image")
    assert "0.png" in refused(ImageError, tmp_path, copies(tmp_path, floats[0]), images=images).message


def test_an_answer_that_is_no_number(floats: list[Artifact], tmp_path: Path) -> None:
    (artifact,) = copies(tmp_path, floats[0])
    model = graph_of(artifact)
    bias = next(tensor for tensor in model.graph.initializer if "head.bias" in tensor.name)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(list(bias.dims), np.nan, np.float32), bias.name))
    error = refused(NotFinite, tmp_path, [with_graph(artifact, model)])
    assert "calibration image 0: its logits are not finite" in error.message


def test_a_layer_that_is_not_there(floats: list[Artifact], tmp_path: Path) -> None:
    error = refused(InvalidArgument, tmp_path, copies(tmp_path, floats[0]), keep_float=("blocks.9.*",))
    assert "blocks.9.*" in error.message


def test_without_onnxruntime(floats: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **named)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert "onnxruntime" in refused(MissingDependency, tmp_path, copies(tmp_path, floats[0])).message


def test_a_disk_that_is_full(small_disk: Path) -> None:
    artifacts = export(smallest(), to(small_disk / "artifacts"))
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    assert "no space left" in refused(StorageError, small_disk / "artifacts", artifacts).message


def test_images_of_one_class_and_few_of_them_are_warned_of(floats: list[Artifact], tmp_path: Path) -> None:
    labelled = tmp_path / "images"
    for label in ("0", "1", "2", "3", "4"):
        (labelled / label).mkdir(parents=True)
    for number, image in enumerate(sorted(demo.IMAGES.rglob("*.png"))):
        shutil.copy(image, labelled / "2" / f"{number}.png")
    (labelled / "classes.json").write_text('{"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}')
    options = dataclasses.replace(ANY_AGREEMENT, images=labelled, class_map=labelled / "classes.json")
    made = quantize(copies(tmp_path, floats[0]), options)
    notes = [note.text for note in quantize_notes([artifact.manifest for artifact in made])]
    assert any("30 images" in note and "128 are better" in note for note in notes)
    assert any("of one class" in note for note in notes)
    assert made[0].manifest.accuracy.images == 10
    assert Workspace(tmp_path).last_export() == [made[0].path]


@pytest.mark.parametrize("value", [-1, 100.5, "many"])
def test_an_agreement_that_cannot_be(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        QuantizeOptions(min_agreement=value)


def test_what_exclude_says() -> None:
    assert parse_exclude("auto") == (Exclude.AUTO, ())
    assert parse_exclude("none") == (Exclude.NONE, ())
    assert parse_exclude("blocks.0.*, blocks.1.mlp.fc2") == (Exclude.NONE, ("blocks.0.*", "blocks.1.mlp.fc2"))
    with pytest.raises(InvalidArgument, match="empty name"):
        parse_exclude("blocks.0.*,")
