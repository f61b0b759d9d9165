"""Whole trainings of a small model: it learns what it is taught, and the log says how far."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import list_images, preprocess
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.weights import SparseTraining, load_weights, read_class_names, read_training, sha256_of_weights
from sait_deploy.reports.drawing import NO_PLOTS
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.data import open_data
from sait_deploy.training.loop import TrainingLoop
from sait_deploy.training.options import Alternation, DensityRange, Distillation, MassRange
from sait_deploy.training.recipe import make_optimizer, make_schedule
from sait_deploy.training.state import CURVE_FILE, LOG_CSV, LOG_JSON, STATE_FILE, WEIGHTS_FILE, read_state
from sait_deploy.training.train import train
from tests.training.small import (
    COLOURS,
    TEACHER,
    options,
    quiet,
    run,
    small_model,
    square_folder,
    squares,
    weights_of,
)


def accuracy(
    weights: dict[str, Tensor], pruning: FixedPruning | AdaptivePruning | None, folder: Path, *point: Tensor
) -> float:
    """Per cent right of the validation images, by the deployed model and preprocessing; ``point`` as they take it."""
    model = small_model(seed=1)
    load_weights(model.vit, weights, "of a training")
    found = list_images(folder / "val")
    images = torch.from_numpy(preprocess(found.paths, model.preprocessing))
    with torch.no_grad():
        answers = PrunableViT(model.vit, pruning)(images, *point)[0].argmax(dim=1)
    return 100 * float((answers == torch.tensor(found.labels)).double().mean())


def test_a_small_model_learns_colours_dense_and_sparse(folder: Path, tmp_path: Path) -> None:
    model = small_model(seed=1)
    first = sha256_of_weights(model.vit)
    assert accuracy(dict(model.vit.state_dict()), None, folder) < 50
    lines: list[str] = []
    chosen = options(folder, tmp_path, recipe={"epochs": 6, "ema_decay": 0.9})
    result = train(model, None, chosen, lines.append)
    last = result.log[-1]
    assert result.log[0].loss > 2 * last.loss
    assert last.dense_top1 > 90, "a third would be chance"
    assert last.sparse_top1 is not None and last.sparse_top1 > 80
    assert [entry.epoch for entry in result.log] == list(range(1, 7))
    assert all((entry.steps, entry.sparse_steps) == (6, 3) for entry in result.log)
    assert all(0.3 < entry.density < 1 for entry in result.log)
    assert all(entry.sparse_density == 0.3 for entry in result.log)
    assert all(entry.logits_loss is None and entry.loss == entry.label_loss for entry in result.log)
    assert sha256_of_weights(model.vit) != first
    assert len(lines) == 7
    assert lines[0].startswith("before training: ")
    assert lines[1].startswith("epoch 1 of 6: loss ")
    assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, WEIGHTS_FILE, LOG_CSV, LOG_JSON, CURVE_FILE}
    assert result.weights == tmp_path / WEIGHTS_FILE
    assert result.training == read_training(result.weights) == SparseTraining(Score.MEAN, 0, 0.3, 1.0)


def test_without_matplotlib_training_says_once_that_there_is_no_curve(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    lines: list[str] = []
    train(small_model(), None, options(folder, tmp_path, recipe={"epochs": 2}), lines.append)
    assert [line for line in lines if "plots" in line] == [NO_PLOTS.text]
    assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, WEIGHTS_FILE, LOG_CSV, LOG_JSON}


def test_the_log_tells_the_accuracy_of_the_weights_delivered(folder: Path, tmp_path: Path) -> None:
    recipe = {"epochs": 1, "learning_rate": 3e-3, "warmup_epochs": 0.0, "ema_decay": 0.9}
    chosen = options(folder, tmp_path, recipe=recipe, densities=DensityRange(0.25, 1.0), prune_at=1)
    result = train(small_model(), None, chosen, quiet)
    (entry,) = result.log
    half = FixedPruning(Score.MEAN, 1, 4)
    assert entry.dense_top1 == pytest.approx(accuracy(weights_of(result), None, folder), abs=1e-3)
    assert entry.sparse_top1 == pytest.approx(accuracy(weights_of(result), half, folder), abs=1e-3)
    state = read_state(tmp_path)
    assert state is not None
    assert accuracy(state.model, None, folder) != entry.dense_top1, "weights and their average answer alike"


def test_the_log_tells_the_accuracy_at_the_lowest_mass(folder: Path, tmp_path: Path) -> None:
    """Of a model that learns next to nothing: one that has learnt is as right at any mass."""
    recipe = {"epochs": 1, "learning_rate": 1e-6, "warmup_epochs": 0.0, "ema_decay": 0.9}
    chosen = options(folder, tmp_path, recipe=recipe, masses=MassRange(0.3, 0.9))
    lines: list[str] = []
    result = train(small_model(seed=8), None, chosen, lines.append)
    (entry,) = result.log
    limits, pruning = torch.tensor([[1, 16]] * 30, dtype=torch.int32), AdaptivePruning(Score.MEAN, 0)
    wanted, highest = (
        accuracy(weights_of(result), pruning, folder, torch.full((30,), mass), limits) for mass in (0.3, 0.9)
    )
    assert len({wanted, highest, entry.dense_top1}) == 3, "otherwise what is told could be any of them"
    assert entry.mass == 0.3
    assert entry.mass_top1 == pytest.approx(wanted, abs=1e-3)
    assert f", {wanted:.1f} % at mass 0.3, " in lines[-1]
    assert re.search(r"% at density 0.3, \d+\.\d % at mass 0.3$", lines[0])


def test_the_schedule_runs_over_all_epochs(folder: Path, tmp_path: Path) -> None:
    chosen = options(folder, tmp_path)
    log = train(small_model(), None, chosen, quiet).log
    optimizer = make_optimizer(small_model().vit, chosen.recipe)
    schedule = make_schedule(optimizer, chosen.recipe, 6)
    for entry in log:
        schedule.step_update(6 * entry.epoch - 1)
        assert entry.learning_rate == optimizer.param_groups[0]["lr"]


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    some, others = (
        weights_of(train(small_model(), None, options(folder, tmp_path / str(seed), seed=seed), quiet))
        for seed in (0, 1)
    )
    assert not torch.equal(some["head.weight"], others["head.weight"])


def test_a_teacher_is_learnt_from_and_left_alone(folder: Path, tmp_path: Path) -> None:
    before = sha256_of_weights(TEACHER.vit)
    result = run("teacher", folder, tmp_path)
    assert sha256_of_weights(TEACHER.vit) == before
    log = result.log
    assert log[0].importance_loss is not None and log[-1].importance_loss is not None
    assert log[-1].importance_loss < log[0].importance_loss
    assert log[0].logits_loss is not None
    expected = log[0].label_loss + log[0].logits_loss + 3 * log[0].importance_loss
    assert log[0].loss == pytest.approx(expected, abs=1e-3)


def test_distillation_teaches_where_the_teacher_looks(folder: Path, tmp_path: Path) -> None:
    """With and without the weight of importance, all else equal."""
    found = []
    for weight in (0.0, 10.0):
        chosen = options(folder, tmp_path / str(weight), distillation=Distillation(importance=weight), score=Score.CLS)
        found.append(train(small_model(), TEACHER, chosen, quiet).log[-1].importance_loss or 0.0)
    assert found[1] < 0.7 * found[0]


@pytest.mark.parametrize(
    ("alternation", "teacher", "times"),
    [(Alternation.EPOCH, TEACHER, 1), (Alternation.EPOCH, None, 0), (Alternation.BATCH, TEACHER, 0)],
)
def test_a_notice_of_the_patent_is_given_where_it_may_apply(
    folder: Path, tmp_path: Path, alternation: Alternation, teacher: LoadedModel | None, times: int
) -> None:
    lines: list[str] = []
    train(small_model(), teacher, options(folder, tmp_path, alternation=alternation), lines.append)
    assert len([line for line in lines if "a patent covers training" in line and "README" in line]) == times


def test_alternation_by_epoch(folder: Path, tmp_path: Path) -> None:
    log = run("epochs", folder, tmp_path).log
    assert [entry.sparse_steps for entry in log] == [0, 6, 0]
    assert log[0].density == 1.0 and log[1].density < 1


@pytest.mark.parametrize("alternation", [Alternation.BATCH, Alternation.EPOCH])
def test_masses_take_turns_with_densities(folder: Path, tmp_path: Path, alternation: Alternation) -> None:
    """At density 1 nothing is dropped, so that what is missing of it is what masses left out."""
    kind: dict[str, Any] = {"alternation": alternation, "densities": DensityRange(1.0, 1.0), "recipe": {"epochs": 4}}
    without = train(small_model(), None, options(folder, tmp_path / "without", **kind), quiet)
    assert [entry.density for entry in without.log] == [1.0] * 4
    masses = MassRange(0.5, 0.6)
    result = train(small_model(), None, options(folder, tmp_path / "with", masses=masses, **kind), quiet)
    assert [entry.sparse_steps for entry in result.log] == [entry.sparse_steps for entry in without.log]
    steps = [6 * (1 - entry.density) for entry in result.log]  # as many steps' worth of tokens were dropped
    turns = [0, 3, 0, 3] if alternation is Alternation.EPOCH else [1, 2, 1, 2]
    assert all(0.6 * turn <= step <= 0.9 * turn for turn, step in zip(turns, steps, strict=True)), steps
    assert not torch.equal(weights_of(result)["head.weight"], weights_of(without)["head.weight"])
    trained = SparseTraining(Score.MEAN, 0, 1.0, 1.0, 0.5, 0.6)
    assert result.training == read_training(result.weights) == trained
    assert without.training == read_training(without.weights) == SparseTraining(Score.MEAN, 0, 1.0, 1.0)


def test_a_training_that_is_always_dense_says_nothing_of_pruning(folder: Path, tmp_path: Path) -> None:
    result = run("dense", folder, tmp_path)
    assert result.training is None
    assert read_training(result.weights) is None
    assert read_class_names(result.weights) == tuple(COLOURS)
    assert all(entry.sparse_top1 is None and entry.sparse_density is None for entry in result.log)
    assert all(entry.mass_top1 is None and entry.mass is None for entry in result.log)
    assert all(entry.sparse_steps == 0 and entry.density == 1.0 for entry in result.log)


def test_a_new_head_has_the_classes_of_the_data(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="has 3 classes, the model 7"):
        train(small_model(num_classes=7), None, options(folder, tmp_path / "kept"), quiet)
    weights = weights_of(run("new head", folder, tmp_path / "new"))
    assert weights["head.weight"].shape == (len(COLOURS), 32)
    assert weights.keys() == small_model().vit.state_dict().keys()
    assert read_class_names(tmp_path / "new" / WEIGHTS_FILE) == tuple(COLOURS)


def test_a_flat_folder_with_validation_beside_it(tmp_path: Path) -> None:
    root, held_out = square_folder(tmp_path / "all", 4), square_folder(tmp_path / "held-out", 2, seed=1)
    chosen = options(root, tmp_path / "out", recipe={"epochs": 1, "warmup_epochs": 0.0, "batch": 4})
    chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, validation=held_out))
    assert len(train(small_model(), None, chosen, quiet).log) == 1


def test_a_model_without_a_class_token(folder: Path, tmp_path: Path) -> None:
    def model() -> LoadedModel:
        return small_model(class_token=False, global_pool="avg")

    with pytest.raises(InvalidArgument, match="needs a class token"):
        train(model(), None, options(folder, tmp_path, score=Score.CLS), quiet)
    taught = Distillation(teacher_score=Score.MEAN)
    log = train(model(), model(), options(folder, tmp_path, distillation=taught), quiet).log
    assert log[-1].importance_loss is not None


def test_fewer_images_than_a_batch(tmp_path: Path) -> None:
    root = squares(tmp_path / "data", 3, 2)
    result = train(small_model(), None, options(root, tmp_path / "out", recipe={"batch": 64}), quiet)
    assert [(entry.steps, entry.sparse_steps) for entry in result.log] == [(1, 0), (1, 1), (1, 0)]
    entry = result.log[0]
    assert entry.images_per_second == pytest.approx(9 / entry.seconds, rel=0.5)
    odd = options(root, tmp_path / "odd", recipe={"batch": 64, "mixup": 0.2})
    with pytest.raises(InvalidArgument, match="Mixup pairs images, and a batch has 9"):
        train(small_model(), None, odd, quiet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"epochs": 1, "batch": 48}}, "a training of one step has no sparse one"),
        ({"recipe": {"epochs": 1, "batch": 64}}, "a training of one step has no sparse one"),
        (
            {"recipe": {"epochs": 1}, "alternation": Alternation.EPOCH},
            "a training of one epoch has no sparse one where epochs alternate",
        ),
    ],
)
def test_a_training_without_a_sparse_step_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    lines: list[str] = []
    with pytest.raises(InvalidArgument) as refused:
        train(small_model(), None, options(folder, tmp_path, **change), lines.append)
    assert refused.value.message == message
    assert "never" in refused.value.hint
    assert lines == [] and list(tmp_path.iterdir()) == []
    dense = options(folder, tmp_path, **{**change, "alternation": Alternation.NEVER})
    assert len(train(small_model(), None, dense, quiet).log) == 1


class Counted(Dataset[tuple[Tensor, int]]):
    """Counts how often each image of a data set is read."""

    def __init__(self, images: Any) -> None:
        self.images, self.reads = images, Counter[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads[index] += 1
        image: tuple[Tensor, int] = self.images[index]
        return image


def test_validation_reads_every_image_once_whatever_the_points(folder: Path, tmp_path: Path) -> None:
    chosen, model = options(folder, tmp_path), small_model(seed=8)
    data = open_data(chosen.data, model.info.classes, model.preprocessing, 0)
    counted = Counted(data.validation)
    loop = TrainingLoop(model.vit, None, dataclasses.replace(data, validation=counted), chosen, 0)
    own = [OperatingPoint(0.3, 1, 16), OperatingPoint(0.9, 1, 5), OperatingPoint(0.05, 2, 16)]
    found = loop.accuracies([None, OperatingPoint(1.0, 8, 8), OperatingPoint(1.0, 4, 4), *own])
    assert counted.reads == Counter(range(30))
    weights = {name: tensor.clone() for name, tensor in model.vit.state_dict().items()}
    prunings = [None, *(FixedPruning(Score.MEAN, 0, kept) for kept in (8, 4))]
    wanted = [accuracy(weights, pruning, folder) for pruning in prunings]
    for point in own:
        limits = torch.tensor([[point.min_keep, point.max_keep]] * 30, dtype=torch.int32)
        mass = torch.full((30,), point.mass)
        wanted.append(accuracy(weights, AdaptivePruning(Score.MEAN, 0), folder, mass, limits))
    assert found == pytest.approx(wanted)
    assert len(set(found)) > 1, "a model that answers alike at any density shows nothing"
