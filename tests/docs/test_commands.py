"""Commands and Python of the pages are run, on small models and few images, in a folder that has what they name.

What needs more than there is here, such as a GPU, stands in a table with what it needs. README and tutorial have tests
of their own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import sait_deploy
from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.cli import run
from sait_deploy.errors import RuntimeUnavailable
from tests.docs.blocks import PAGES, blocks, commands
from tests.exported import TinyExport
from tests.models.transformers_folders import written
from tests.shared import made_once
from tests.tiny import save_weights
from tests.training.small import squares

OWN_TEST: Final = ("README", "tutorial")
"""Pages that are run by a test of their own, from top to bottom."""

ELSEWHERE: Final = {
    r"--pretrained|google/|hf-hub:": "weights of a hub",
    r"s3://|ray://": "a bucket, a cluster",
    r"--runtime (tensorrt|torch-cuda|onnxruntime-cuda)": "a GPU",
    r"--builder tensorrt\b(?!-rtx)|--backend tensorrt\b": "an engine of TensorRT's own",
    r"^(serve|batch)\b": "Ray, which tests/serving and tests/batch start",
    r"^doctor\b": "nothing: its own test is enough",
    r"--oracle": "200 images or more, which tests/evaluation takes",
    r"^recommend (?!--bench)": "a minute of measuring, which tests/recommending takes",
    r"dinov3\.safetensors|lvvit_|llava": "weights that others publish, of many millions; tests/models has small ones",
}
"""What a command needs that is not here, or that another test pays for."""

SMALL: Final = {
    "deit_small_patch16_224": "test_vit",
    "vit_small_patch16_224": "test_vit",
    "512x768": "64x96",
    "3,5,8,11": "0,1",
}
"""A model that stands for those of the pages, which take long; image sizes and blocks that small models have."""

QUICK: Final = {
    "export": ("-o", "made", "--overwrite", "--images", "few"),
    "quantize": ("--overwrite", "--min-agreement", "0", "--images", "photos"),
    "bench": ("--duration", "0.02", "--warmup", "0", "--batch", "1", "--images", "few", "--threads", "1"),
    "evaluate": ("--limit", "10", "--images", "photos", "--threads", "1"),
    "tune": ("--grid", "0.99,0.97", "--threads", "1"),
    "train": ("--epochs", "1", "--batch", "4", "--augmentation", "none", "--data", "classes", "--val-images", "4"),
    "build-engine": ("--target", "sm89"),
}
"""What makes a command quick: few images, little time. Of an option given twice the last counts."""

ALLOWED: Final = {0, 7, 10}
"""Of few images and little time there is no point that keeps a limit, and not every processor computes in bf16."""


def runnable() -> dict[str, list[list[str]]]:
    """Commands by page; those that differ in what they write alone are one, on the first page that has it."""
    found: dict[str, list[list[str]]] = {}
    known: dict[str, list[str]] = {}
    for page in PAGES:
        for program, *typed in commands(page):
            if program != "sait-deploy" or page.stem in OWN_TEST:
                continue
            words = typed[: typed.index(">")] if ">" in typed else typed
            outputs = [at for at, word in enumerate(words) if "-o" in words[max(at - 1, 0) : at + 1]]
            line = " ".join(word for at, word in enumerate(words) if at not in outputs)
            if line in known:
                known[line] += [words[at] for at in outputs]
            elif not any(re.search(mark, line) for mark in ELSEWHERE):
                known[line] = words
                found.setdefault(page.stem, []).append(words)
    return found


RUNNABLE: Final = runnable()


def called(words: Iterable[object]) -> int:
    """Runs a command in this process and returns its exit code."""
    with pytest.raises(SystemExit) as leaving:
        run([str(word) for word in words])
    code = leaving.value.code or 0
    assert isinstance(code, int)
    return code


@pytest.fixture(scope="module")
def exported(demo_workspace: Path) -> Path:
    """The demonstration's artifacts, under the names that the pages have for the reader's, too."""

    def export(folder: Path) -> Path:
        place = Path(shutil.copytree(demo_workspace, folder / "artifacts"))
        adaptive, other = place / f"{demo.NAME}-adaptive", place / "deit_small_patch16_224-adaptive"
        tune = ("--images", demo.IMAGES, "--max-drop", "90", "--grid", "0.97", "--threads", "1")
        assert called(["export", "--mass", "0.95", "--mass", "0.8", "-o", place]) == 0
        assert called(["tune", adaptive, *tune]) == 0
        for name in (other.name, "my-model-adaptive"):
            shutil.copytree(adaptive, place / name)
        assert called(["tune", other, *tune, "--name", "fast"]) == 0
        shutil.copytree(place / f"{demo.NAME}-density0.6", place / "deit_small_patch16_224-density0.6")
        return place

    return made_once("docs", export)


_FOLDERS: Final = {
    "my-vit": "vit",
    "clip-vit-base-patch16": "clip-projection",
    "clip": "clip",
    "dinov3": "dinov3",
    "clip-vit-large-patch14-336": "clip-vision",
    "siglip-base-patch16-384": "siglip-vision",
}
"""Folders of Hugging Face and the small models that are in them."""


@pytest.fixture(scope="module")
def files() -> Path:
    """Images, models and weights under the names that the pages have for the reader's."""

    def write(folder: Path) -> Path:
        transformers = pytest.importorskip("transformers", reason="folders of Hugging Face are written by it")
        for name, model in _FOLDERS.items():
            written(transformers, model, folder / name)
        for name, count in (("photos", 4), ("val", 4), ("unlabelled", 4), ("few", 1)):
            for digit in demo.LABELS:
                (folder / name / digit).mkdir(parents=True)
                for image in sorted((demo.IMAGES / digit).glob("*.png"))[:count]:
                    shutil.copy(image, folder / name / digit)
        for name in ("photo.jpg", "easy.jpg", "hard.jpg"):
            Image.open(demo.IMAGES / "7" / "0.png").save(folder / name)
        squares(folder / "classes", 4, 2)
        for name in ("checkpoint.pth", "deit_small.pth", "my/model.safetensors", "teacher/model.safetensors"):
            _checkpoint(folder / name, num_classes=3)
        _checkpoint(folder / "rgb.safetensors", num_classes=3)
        _checkpoint(folder / "grey.safetensors", num_classes=3, in_chans=1)
        return folder

    return made_once("docs-files", write)


