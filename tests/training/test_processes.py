"""Several processes train one model, as accelerate divides the work; here on the CPU, over loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import list_images, preprocess
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.weights import load_weights
from sait_deploy.training.state import WEIGHTS_FILE, read_state
from sait_deploy.training.train import train
from tests.cli.calls import child_environment
from tests.training.each_process import VALIDATION_IMAGES, of_processes
from tests.training.small import VARIANTS, assert_same_weights, small_model

OPTIONS = (
    *("--random-weights", "--epochs", "2", "--epoch-images", "64", "--val-images", "10", "--batch", "8"),
    *("--mass-range", "0.4:0.9"),
)


def started(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        env=child_environment(ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_share_the_batches_and_one_of_them_writes(tmp_path: Path) -> None:
    """As many images a step as one process with batches of twice the size, and so as many steps."""
    done = started(2, "sait_deploy", "train", *OPTIONS, "--json", "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    log = json.loads(done.stdout)["log"]
    assert [entry["steps"] for entry in log] == [4, 4]
    assert [entry["sparse_steps"] for entry in log] == [2, 2]
    assert [entry["mass"] for entry in log] == [0.4, 0.4]
    for line in ("no --model: ", "2 processes train together, each on 8 images a step", "before training: "):
        assert done.stderr.count(line) == 1
    assert load_file(tmp_path / "two" / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def ends(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes each end with, of trainings of every kind."""
    output = tmp_path_factory.mktemp("ends")
    done = started(2, "tests.training.each_process", folder, output, "plain", "chance", "teacher", "masses", "bf16")
    assert done.returncode == 0, done.stderr
    return output


def said(ends: Path, name: str, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ends / f"{name}.{rank}.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "chance", "teacher", "masses", "bf16"])
def test_processes_end_with_the_same_weights_and_the_same_accuracies(ends: Path, name: str) -> None:
    """Also where each draws of its own: mixup, stochastic depth, augmentation."""
    weights = [load_file(ends / f"{name}.{rank}.safetensors") for rank in (0, 1)]
    assert_same_weights(*weights)
    state = read_state(ends / name)
    assert state is not None
    assert_same_weights(state.model, weights[0])
    begun = small_model().vit.state_dict()
    assert not any(torch.equal(begun[key], weights[0][key]) for key in ("head.weight", "blocks.0.attn.qkv.weight"))
    first, second = said(ends, name, 0), said(ends, name, 1)
    assert (first["is_main"], second["is_main"]) == (True, False)
    assert first["lines"][0] == "2 processes train together, each on 8 images a step"
    assert second["lines"] == []
    for key in ("epoch", "steps", "sparse_steps", "learning_rate", "dense_top1", "sparse_top1", "mass_top1", "mass"):
        assert [entry[key] for entry in first["log"]] == [entry[key] for entry in second["log"]]
    kept, others = ([entry["density"] for entry in one["log"]] for one in (first, second))
    assert (kept != others) == (name == "masses"), "at a mass each keeps of its own images what they take"
    assert kept == pytest.approx(others, abs=0.1)
    assert [entry["steps"] for entry in first["log"]] == [3, 3, 3]
    assert [entry["sparse_steps"] for entry in first["log"]] == [1, 2, 1]
    assert first["again"] == first["log"], "finished: nothing is left to do"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too few", "48 images make no batch of 25 on 2 processes"),
        ("device", "device cpu cannot be chosen for 2 processes"),
    ],
)
def test_what_several_processes_cannot_do(ends: Path, name: str, message: str) -> None:
    for rank in (0, 1):
        assert (ends / f"{name}.{rank}").read_text() == message
    assert list((ends / name).iterdir()) == []


@pytest.mark.slow
def test_another_number_of_processes_is_another_training(ends: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(ends / "plain", tmp_path / "plain")
    lines: list[str] = []
    with pytest.raises(InvalidArgument, match="its processes is 2, not 1"):
        train(small_model(), None, of_processes(folder, tmp_path / "plain", "plain"), lines.append)
    assert "train together" not in "".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "teacher", "bf16"])
def test_accuracies_shared_between_processes_are_those_of_one(ends: Path, folder: Path, name: str) -> None:
    model = small_model()
    load_weights(model.vit, load_file(ends / name / WEIGHTS_FILE), "of a training")
    found = list_images(folder / "val")
    chosen = torch.linspace(0, len(found.paths) - 1, VALIDATION_IMAGES).round().long()
    images = torch.from_numpy(preprocess(found.paths, model.preprocessing))[chosen]
    labels = torch.tensor(found.labels)[chosen]
    score = VARIANTS[name].get("score", "mean")
    last = said(ends, name, 0)["log"][-1]
    for told, pruning in ((last["dense_top1"], None), (last["sparse_top1"], FixedPruning(score, 0, 5))):
        with torch.no_grad():
            right = PrunableViT(model.vit, pruning)(images)[0].argmax(dim=1) == labels
        assert told == pytest.approx(100 * float(right.double().mean()), abs=1e-3)
