"""What the differentiable pass drops at random: in training alone, and stochastic depth by whole images."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.student import Student
from tests.tiny import images_for, importance_of, relative_difference, small_vit

TOLERANCE = 1e-5
ANY = OperatingPoint(0.5, 1, 16)
POINTS = [None, OperatingPoint(1.0, 7, 7), ANY]


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("pos_drop", nn.Dropout(0.5)),
        ("blocks.0.attn.attn_drop", nn.Dropout(0.5)),
        ("blocks.0.attn.proj_drop", nn.Dropout(0.5)),
        ("blocks.0.drop_path1", DropPath(0.5)),
        ("blocks.0.drop_path2", DropPath(0.5)),
        ("blocks.0.mlp.drop1", nn.Dropout(0.5)),
        ("blocks.0.mlp.drop2", nn.Dropout(0.5)),
        ("blocks.1.drop_path1", DropPath(0.5)),
        ("blocks.1.drop_path2", DropPath(0.5)),
        ("blocks.1.attn.attn_drop", nn.Dropout(0.5)),
        ("blocks.1.attn.proj_drop", nn.Dropout(0.5)),
        ("blocks.1.mlp.drop1", nn.Dropout(0.5)),
        ("head_drop", nn.Dropout(0.5)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("point", POINTS, ids=["dense", "as many", "mass"])
@torch.no_grad()
def test_each_part_that_drops_at_random_does_in_training_alone(
    part: str, module: nn.Module, point: OperatingPoint | None
) -> None:
    plain, vit = small_vit(depth=2), small_vit(depth=2)
    vit.set_submodule(part, module)
    images = images_for(vit, 8)
    student = Student(vit, Score.MEAN, 0)
    still = [student.eval()(images, point).logits for _ in range(2)]
    assert torch.equal(*still)
    assert torch.equal(still[0], Student(plain, Score.MEAN, 0).eval()(images, point).logits)
    torch.manual_seed(0)
    moving = [student.train()(images, point) for _ in range(2)]
    assert relative_difference(moving[0].logits, still[0]) > 1e-3
    assert relative_difference(moving[0].logits, moving[1].logits) > 1e-3
    assert part == "pos_drop" or torch.equal(moving[0].importance, moving[1].importance)
    torch.manual_seed(0)
    assert torch.equal(student(images, point).logits, moving[0].logits), "the generator is the only source of chance"


@pytest.mark.parametrize("pool", ["avg", "max", "map"])
@torch.no_grad()
def test_dropout_before_the_head_of_a_pooling_model(pool: str) -> None:
    vit = small_vit(depth=2, global_pool=pool, drop_rate=0.5)
    vit.pos_drop = nn.Identity()
    for block in vit.blocks:
        block.mlp.drop1 = block.mlp.drop2 = nn.Identity()
    images = images_for(vit, 8)
    student = Student(vit, Score.MEAN, 0).train()
    assert not torch.equal(student(images, ANY).logits, student(images, ANY).logits)


@torch.no_grad()
def test_stochastic_depth_reaches_both_halves_of_the_block_pruned_in() -> None:
    """At a rate of nearly one only the scale of a survivor could betray a half that is never dropped."""
    vit = small_vit(depth=1)
    images = images_for(vit, 64)
    student = Student(vit, Score.MEAN, 0)
    vit.blocks[0].drop_path1 = vit.blocks[0].drop_path2 = torch.nn.Identity()
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    vit.blocks[0].drop_path1 = vit.blocks[0].drop_path2 = _Nothing()
    logits = student.train()(images, None).logits
    assert torch.allclose(logits, vit.forward_head(vit.norm(x)), atol=1e-6)


class _Nothing(torch.nn.Module):
    """Stochastic depth that always drops."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@torch.no_grad()
def test_dropout_of_attention_leaves_importance_as_deployed() -> None:
    vit = small_vit(attn_drop_rate=0.5, depth=2)
    images = images_for(vit)
    expected = importance_of(vit, 0, Score.MEAN, images)
    found = Student(vit, Score.MEAN, 0).train()(images, None).importance
    assert (found - expected).abs().max() < 1e-6


class Scaled(nn.Module):
    """Stochastic depth whose draw is known."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def with_paths(make: Callable[[], nn.Module]) -> VisionTransformer:
    """A model with stochastic depth, each made anew, wherever packed tokens meet it."""
    vit = small_vit(depth=2)
    vit.blocks[0].drop_path2, vit.blocks[1].drop_path1, vit.blocks[1].drop_path2 = make(), make(), make()
    return vit


@torch.no_grad()
def test_stochastic_depth_drops_whole_images() -> None:
    """Each image's answer is what it is alone where every path is dropped whole or scaled up whole."""
    vit, images = with_paths(lambda: DropPath(0.5)), images_for(small_vit(), 24)
    limits = torch.tensor([[1, 16]] * 24, dtype=torch.int32)
    traced = PrunableViT(vit, AdaptivePruning(Score.MEAN, 0)).trace(images, torch.full((24,), ANY.mass), limits)
    assert traced.counts is not None
    counts = (traced.counts - vit.num_prefix_tokens).tolist()
    assert len(set(counts)) > 2
    torch.manual_seed(3)
    found = Student(vit, Score.MEAN, 0).train()(images, ANY).logits
    draws = list(itertools.product((0.0, 2.0), repeat=3))
    alone = torch.empty(len(draws), *found.shape)
    for index, scales in enumerate(draws):
        given = iter(scales)
        known = Student(with_paths(lambda given=given: Scaled(next(given))), Score.MEAN, 0)  # type: ignore[misc]
        for row, count in enumerate(counts):
            alone[index, row] = known(images[row : row + 1], OperatingPoint(1.0, count, count)).logits[0]
    differences = (alone - found).abs().amax(dim=2)
    nearest = differences.argmin(dim=0)
    assert float(differences.amin(dim=0).max()) < 1e-5
    assert float(differences.sort(dim=0).values[1].min()) > 1e-3, "draws that cannot be told apart"
    drawn = [draws[index] for index in nearest.tolist()]
    assert all({scales[path] for scales in drawn} == {0.0, 2.0} for path in range(3))
    assert len(set(drawn)) > 3, "paths and images draw alike"