def _checkpoint(place: Path, **options: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    model = timm.create_model("test_vit", **options)
    if place.suffix == ".pth":
        torch.save(model.state_dict(), place)
    else:
        save_weights(model, place)


@pytest.fixture
def place(
    files: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A folder of a reader's, in which commands run; on the page of embedders the last export is one."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    root = Path("artifacts")
    shutil.copytree(exported, root)
    embedding: list[Artifact] = request.getfixturevalue("embedders")
    adaptive = shutil.copytree(embedding[-1].path, root / "clip-cls-embed-adaptive")
    shutil.copytree(embedding[0].path, root / embedding[0].path.name)
    last = adaptive if request.node.callspec.params.get("page") == "embedders" else root / f"{demo.NAME}-adaptive"
    Workspace(root).record_last_export([last])
    width = embedding[0].manifest.model.geometry.width
    vectors = np.random.default_rng(0).standard_normal((len(demo.LABELS), width)).astype(np.float32)
    np.savez("classes.npz", embeddings=vectors, labels=np.array(demo.LABELS))
    return tmp_path


def test_little_is_left_out() -> None:
    assert sum(map(len, RUNNABLE.values())) > 45
    for mark, why in ELSEWHERE.items():
        lines = [" ".join(words[1:]) for page in PAGES for words in commands(page) if words[0] == "sait-deploy"]
        assert any(re.search(mark, line) for line in lines), f"no command needs {why}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_commands_of_a_page_run(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in RUNNABLE[page]:
        smaller = [SMALL.get(word, word) for word in words]
        assert called([*smaller, *QUICK.get(words[0], ())]) in ALLOWED, f"{words}: {capsys.readouterr().err}"


CODE: Final = [(page, block) for page in PAGES if page.stem not in OWN_TEST for block in blocks(page, "python")]
CODE_ELSEWHERE: Final = {
    "tritonclient": "a server, which tests/serving and tests/triton_repository ask by these calls",
    "read_parquet": "what Ray wrote, which tests/batch reads",
    ".further[": "an artifact of a large model; tests/exporting reads these outputs",
    "llava": "an artifact of a large model; tests/exporting reads these outputs",
    "quant_pre_process": "nothing: tests/exporting makes these calls",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "block"),
    [pair for pair in CODE if not any(word in pair[1] for word in CODE_ELSEWHERE)],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_python_of_a_page_runs(page: Path, block: str, place: Path, tiny: TinyExport) -> None:
    """What runs on a GPU is left out, and the demonstration's images have fewer patches than 196."""
    code = "\n".join(line for line in block.splitlines() if "on that GPU" not in line).replace("196", "144")
    known = {"np": np, "sait_deploy": sait_deploy, "model": tiny.model.vit, "text_embeddings": np.eye(2)}
    try:
        exec(compile(code, str(page), "exec"), known)
    except RuntimeUnavailable as error:  # as of commands, not every processor computes in bf16
        pytest.skip(error.message)
