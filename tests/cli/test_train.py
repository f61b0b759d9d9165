"""``sait-deploy train``: what it prints and where, and what it refuses before training anything."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import timm
import torch

from sait_deploy import demo
from sait_deploy.demo.data import load_sources
from sait_deploy.models.weights import read_class_names
from sait_deploy.training.state import LOG_JSON, WEIGHTS_FILE
from tests.cli.calls import Sait
from tests.tiny import save_weights
from tests.training.small import COLOURS, squares

SHORT = ("--epochs", "1", "--epoch-images", "16", "--val-images", "4", "--batch", "8")
REFUSED = [
    (["--weights", "w.pt", "--pretrained"], 2, "--weights and --pretrained name different weights"),
    (["--imgsz", "128"], 2, "the demonstration model has no image size 128"),
    (["--model", "deit_smal_patch16_224", "--random-weights"], 4, "unknown model 'deit_smal_patch16_224'"),
    (["--weights", "nowhere.pt"], 4, "weights file nowhere.pt does not exist"),
    (["--teacher", "nowhere.pt"], 4, "weights file nowhere.pt does not exist"),
    (["--teacher-model", "deit_small_patch16_224"], 2, "--teacher-model is for training with a teacher"),
    (["--teacher", str(demo.WEIGHTS), "--teacher-blocks", "7"], 2, "the teacher has 6 blocks, not 7"),
    (["--teacher", str(demo.WEIGHTS), "--teacher-blocks", "0"], 2, "number of the teacher's blocks 0"),
    (["--teacher", str(demo.WEIGHTS), "--teacher-model", "deit_tiny_patch16_224"], 4, "do not fit"),
    (["--teacher", str(demo.WEIGHTS), "--distill-logits", "-1"], 2, "distillation weight of logits -1.0"),
    (["--teacher", str(demo.WEIGHTS), "--temperature", "0"], 2, "temperature 0.0"),
    (["--temperature", "2"], 2, "--temperature is for training with a teacher"),
    (["--distill-importance", "0.5"], 2, "--distill-importance is for training with a teacher"),
    (["--val", "somewhere"], 2, "--val is for folders of images"),
    (["--augmentation", "light"], 2, "--augmentation is for folders of images"),
    (["--data", "somewhere", "--epoch-images", "5"], 2, "--epoch-images is for the demonstration's digits"),
    (["--alternation", "never", "--density-range", "0.2:0.5"], 2, "--density-range is for sparse steps"),
    (["--min-lr", "1", "--lr", "0.1"], 2, "least learning rate 1.0"),
    (["--epochs", "2", "--warmup-epochs", "3"], 2, "number of warm-up epochs 3.0"),
    (["--epochs", "2", "--sched-epochs", "1"], 2, "number of the schedule's epochs 1"),
    (["--opt", "adamx"], 2, "there is no optimizer 'adamx'"),
    (["--sched", "sine"], 2, "there is no schedule 'sine'"),
    (["--batch", "16"], 2, "a training of one step has no sparse one"),
    (["--alternation", "epoch"], 2, "a training of one epoch has no sparse one where epochs alternate"),
    (["--density-range", "0.5"], 2, "density range '0.5' is not LOW:HIGH"),
    (["--alternation", "never", "--mass-range", "0.7:0.9"], 2, "--mass-range is for sparse steps"),
    (["--mass-range", "0.7:1.0"], 2, "mass range 0.7:1 does not rise within (0, 1)"),
    (["--epochs", "0"], 2, "number of epochs 0"),
    (["--epochs", "many"], 2, "'many' is not a valid integer"),
    (["--batch", "0"], 2, "batch 0"),
    (["--lr", "0"], 2, "learning rate 0.0"),
    (["--lr", "fast"], 2, "'fast' is not a valid float"),
    (["--min-lr", "-1"], 2, "least learning rate -1.0"),
    (["--warmup-epochs", "-1"], 2, "number of warm-up epochs -1.0"),
    (["--weight-decay", "-1"], 2, "weight decay -1.0"),
    (["--clip-grad", "-1"], 2, "gradient norm -1.0"),
    (["--smoothing", "1"], 2, "label smoothing 1.0"),
    (["--drop-path", "1"], 2, "drop path rate 1.0"),
    (["--ema-decay", "2"], 2, "decay of averaged weights 2.0"),
    (["--mixup", "0.5", "--batch", "7"], 2, "Mixup pairs images, and a batch has 7"),
    (["--seed", "-1"], 2, "seed -1"),
    (["--workers", "-1"], 2, "number of workers -1"),
    (["--epoch-images", "0"], 2, "number of images per epoch 0"),
    (["--val-images", "0"], 2, "number of validation images 0"),
    (["--prune-at", "6"], 2, "6 is no block of a model of depth 6"),
    (["--score", "max"], 2, "'max' is not one of"),
    (["--alternation", "sometimes"], 2, "'sometimes' is not one of"),
    (["--amp", "fp8"], 2, "'fp8' is not one of"),
    (["--augmentation", "wild"], 2, "'wild' is not one of"),
    (["--device", "nonsense"], 7, "torch cannot use device 'nonsense'"),
    (["--device", "cuda:99"], 7, "torch cannot use device 'cuda:99'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_input_gets_one_line_and_writes_nothing(
    sait: Sait, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = sait("train", *SHORT, *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.safetensors")), "something was written"


def test_data_that_are_nowhere(sait: Sait) -> None:
    done = sait("train", "--data", "nowhere", "--epochs", "1")
    assert (done.code, done.out) == (8, "")
    assert "error: there is no folder nowhere to train on" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--opt", "adamx"], ["--sched", "x"], ["--teacher-model", "x"], ["--data", "x"], ["--mass-range", "x"]),
        *(["--mass-range", "0.7:1"], ["--mass-range", "0.7:0.9", "--alternation", "never"], ["--device", "nonsense"]),
    ],
)
def test_refusals_say_what_to_do(sait: Sait, arguments: list[str]) -> None:
    last = sait("train", *SHORT, *arguments).err.splitlines()[-1]
    assert re.fullmatch(r"hint: \S.{8,}", last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has it")
def test_half_precision_on_a_processor(sait: Sait) -> None:
    done = sait("train", *SHORT, "--random-weights", "--amp", "fp16")
    assert (done.code, done.out) == (2, "")
    assert "mixed precision fp16 cannot be had" in done.err
    assert "--amp" in done.err.splitlines()[-1]


def test_an_output_that_cannot_be_written(sait: Sait, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = sait("train", *SHORT, "--output", "file/below")
    assert (done.code, done.out) == (9, "")
    assert "cannot write file/below" in done.err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return squares(tmp_path / "pictures", 4, 2)


def checkpoint(path: Path, classes: int) -> Path:
    return save_weights(timm.create_model("test_vit", num_classes=classes, img_size=64), path)


FOLDER = ("--model", "test_vit", "--imgsz", "64", "--epochs", "1", "--batch", "4", "--data", "pictures")


def test_a_teacher_of_other_classes(sait: Sait, tmp_path: Path, pictures: Path) -> None:
    own, other = checkpoint(tmp_path / "own.safetensors", 3), checkpoint(tmp_path / "other.safetensors", 5)
    done = sait("train", *FOLDER, "--weights", own, "--teacher", other)
    assert (done.code, done.out) == (4, "")
    assert "error: the teacher has classes 5, the model 3" in done.err


def named_teacher(tmp_path: Path, name: str) -> tuple[object, ...]:
    path = save_weights(timm.create_model(name, num_classes=3, img_size=64), tmp_path / "teacher.safetensors")
    return "--random-weights", "--new-head", "--teacher", path, "--teacher-model", name


def test_a_teacher_of_another_name_and_width(sait: Sait, tmp_path: Path, pictures: Path) -> None:
    done = sait("train", *FOLDER, *named_teacher(tmp_path, "vit_tiny_patch16_224"), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["log"][0]["logits_loss"] > 0


def test_a_teacher_that_wants_other_pixels_gets_them(sait: Sait, tmp_path: Path, pictures: Path) -> None:
    done = sait("train", *FOLDER, *named_teacher(tmp_path, "deit_tiny_patch16_224"), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["log"][0]["importance_loss"] > 0


def test_data_of_other_classes(sait: Sait, pictures: Path) -> None:
    done = sait("train", *FOLDER, "--random-weights")
    assert (done.code, done.out) == (2, "")
    assert "has 3 classes, the model 1000" in done.err
    assert done.err.splitlines()[-1] == "hint: give --new-head for a head of its own"


def test_validation_images_elsewhere(sait: Sait, pictures: Path) -> None:
    place = ("--data", pictures / "train")
    done = sait("train", *FOLDER, "--random-weights", "--new-head", *place)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == "hint: give --val"
    done = sait("train", *FOLDER, "--random-weights", "--new-head", *place, "--val", pictures / "val")
    assert done.code == 0, done.err


def test_an_unreadable_image(sait: Sait, pictures: Path) -> None:
    (pictures / "train" / "red" / "000.png").write_bytes(b"no picture")
    done = sait("train", *FOLDER, "--random-weights", "--new-head", "--workers", "1")
    assert (done.code, done.out) == (8, "")
    lines = [line for line in done.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines[0] == "error: image pictures/train/red/000.png is damaged or of an unknown format"
    assert "Traceback" not in done.err


def test_json_and_a_second_start(sait: Sait, tmp_path: Path) -> None:
    arguments = ("train", *SHORT, "--density-range", "0.4:0.8", "--json", "-o", "out")
    done = sait(*arguments)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["weights"] == str(Path("out") / WEIGHTS_FILE)
    assert read_class_names(tmp_path / "out" / WEIGHTS_FILE) == demo.LABELS
    (entry,) = said["log"]
    assert (entry["epoch"], entry["steps"], entry["sparse_steps"], entry["sparse_density"]) == (1, 2, 1, 0.4)
    assert said["log"] == json.loads((tmp_path / "out" / LOG_JSON).read_text())
    assert "no --model: training the demonstration model" in done.err
    assert "epoch 1 of 1: loss" in done.err
    again = sait(*arguments, "--device", "CPU")
    assert (again.code, again.out) == (0, done.out)
    assert "resumed after epoch 1 of 1" in again.err
    other = sait(*arguments, "--seed", "1")
    assert (other.code, other.out) == (2, "")
    assert "error: out holds another training: its seed is 0, not 1" in other.err


def test_a_table_and_where_the_weights_are(sait: Sait) -> None:
    done = sait("train", *SHORT, "--alternation", "never", "--ema-decay", "0", "--clip-grad", "0", "-o", "out")
    assert done.code == 0, done.err
    headings, row = [line.split() for line in done.out.splitlines() if line.strip()]
    assert headings[:2] == ["epoch", "loss"]
    assert row[0] == "1" and row[3:5] == ["–", "–"]
    assert done.err.splitlines()[-1] == f"- weights are in {Path('out') / WEIGHTS_FILE}"
    assert done.following == f"sait-deploy export --weights {Path('out') / WEIGHTS_FILE} --mass 0.9"


@pytest.mark.parametrize(("rank", "times"), [(None, 1), ("0", 1), ("1", 0), ("13", 0)])
def test_of_several_processes_the_first_one_speaks(
    sait: Sait, monkeypatch: pytest.MonkeyPatch, rank: str | None, times: int
) -> None:
    """As launchers number them; what ends a process is said by each."""
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    done = sait("train", *SHORT, "--teacher", demo.WEIGHTS, "--teacher-blocks", "7")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("no --model: training the demonstration model") == times
    assert done.err.count("the teacher has 6 blocks, not 7") == 1


def test_the_notice_of_the_patent_is_one_line(sait: Sait) -> None:
    epochs = ("--epochs", "2", "--alternation", "epoch")
    done = sait("train", *SHORT, *epochs, "--teacher", demo.WEIGHTS, "-o", "out")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "patent" in line]
    assert line.startswith("- notice: a patent covers training by a teacher's class token in alternating epochs")


@pytest.mark.slow
def test_weights_bring_the_names_of_the_classes_to_whatever_reads_them(
    sait: Sait, tmp_path: Path, pictures: Path
) -> None:
    done = sait("train", *FOLDER, "--random-weights", "--new-head", "-o", "out")
    assert done.code == 0, done.err
    model = ("--model", "test_vit", "--imgsz", "64", "--weights", Path("out") / WEIGHTS_FILE)
    done = sait("export", *model, "--density", "0.5")
    assert done.code == 0, done.err
    done = sait("predict", "pictures/val/red/000.png", "--json")
    assert done.code == 0, done.err
    assert any(f'"{name}"' in done.out for name in COLOURS)


@pytest.mark.parametrize(
    ("missing", "package"), [("accelerate", "accelerate"), ("sklearn", "scikit-learn"), ("skimage", "scikit-image")]
)
def test_what_only_training_needs_says_how_to_get_it(
    sait: Sait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str
) -> None:
    """Packages that are not there: as if nothing of training had been imported or composed before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("train", "loop"):
        monkeypatch.delitem(sys.modules, f"sait_deploy.training.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    load_sources.cache_clear()
    done = sait("train", *SHORT)
    assert (done.code, done.out) == (3, "")
    *_, error, hint = done.err.splitlines()
    assert f"needs {package}, which is not installed" in error
    assert hint == "hint: pip install 'sait-deploy[train]'"
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_choices(sait: Sait) -> None:
    text = sait("train", "--help").out
    for word in (
        "--teacher FILE",
        "--density-range LOW:HIGH",
        "--mass-range LOW:HIGH",
        "[batch|epoch|never]",
        "[no|bf16|fp16]",
        "accelerate",
    ):
        assert word in text
