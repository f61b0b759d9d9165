"""The differentiable pass with as many tokens of every image: equal to the deployed one, with masking's gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import DropPath, PatchDropout
from torch import Tensor

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.prunable_vit import FixedPruning, PrunableViT
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.losses import importance_divergence
from sait_deploy.training.student import Student, unfuse_on_cpu
from tests.tiny import (
    attention_weights,
    family,
    images_for,
    importance_of,
    keep_of,
    kept_tokens,
    relative_difference,
    small_vit,
)
from tests.training.small import EXACT, FAMILY_SCORES, assert_same_gradients, gradients, masked

KEPT = 7
AS_MANY = OperatingPoint(1.0, KEPT, KEPT)
POINTS = [None, AS_MANY, OperatingPoint(0.5, 1, 16)]
TOLERANCE = 1e-5


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@pytest.mark.parametrize("prune_at", [0, 1, 2])
@torch.no_grad()
def test_the_pass_equals_the_deployed_model(name: str, score: Score, prune_at: int) -> None:
    vit = family(name)
    images = images_for(vit)
    student = Student(vit, score, prune_at).eval()
    logits, importance, density = student(images, AS_MANY)
    wanted = PrunableViT(vit, FixedPruning(score, prune_at, KEPT)).trace(images)
    assert wanted.importance is not None
    assert relative_difference(logits, wanted.logits) < TOLERANCE
    assert (importance - wanted.importance).abs().max() < 1e-6
    assert importance.dtype == torch.float32
    assert density == KEPT / vit.patch_embed.num_patches
    dense, seen, whole = student(images, None)
    assert whole is None
    assert relative_difference(dense, vit(images)) < TOLERANCE
    assert torch.equal(seen, importance), "what is dropped afterwards changes nothing in it"
    if prune_at < 2:  # after the last attention a class token no longer meets the others
        assert relative_difference(dense, logits) > 1e-3, "dropping tokens changes nothing: the comparison is blind"


@torch.no_grad()
def test_attention_as_on_the_cpu_gives_the_same_answers() -> None:
    vit = small_vit(qk_norm=True)
    images = images_for(vit)
    fused = Student(vit, Score.MEAN, 1)(images, AS_MANY)
    unfuse_on_cpu(vit)
    assert not any(block.attn.fused_attn for block in vit.blocks)
    assert relative_difference(Student(vit, Score.MEAN, 1)(images, AS_MANY).logits, fused.logits) < TOLERANCE


@torch.no_grad()
def test_a_mass_has_no_say_where_limits_leave_no_choice() -> None:
    vit = small_vit()
    images = images_for(vit)
    found = Student(vit, Score.MEAN, 1)(images, OperatingPoint(0.2, KEPT, KEPT))
    assert found.density == KEPT / 16
    assert torch.equal(found.logits, Student(vit, Score.MEAN, 1)(images, AS_MANY).logits)


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
def test_gradients_equal_those_of_a_masked_pass(name: str, score: Score) -> None:
    prune_at = 1
    vit = copy.deepcopy(family(name)).double()
    images = images_for(vit).double()
    with torch.no_grad():
        chosen = kept_tokens(importance_of(vit, prune_at, score, images).float(), KEPT)
    keep = keep_of(vit, chosen).bool()
    assert len({tuple(patches) for patches in chosen}) > 1, "images that all keep the same tokens prove little"

    student = Student(vit, score, prune_at)
    found = gradients(vit, images, lambda batch: student(batch, AS_MANY).logits)
    wanted = gradients(vit, images, lambda batch: masked(vit, batch, prune_at, keep))
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    assert_same_gradients(found, wanted)
    assert float((dense["images"] - wanted["images"]).abs().max()) > 1e-3 * float(wanted["images"].abs().max())
    last = vit.blocks[-1].mlp.fc1.weight if hasattr(vit.blocks[-1].mlp, "fc1") else vit.blocks[-1].norm1.weight
    assert last.grad is not None and float(last.grad.abs().max()) > 0


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


@pytest.mark.parametrize("rates", ["path", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_rate"])
@pytest.mark.parametrize("point", POINTS, ids=["dense", "as many", "mass"])
@torch.no_grad()
def test_what_is_dropped_at_random_is_dropped_in_training_alone(rates: str, point: OperatingPoint | None) -> None:
    vit = small_vit(depth=1) if rates == "path" else small_vit(depth=1, **{rates: 0.5})
    if rates == "path":
        vit.blocks[0].drop_path1 = vit.blocks[0].drop_path2 = DropPath(0.5)
    images = images_for(vit, 16)
    student = Student(vit, Score.MEAN, 0)
    still = [student.eval()(images, point).logits for _ in range(2)]
    assert torch.equal(*still)
    assert relative_difference(still[0], Student(small_vit(depth=1), Score.MEAN, 0)(images, point).logits) < TOLERANCE
    torch.manual_seed(0)
    moving = [student.train()(images, point).logits for _ in range(2)]
    assert relative_difference(moving[0], still[0]) > 1e-3
    assert relative_difference(*moving) > 1e-3
    torch.manual_seed(0)
    assert torch.equal(student(images, point).logits, moving[0]), "the generator is the only source of chance"


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


@pytest.mark.parametrize("name", ["vit", "deit-distilled", "siglip", "rmsnorm-register"])
def test_no_parameter_is_added(name: str) -> None:
    vit = copy.deepcopy(family(name))
    before = {key: tensor.clone() for key, tensor in vit.state_dict().items()}
    student = Student(vit, Score.MEAN, 1)
    student(images_for(vit), AS_MANY).logits.sum().backward()
    assert list(vit.state_dict()) == list(before)
    assert {id(p) for p in student.parameters()} == {id(p) for p in vit.parameters()}
    assert list(student.state_dict()) == [f"vit.{key}" for key in before]
    assert all(torch.equal(vit.state_dict()[key], tensor) for key, tensor in before.items())


@torch.no_grad()
def test_importance_stays_float32_in_mixed_precision() -> None:
    vit = family("vit")
    images = images_for(vit)
    full = Student(vit, Score.MEAN, 1)(images, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = Student(vit, Score.MEAN, 1)(images, AS_MANY)
    assert mixed.importance.dtype == torch.float32
    assert (mixed.importance - full.importance).abs().max() < 0.02
    assert (mixed.importance.sum(dim=1) - 1).abs().max() < 1e-5


@torch.no_grad()
def test_importance_is_what_its_definition_says() -> None:
    vit = family("deit-distilled")
    images = images_for(vit)
    seen = attention_weights(vit, 1, images)[:, :, 0, 2:].mean(dim=1)
    found = Student(vit, Score.CLS, 1)(images, None).importance
    assert (found - seen / seen.sum(dim=1, keepdim=True)).abs().max() < 1e-6


@pytest.mark.parametrize("prune_at", [-1, 3])
def test_a_block_that_is_not_there_is_refused(prune_at: int) -> None:
    with pytest.raises(InvalidArgument, match=f"prune_at {prune_at}"):
        Student(small_vit(), Score.MEAN, prune_at)


def test_a_score_by_a_class_token_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="class token"):
        Student(small_vit(class_token=False, global_pool="avg"), Score.CLS, 1)


def test_a_model_that_drops_patches_at_random_is_refused() -> None:
    vit = small_vit(patch_drop_rate=0.25)
    assert isinstance(vit.patch_drop, PatchDropout)
    with pytest.raises(ModelError, match="drops patches at random") as refused:
        Student(vit, Score.MEAN, 1)
    assert "patch_drop_rate" in refused.value.hint


def test_a_model_of_another_class_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear"):
        Student(torch.nn.Linear(2, 2), Score.MEAN, 0)
