"""The differentiable pass: equal to the deployed model at every point, with the gradients of a masked pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from timm.layers import PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sait_deploy.errors import ModelError
from sait_deploy.models.families import transformer_of
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.traced import Traced
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.layouts import DifferentiableUniform, FusedUniform
from sait_deploy.training.losses import importance_divergence
from sait_deploy.training.student import Student
from tests import plain
from tests.tiny import (
    FAMILY_SCORES,
    family,
    images_for,
    importance_of,
    relative_difference,
    small_vit,
)
from tests.training.small import EXACT, assert_same_gradients, gradients, masked

IMAGES = 5
KEPT = 7
AS_MANY = OperatingPoint(1.0, KEPT, KEPT)
ANY = OperatingPoint(0.5, 1, 16)
POINTS = [None, AS_MANY, ANY]
TOLERANCE = 1e-5


def patches(vit: VisionTransformer) -> int:
    return int(vit.patch_embed.num_patches)


def deployed(vit: VisionTransformer, score: Score, prune_at: int, images: Tensor, point: OperatingPoint) -> Traced:
    """What the deployed model does with all images at one point."""
    if point.min_keep == point.max_keep:
        return PrunableViT(vit, FixedPruning(score, prune_at, point.max_keep)).trace(images)
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
def test_the_pass_equals_the_deployed_model(name: str, score: Score, prune_at: int) -> None:
    vit = family(name)
    images = images_for(vit, IMAGES)
    student = Student(vit, score, prune_at).eval()
    dense = student(images, None)
    mass = telling(vit, score, prune_at, images)
    for point in (AS_MANY, OperatingPoint(mass.mass, 7, patches(vit) - 2), mass):
        wanted = deployed(vit, score, prune_at, images, point)
        counts = counts_of(wanted, vit)
        assert point.min_keep <= min(counts) <= max(counts) <= point.max_keep
        found = student(images, point)
        assert wanted.importance is not None
        assert found.density == pytest.approx(sum(counts) / len(counts) / patches(vit))
        assert relative_difference(found.logits, wanted.logits) < TOLERANCE
        assert (found.importance - wanted.importance).abs().max() < 1e-6
        assert found.importance.dtype == torch.float32
        assert torch.equal(found.importance, dense.importance), "what is dropped afterwards changes nothing in it"
        assert relative_difference(found.logits, student(images.flip(0), point).logits.flip(0)) < TOLERANCE
        if prune_at < 2:  # after the last attention a class token no longer meets the others
            assert relative_difference(dense.logits, found.logits) > 1e-4, "dropping tokens changes nothing"
    assert len(set(counts)) > 1 and max(counts) < patches(vit), "images that all keep as many prove little"


@pytest.mark.parametrize("name", ["vit", "qk-norm", "siglip"])
def test_fused_attention_has_the_same_answers_and_gradients(name: str) -> None:
    vit = copy.deepcopy(family(name)).double()
    transformer, images = transformer_of(vit), images_for(vit).double()
    tokens = transformer.shape().geometry.tokens

    def logits(kind: type[DifferentiableUniform], batch: Tensor) -> Tensor:
        layout = kind.of(len(batch), tokens, batch.device)
        x = transformer.run(transformer.embed(batch), layout, 0, transformer.depth).x
        return transformer.readout(transformer.normed(x), layout)

    fused = gradients(vit, images, lambda batch: logits(FusedUniform, batch))
    products = gradients(vit, images, lambda batch: logits(DifferentiableUniform, batch))
    assert_same_gradients(fused, products)
    with torch.no_grad():
        assert relative_difference(logits(FusedUniform, images), logits(DifferentiableUniform, images)) < EXACT


@torch.no_grad()
def test_a_mass_has_no_say_where_limits_leave_no_choice() -> None:
    vit = small_vit()
    images = images_for(vit)
    found = Student(vit, Score.MEAN, 1)(images, OperatingPoint(0.2, KEPT, KEPT))
    assert found.density == KEPT / 16
    assert torch.equal(found.logits, Student(vit, Score.MEAN, 1)(images, AS_MANY).logits)


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@pytest.mark.parametrize("by_mass", [False, True], ids=["as many", "mass"])
def test_gradients_equal_those_of_a_masked_pass(name: str, score: Score, by_mass: bool) -> None:
    prune_at = 1
    vit = copy.deepcopy(family(name)).double()
    images = images_for(vit, IMAGES).double()
    point = telling(family(name), score, prune_at, images.float()) if by_mass else AS_MANY
    with torch.no_grad():
        traced = deployed(family(name), score, prune_at, images.float(), point)
    counts = counts_of(traced, vit)
    assert traced.keep is not None
    keep = traced.keep.bool()
    assert len(set(counts)) > 1 or not by_mass, "images that all keep as many prove little"
    assert len({tuple(row) for row in keep.tolist()}) > 1, "images that all keep the same tokens prove little"

    student = Student(vit, score, prune_at)
    assert student(images, point).density == pytest.approx(sum(counts) / len(counts) / patches(vit))
    found = gradients(vit, images, lambda batch: student(batch, point).logits)
    wanted = gradients(vit, images, lambda batch: masked(vit, batch, prune_at, keep))
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    assert_same_gradients(found, wanted)
    assert float((dense["images"] - wanted["images"]).abs().max()) > 1e-3 * float(wanted["images"].abs().max())
    last = vit.blocks[-1].mlp.fc1.weight if hasattr(vit.blocks[-1].mlp, "fc1") else vit.blocks[-1].norm1.weight
    assert last.grad is not None and float(last.grad.abs().max()) > 0


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
    assert_same_gradients(packed, as_many)


def test_keeping_all_tokens_has_the_gradients_of_a_dense_step() -> None:
    vit = small_vit().double()
    images = images_for(vit).double()
    student = Student(vit, Score.MEAN, 1)
    whole = gradients(vit, images, lambda batch: student(batch, OperatingPoint(1.0, 16, 16)).logits)
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    for name, gradient in dense.items():
        assert float((whole[name] - gradient).abs().max()) <= EXACT * float(gradient.abs().max()), name


@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("point", POINTS, ids=["dense", "as many", "mass"])
def test_the_divergence_of_importance_teaches_queries_and_keys_up_to_the_block_pruned_in(
    score: Score, point: OperatingPoint | None
) -> None:
    vit = small_vit(depth=4)
    images = images_for(vit)
    student = Student(vit, score, 2)
    wanted = torch.softmax(torch.randn(len(images), 16, generator=torch.Generator().manual_seed(1)), dim=1)
    importance_divergence(student(images, point).importance, wanted).backward()  # type: ignore[no-untyped-call]
    width = vit.embed_dim
    for block in vit.blocks[:3]:
        grad = block.attn.qkv.weight.grad
        assert grad is not None
        queries, keys = grad[:width], grad[width : 2 * width]
        assert float(queries.abs().max()) > 1e-6
        assert float(keys.abs().max()) > 1e-6
    scored = vit.blocks[2].attn.qkv.weight.grad
    assert scored is not None
    assert float(scored[2 * width :].abs().max()) == 0, "values have no part in importance"
    assert float(vit.blocks[1].attn.qkv.weight.grad[2 * width :].abs().max()) > 1e-6
    assert vit.patch_embed.proj.weight.grad is not None
    later = [*vit.blocks[3].parameters(), *vit.blocks[2].mlp.parameters(), *vit.head.parameters()]
    assert all(parameter.grad is None for parameter in later)


@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("point", POINTS[1:], ids=["as many", "mass"])
def test_no_gradient_flows_through_the_selection(score: Score, point: OperatingPoint) -> None:
    """Importance itself hangs on the parameters, and the logits do not hang on it."""
    vit = small_vit()
    logits, importance, _ = Student(vit, score, 1)(images_for(vit), point)
    assert importance.requires_grad
    (through,) = torch.autograd.grad(logits.sum(), importance, allow_unused=True, retain_graph=True)
    assert through is None
    assert torch.autograd.grad(importance[0, 0], vit.blocks[1].attn.qkv.weight)[0].abs().max() > 0


@torch.no_grad()
def test_importance_stays_float32_in_mixed_precision() -> None:
    for name in ("vit", "qk-norm", "siglip", "average-and-largest", "beit3-inner-norms"):
        vit = family(name)
        images = images_for(vit)
        full = Student(vit, Score.MEAN, 1)(images, None)
        for point in POINTS:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mixed = Student(vit, Score.MEAN, 1)(images, point)
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
def test_importance_is_what_its_definition_says() -> None:
    vit = family("deit-distilled")
    images = images_for(vit)
    seen = plain.attention_weights(vit, 1, images)[:, :, 0, 2:].mean(dim=1)
    found = Student(vit, Score.CLS, 1)(images, None).importance
    assert (found - seen / seen.sum(dim=1, keepdim=True)).abs().max() < 1e-6


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


def test_a_model_that_drops_patches_at_random_is_refused() -> None:
    vit = small_vit(patch_drop_rate=0.25)
    assert isinstance(vit.patch_drop, PatchDropout)
    with pytest.raises(ModelError, match="drops patches at random") as refused:
        Student(vit, Score.MEAN, 1)
    assert "patch_drop_rate" in refused.value.hint
