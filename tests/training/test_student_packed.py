"""The differentiable pass at a mass: images of their own numbers of tokens, packed, as the deployed model runs them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.models.prunable_vit import AdaptivePruning, PrunableViT, Traced
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.student import Student, unfuse_on_cpu
from tests.tiny import family, images_for, importance_of, relative_difference, small_vit
from tests.training.small import EXACT, FAMILY_SCORES, assert_same_gradients, gradients, masked

IMAGES = 5
TOLERANCE = 1e-5
ANY = OperatingPoint(0.5, 1, 16)


def patches(vit: VisionTransformer) -> int:
    return int(vit.patch_embed.num_patches)


def deployed(vit: VisionTransformer, score: Score, prune_at: int, images: Tensor, point: OperatingPoint) -> Traced:
    """What the adaptive model does with all images at one point."""
    limits = torch.tensor([[point.min_keep, point.max_keep]] * len(images), dtype=torch.int32)
    model = PrunableViT(vit, AdaptivePruning(score, prune_at))
    return model.trace(images, torch.full((len(images),), point.mass), limits)


def counts_of(traced: Traced, vit: VisionTransformer) -> list[int]:
    """Patch tokens kept of each image."""
    assert traced.counts is not None
    return [count - vit.num_prefix_tokens for count in traced.counts.tolist()]


@torch.no_grad()
def telling(vit: VisionTransformer, score: Score, prune_at: int, images: Tensor) -> OperatingPoint:
    """A mass to which images differ most in how many tokens they keep, with limits that bound nothing."""
    importance = importance_of(vit, prune_at, score, images).numpy()
    limits = np.array([[1, patches(vit)]] * len(images), dtype=np.int32)
    spread = {
        mass: len(set(mass_token_select(importance, np.full(len(images), mass, np.float32), limits, 0)[1].tolist()))
        for mass in np.linspace(0.4, 0.8, 21).tolist()
    }
    return OperatingPoint(max(spread, key=lambda mass: spread[mass]), 1, patches(vit))


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@pytest.mark.parametrize("prune_at", [0, 1, 2])
@torch.no_grad()
def test_a_mass_keeps_and_answers_what_the_deployed_model_does(name: str, score: Score, prune_at: int) -> None:
    vit = family(name)
    images = images_for(vit, IMAGES)
    student = Student(vit, score, prune_at).eval()
    dense = student(images, None)
    point = telling(vit, score, prune_at, images)
    for one in (OperatingPoint(point.mass, 7, patches(vit) - 2), point):
        wanted = deployed(vit, score, prune_at, images, one)
        counts = counts_of(wanted, vit)
        assert one.min_keep <= min(counts) <= max(counts) <= one.max_keep
        found = student(images, one)
        assert wanted.importance is not None
        assert found.density == pytest.approx(sum(counts) / len(counts) / patches(vit))
        assert relative_difference(found.logits, wanted.logits) < TOLERANCE
        assert (found.importance - wanted.importance).abs().max() < 1e-6
        assert found.importance.dtype == torch.float32
        assert torch.equal(found.importance, dense.importance)
        assert relative_difference(found.logits, student(images.flip(0), one).logits.flip(0)) < TOLERANCE
    assert len(set(counts)) > 1 and max(counts) < patches(vit), "images that all keep as many prove little"
    if prune_at < 2:  # after the last attention a class token no longer meets the others
        assert relative_difference(dense.logits, found.logits) > 1e-4, "dropping tokens changes nothing"


@pytest.mark.parametrize("fused", [True, False])
@torch.no_grad()
def test_fused_attention_or_not_changes_nothing(fused: bool) -> None:
    vit = small_vit(qk_norm=True)
    images = images_for(vit, IMAGES)
    if not fused:
        unfuse_on_cpu(vit)
    wanted = deployed(small_vit(qk_norm=True), Score.MEAN, 1, images, ANY)
    assert relative_difference(Student(vit, Score.MEAN, 1)(images, ANY).logits, wanted.logits) < TOLERANCE


def tolerance_of(vit: VisionTransformer) -> float:
    """Means and attention pooling over packed tokens run in float32, whatever the model's type."""
    in_float32 = vit.global_pool in ("avg", "avgmax", "map") and not isinstance(vit, VisionTransformerDistilled)
    return 1e-5 if in_float32 else EXACT


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
def test_gradients_equal_those_of_a_masked_pass(name: str, score: Score) -> None:
    prune_at = 1
    vit = copy.deepcopy(family(name)).double()
    images = images_for(vit, IMAGES).double()
    point = telling(family(name), score, prune_at, images.float())
    with torch.no_grad():
        traced = deployed(family(name), score, prune_at, images.float(), point)
    counts = counts_of(traced, vit)
    assert traced.keep is not None
    keep = traced.keep.bool()
    assert len(set(counts)) > 1, "images that all keep as many prove little"

    student = Student(vit, score, prune_at)
    assert student(images, point).density == pytest.approx(sum(counts) / len(counts) / patches(vit))
    found = gradients(vit, images, lambda batch: student(batch, point).logits)
    wanted = gradients(vit, images, lambda batch: masked(vit, batch, prune_at, keep))
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    assert_same_gradients(found, wanted, tolerance_of(vit))
    assert float((dense["images"] - wanted["images"]).abs().max()) > 1e-3 * float(wanted["images"].abs().max())


