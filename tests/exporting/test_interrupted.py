"""Nothing half-written is left."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import LAST_EXPORT_FILE, Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ModelError, StorageError
from sait_deploy.exporting.stage import export
from tests.exported import TinyExport, copied
from tests.exporting.exports import SMALL, names, smallest, to
from tests.tiny import HALF


@pytest.mark.parametrize(
    ("line", "error"), [(0, KeyboardInterrupt), (1, KeyboardInterrupt), (1, RuntimeError), (3, KeyboardInterrupt)]
)
def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, line: int, error: type[BaseException]) -> None:
    told: list[str] = []

    def progress(text: str, _: float | None = None) -> None:
        if text not in told:  # a step is told again with its share
            told.append(text)
        if len(told) == line + 1:
            raise error

    with pytest.raises(error):
        export(smallest(), to(tmp_path, densities=(HALF,)), name="m", progress=progress)
    assert len(told) == line + 1
    assert names(tmp_path) == ({"m-dense"} if line >= 2 else set())
    if line >= 2:
        assert open_artifact(tmp_path / "m-dense")


@pytest.mark.parametrize("line", [1, 3])
def test_an_interrupt_keeps_what_was_to_be_replaced(tmp_path: Path, small: list[Artifact], line: int) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    before = [copied(artifact, artifacts) for artifact in small]
    Workspace(artifacts).record_last_export([artifact.path for artifact in before])
    files = {path: sha256_of(path) for path in artifacts.rglob("*") if path.is_file()}
    told: list[str] = []

    def progress(text: str, _: float | None = None) -> None:
        if text not in told:  # a step is told again with its share
            told.append(text)
        if len(told) == line + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(smallest(), dataclasses.replace(SMALL, output=artifacts, overwrite=True), "mine", progress)
    found = {path: sha256_of(path) for path in artifacts.rglob("*") if path.is_file()}
    replaced = before[0].path if line >= 2 else None
    assert found.keys() == files.keys()
    assert all(found[path] == files[path] for path in files if path.parent != replaced)
    for artifact in before:
        assert open_artifact(artifact.path).manifest.id == artifact.manifest.id


def spoilt(change: Callable[[VisionTransformer], object]) -> VisionTransformer:
    vit = smallest()
    with torch.no_grad():
        change(vit)
    return vit


@pytest.mark.parametrize(
    ("vit", "options"),
    [
        (spoilt(lambda vit: vit.blocks[0].mlp.fc1.weight.fill_(float("nan"))), {}),
        (spoilt(lambda vit: vit.head.bias.fill_(float("inf"))), {}),
        (spoilt(lambda vit: vit.head.weight.mul_(1e6)), {"precision": Precision.FP16}),
    ],
)
def test_weights_that_give_no_numbers_are_not_exported(
    tmp_path: Path, vit: VisionTransformer, options: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="not finite numbers"):
        export(vit, to(tmp_path, **options))
    assert names(tmp_path) == set()


def test_numbers_beyond_half_precision_ask_for_fp32(tmp_path: Path) -> None:
    vit = smallest()
    with torch.no_grad():
        vit.head.weight.mul_(1e6)
    with pytest.raises(ModelError, match="logits are not finite numbers") as refused:
        export(vit, to(tmp_path, precision="fp16"))
    assert refused.value.hint == "fp16 holds numbers up to 65,504 alone: export with --precision fp32"
    assert export(vit, to(tmp_path, precision="fp32"))


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write under"):
        export(smallest(), to(tmp_path / "file"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_full_disk_keeps_what_is_there(small_disk: Path) -> None:
    (dense,) = export(smallest(), to(small_disk), name="m")
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(2**20))
    with pytest.raises(StorageError, match="no space left"):
        export(smallest(), to(small_disk, densities=(HALF,)), name="m")
    assert names(small_disk) == {"m-dense", LAST_EXPORT_FILE, "filler"}
    with pytest.raises(StorageError, match="no space left"):
        export(smallest(), to(small_disk, overwrite=True), name="m")
    assert open_artifact(dense.path) == dense


def test_leftovers_are_put_right_before_an_export(tmp_path: Path, tiny: TinyExport) -> None:
    (tmp_path / ".partial-m-dense@999999999").mkdir()
    with pytest.raises(KeyboardInterrupt):
        export(smallest(), to(tmp_path), progress=interrupted)
    assert names(tmp_path) == set()


def interrupted(_: str, __: float | None = None) -> None:
    raise KeyboardInterrupt
