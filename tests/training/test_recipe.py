"""From a recipe to timm's optimiser, schedule, Mixup and stochastic depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from sait_deploy.errors import InvalidArgument
from sait_deploy.training.options import Recipe
from sait_deploy.training.recipe import SCHEDULES, make_mixup, make_optimizer, make_schedule, set_drop_path
from tests.tiny import images_for, small_vit

STEPS = 20


def rates(**options: Any) -> list[float]:
    """The learning rate of every step of a training."""
    recipe = Recipe(**{"epochs": 10, "learning_rate": 0.5, "least_learning_rate": 1e-3, "optimizer": "sgd", **options})
    optimizer = make_optimizer(small_vit(), recipe)
    schedule = make_schedule(optimizer, recipe, STEPS)
    found = []
    for update in range(recipe.epochs * STEPS):
        schedule.step_update(update)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_matrices_decay_and_nothing_else_does() -> None:
    vit = small_vit(reg_tokens=1)
    optimizer = make_optimizer(vit, Recipe(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(vit.parameters()))
    for name, parameter in vit.named_parameters():
        if name in ("reg_token",):  # timm counts a register among the matrices
            continue
        matrix = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        assert decays[id(parameter)] == (0.1 if matrix else 0.0), name


def test_layer_decay_lowers_the_rate_from_block_to_block() -> None:
    vit = small_vit()
    recipe = Recipe(layer_decay=0.5, learning_rate=1e-2, warmup_epochs=0.0)
    optimizer = make_optimizer(vit, recipe)
    make_schedule(optimizer, recipe, STEPS).step_update(0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    blocks = [rate[id(block.attn.qkv.weight)] for block in vit.blocks]
    assert blocks == pytest.approx([blocks[-1] / 4, blocks[-1] / 2, blocks[-1]])
    assert rate[id(vit.head.weight)] == pytest.approx(1e-2)
    assert rate[id(vit.patch_embed.proj.weight)] < blocks[0]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lamb", "nadamuon"])
def test_timms_optimisers_lower_a_loss(name: str) -> None:
    vit = small_vit().train()
    images, labels = images_for(vit, 8), torch.arange(8)
    optimizer = make_optimizer(vit, Recipe(optimizer=name, learning_rate=1e-2))
    found = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(vit(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < found[0]


def test_an_optimizer_that_timm_has_not() -> None:
    with pytest.raises(InvalidArgument, match="there is no optimizer 'adamx'") as refused:
        make_optimizer(small_vit(), Recipe(optimizer="adamx"))
    assert "adamw" in refused.value.hint
    assert "bnb" not in refused.value.hint


@pytest.mark.parametrize("name", ["adahessian", "lbfgs", ""])
def test_an_optimizer_that_no_step_could_use(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"there is no optimizer {name!r}"):
        make_optimizer(small_vit(), Recipe(optimizer=name))


@pytest.mark.skipif(torch.cuda.is_available(), reason="it may be there")
@pytest.mark.parametrize("name", ["fusedadam", "bnbadam"])
def test_an_optimizer_of_another_package_says_what_is_missing(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"optimizer '{name}' cannot be had here: .*CUDA"):
        make_optimizer(small_vit(), Recipe(optimizer=name))


@pytest.mark.parametrize("name", ["sine", "plateau", "none", "", "step", "multistep", "poly"])
def test_a_schedule_that_there_is_not(name: str) -> None:
    recipe = Recipe(schedule=name)
    with pytest.raises(InvalidArgument, match=f"there is no schedule {name!r}") as refused:
        make_schedule(make_optimizer(small_vit(), recipe), recipe, STEPS)
    assert all(known in refused.value.hint for known in SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_schedules_rise_to_the_peak_and_never_again(name: str, warmup: float) -> None:
    found = rates(schedule=name, warmup_epochs=warmup)
    peak = round(warmup * STEPS)
    assert found[0] == pytest.approx(1e-3 if warmup else 0.5, rel=0.02)
    assert found[peak] == pytest.approx(0.5, rel=0.02)
    assert all(np.diff(found[: peak + 1]) > 0)
    assert all(np.diff(found[peak:]) < 0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("epochs", "warmup"), [(10, 0.0), (10, 2.0), (3, 2.0), (30, 1.5)])
def test_schedules_end_at_the_least_rate_however_many_epochs_there_are(name: str, epochs: int, warmup: float) -> None:
    """But for the step that would come after the last, and what is left of a hyperbolic tangent: 2 % of the peak."""
    found = rates(schedule=name, epochs=epochs, warmup_epochs=warmup)
    assert 1e-3 <= found[-1] < 0.01
    middle = found[round((warmup + (epochs - warmup) / 2) * STEPS)]
    assert middle == pytest.approx({"cosine": 0.25, "tanh": 0.491}[name], rel=0.1)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_of_hardly_any_steps(epochs: int) -> None:
    recipe = Recipe(epochs=epochs)
    optimizer = make_optimizer(small_vit(), recipe)
    schedule = make_schedule(optimizer, recipe, 1)
    for update in range(epochs):
        schedule.step_update(update)
        assert 0 < optimizer.param_groups[0]["lr"] <= recipe.learning_rate


def test_mixup_mixes_images_and_labels() -> None:
    assert make_mixup(Recipe(), 10, 80) is None
    mixup = make_mixup(Recipe(mixup=0.8, batch=8, label_smoothing=0.1), 10, 80)
    np.random.seed(0)
    images, labels = mixup(torch.randn(8, 3, 32, 32), torch.arange(8))
    assert images.shape == (8, 3, 32, 32)
    assert labels.shape == (8, 10)
    assert torch.allclose(labels.sum(dim=1), torch.ones(8))
    assert (labels > 0.011).sum() > 8, "some image has two labels"
    assert make_mixup(Recipe(cutmix=1.0, batch=8), 10, 80) is not None


@pytest.mark.parametrize("which", ["mixup", "cutmix"])
@pytest.mark.parametrize(("batch", "images"), [(7, 100), (64, 7)])
def test_mixup_of_an_odd_batch(which: str, batch: int, images: int) -> None:
    """Fewer images than a batch has are a batch of their own."""
    recipe = Recipe(batch=batch, **dict[str, Any]({which: 0.5}))
    with pytest.raises(InvalidArgument, match="a batch has 7") as refused:
        make_mixup(recipe, 10, images)
    assert "--batch" in refused.value.hint


def test_stochastic_depth_rises_from_nothing() -> None:
    vit = small_vit(depth=5, drop_path_rate=0.9)
    names = list(vit.state_dict())
    set_drop_path(vit, 0.4)
    found = [block.drop_path1.drop_prob if isinstance(block.drop_path1, DropPath) else 0.0 for block in vit.blocks]
    again = [block.drop_path2.drop_prob if isinstance(block.drop_path2, DropPath) else 0.0 for block in vit.blocks]
    assert found == again == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert list(vit.state_dict()) == names
    set_drop_path(vit, 0.0)
    assert not any(isinstance(module, DropPath) for module in vit.modules())
    set_drop_path(small_vit(depth=1), 0.4)
