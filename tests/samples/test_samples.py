"""The samples run as their first lines say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors import safe_open

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.cli.train import command as train_command
from sait_deploy.images.dataset import PHOTOGRAPHS
from sait_deploy.images.preprocess import list_images
from sait_deploy.models.weights import SparseTraining, read_training
from sait_deploy.tokens import Score
from tests.exported import TinyExport
from tests.tiny import save_weights

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_the_demonstration_writes_a_checkpoint_and_its_report(tmp_path: Path) -> None:
    few = ("--epochs", "1", "--epoch-images", "256", "--val-images", "20")
    run("samples/train_demo.py", *few, "--output", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [len(report[part]["log"]) for part in ("teacher", "student")] == [1, 1]
    assert set(report["held_out"]["top1_percent"]) == {"dense", "density0.5", "density0.3", "density0.2"}
    teacher, student = tmp_path / "teacher" / "model.safetensors", tmp_path / "model.safetensors"
    with safe_open(teacher, "pt") as before, safe_open(student, "pt") as after:
        assert before.keys() == after.keys()
        weight = "blocks.0.attn.qkv.weight"
        assert 0 < (before.get_tensor(weight) - after.get_tensor(weight)).abs().max() < 0.1
    assert read_training(student) == SparseTraining(Score.MEAN, 1, 0.03, 0.75, 0.4, 0.97)
    assert read_training(teacher) is None


def test_composed_digits_are_a_folder_of_classes(tmp_path: Path) -> None:
    run("samples/compose_digits.py", tmp_path / "val", "--per-class", "2", "--seed", "3")
    found = list_images(tmp_path / "val")
    assert found.classes == tuple(str(digit) for digit in range(10))
    assert len(found.paths) == 20


@pytest.mark.slow
def test_segmenting_digits_says_what_each_artifact_reaches_and_draws_it(tmp_path: Path) -> None:
    few = ("--density", "0.3", "--trained", "30", "--judged", "10")
    dense, pruned, wrote = run("samples/segment_digits.py", *few, "-o", tmp_path / "s.png").splitlines()
    assert dense.startswith("dense: mean IoU ") and dense.endswith(", 100% of the patches kept")
    assert pruned.startswith("density0.3: mean IoU ") and pruned.endswith(", 31% of the patches kept")
    assert "s.png" in wrote
    assert Image.open(tmp_path / "s.png").size == (4 * (2 * 96 + 4), 16 + 6 * (2 * 96 + 4))


@pytest.mark.slow
def test_the_shipped_digits_are_those_that_the_sample_composes(tmp_path: Path) -> None:
    run("samples/compose_digits.py", tmp_path, "--per-class", "4", "--seed", "5")
    for shipped in list_images(demo.IMAGES).paths:
        again = tmp_path / shipped.relative_to(demo.IMAGES)
        assert np.array_equal(np.asarray(Image.open(shipped)), np.asarray(Image.open(again)))


@pytest.mark.slow
def test_fine_tuning_trains_exports_and_says_what_next(tmp_path: Path) -> None:
    """A small model that was never trained, two classes of two images: the way, not the result."""
    photographs = list_images(PHOTOGRAPHS).paths
    for part in ("train", "val"):
        for number, photograph in enumerate(photographs[:4]):
            folder = tmp_path / "photos" / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photograph, folder)
    weights = save_weights(timm.create_model("test_vit"), tmp_path / "weights.safetensors")
    printed = run(
        *("samples/finetune_deit_s.py", tmp_path / "photos", "--weights", weights, "--output", tmp_path / "out"),
        *("--model", "test_vit", "--epochs", "1", "--batch", "1"),
    )
    assert "test_vit-adaptive" in printed
    assert "sait-deploy tune --max-drop 0.5" in printed.splitlines()[-1]
    adaptive = open_artifact(tmp_path / "out" / "artifacts" / "test_vit-adaptive")
    assert adaptive.manifest.weights.trained_sparse
    assert adaptive.manifest.model.classes == 2
    assert adaptive.manifest.model.labels == ("class0", "class1")


def test_the_imagenet_recipe_names_options_that_train_has() -> None:
    """It cannot be run here; what it says must be understood."""
    text = (ROOT / "samples" / "imagenet" / "deit_small.toml").read_text(encoding="utf-8")
    known = {name.removeprefix("--") for option in train_command.params for name in option.opts}
    values = tomllib.loads(text)
    assert values and set(values) <= known
    assert timm.is_model(values["model"])


def test_an_artifact_checks_itself_and_classifies(demo_workspace: Path) -> None:
    digit = ROOT / "sait_deploy" / "demo" / "images" / "3" / "0.png"
    printed = run("samples/run_artifact.py", demo_workspace / "sait_demo_digits-density0.6", digit)
    assert "87 tokens kept" in printed.splitlines()[0]
    assert str(digit) in printed.splitlines()[1]


def test_onnxruntime_alone_reproduces_an_artifact(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.dense, tiny.half):
        (printed,) = run("samples/raw_onnxruntime.py", artifact.path).splitlines()
        assert float(printed.rpartition(" ")[2]) < 1e-4
    difference, kept, two = run("samples/raw_onnxruntime.py", tiny_adaptive.path).splitlines()
    assert float(difference.rpartition(" ")[2]) < 1e-4
    assert kept.endswith(f"[{tiny_adaptive.golden().counts[0]}]")
    assert two.endswith(", 37]")


def test_a_language_model_reads_the_kept_tokens_of_its_tower() -> None:
    """The sample itself compares with pruning in torch, and ends where the logits differ."""
    lines = [line for line in run("samples/llava_tower.py", "--mass", "0.6").splitlines() if line.startswith("image ")]
    assert len(lines) == 2
    for line in lines:
        kept, difference, of_all = re.findall(r"(\d+) of 64|by ([\d.e+-]+)", line)
        assert 0 < int(kept[0]) < 64
        assert float(difference[1]) < 1e-4 < 1e-2 < float(of_all[1])