@pytest.mark.parametrize("name", ["vit", "deit-distilled", "siglip", "average-and-largest", "beit3-inner-norms"])
@pytest.mark.parametrize("point", [OperatingPoint(1e-6, 7, 8), OperatingPoint(0.9999, 6, 7)], ids=["least", "most"])
def test_gradients_equal_those_at_as_many_where_limits_leave_as_many(name: str, point: OperatingPoint) -> None:
    """Limits that differ are packed, whatever they come to."""
    vit = copy.deepcopy(family(name)).double()
    images = images_for(vit).double()
    student = Student(vit, Score.MEAN, 1)
    assert student(images, point).density == 7 / 16
    packed = gradients(vit, images, lambda batch: student(batch, point).logits)
    as_many = gradients(vit, images, lambda batch: student(batch, OperatingPoint(1.0, 7, 7)).logits)
    assert_same_gradients(packed, as_many, tolerance_of(vit))


@pytest.mark.parametrize(
    ("part", "module"),
    [
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
@torch.no_grad()
def test_each_part_that_drops_at_random_does_in_training_alone(part: str, module: nn.Module) -> None:
    plain, vit = small_vit(depth=2), small_vit(depth=2)
    vit.set_submodule(part, module)
    images = images_for(vit, 8)
    student = Student(vit, Score.MEAN, 0)
    still = [student.eval()(images, ANY).logits for _ in range(2)]
    assert torch.equal(*still)
    assert torch.equal(still[0], Student(plain, Score.MEAN, 0).eval()(images, ANY).logits)
    torch.manual_seed(0)
    moving = [student.train()(images, ANY) for _ in range(2)]
    assert relative_difference(moving[0].logits, still[0]) > 1e-3
    assert relative_difference(moving[0].logits, moving[1].logits) > 1e-3
    assert torch.equal(moving[0].importance, moving[1].importance)
    torch.manual_seed(0)
    assert torch.equal(student(images, ANY).logits, moving[0].logits), "the generator is the only source of chance"


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
    counts = counts_of(deployed(vit, Score.MEAN, 0, images, ANY), vit)
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


@torch.no_grad()
def test_an_image_without_numbers_spoils_no_other() -> None:
    for name in ("vit", "siglip", "average-and-largest", "largest"):
        vit = family(name)
        images = images_for(vit, 4)
        point = OperatingPoint(0.5, 1, 16)
        whole = Student(vit, Score.MEAN, 1)(images, point)
        images[1], images[2, 0, 0, 0] = float("nan"), float("inf")
        found = Student(vit, Score.MEAN, 1)(images, point)
        assert not torch.isfinite(found.logits[1:3]).any(dim=1).any(), name
        assert not torch.isfinite(found.importance[1:3]).any()
        assert relative_difference(found.logits[[0, 3]], whole.logits[[0, 3]]) < TOLERANCE
        assert found.density is not None and 0 < found.density <= 1


@torch.no_grad()
def test_importance_stays_float32_in_mixed_precision() -> None:
    for name in ("vit", "qk-norm", "siglip", "average-and-largest", "beit3-inner-norms"):
        vit = family(name)
        images = images_for(vit)
        full = Student(vit, Score.MEAN, 1)(images, ANY)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = Student(vit, Score.MEAN, 1)(images, ANY)
        assert mixed.importance.dtype == torch.float32
        assert (mixed.importance - full.importance).abs().max() < 0.02
        assert (mixed.importance.sum(dim=1) - 1).abs().max() < 1e-5
        assert torch.isfinite(mixed.logits).all()


def test_a_step_in_mixed_precision_has_gradients() -> None:
    vit = small_vit(qk_norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Student(vit, Score.MEAN, 1)(images_for(vit), ANY)
    found.logits.float().square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in vit.parameters())


@torch.no_grad()
def test_one_image_is_its_own_batch() -> None:
    vit = family("vit")
    images = images_for(vit, IMAGES)
    student = Student(vit, Score.MEAN, 1)
    together = student(images, ANY)
    alone = [student(image[None], ANY) for image in images]
    assert relative_difference(torch.cat([one.logits for one in alone]), together.logits) < TOLERANCE
    shares = [one.density for one in alone]
    assert sum(share or 0.0 for share in shares) / IMAGES == pytest.approx(together.density)
    assert len(set(shares)) > 1
