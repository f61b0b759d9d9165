"""The differentiable pass: equal to the deployed one, with the gradients of a model that masks what it drops."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers import DropPath, PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models import FixedPruning, PrunableViT
from sait_deploy.schedule import Score
from sait_deploy.training.losses import importance_divergence
from sait_deploy.training.student import Student, unfuse_on_cpu
from tests.tiny import (
    FAMILIES,
    attention_weights,
    family,
    images_for,
    importance_of,
    kept_tokens,
    relative_difference,
    small_vit,
)

KEPT = 7
TOLERANCE = 1e-5
EXACT = 1e-10


def scores_of(vit: VisionTransformer) -> list[Score]:
    return list(Score) if vit.has_class_token else [Score.MEAN]


CASES = [(name, score) for name in FAMILIES for score in scores_of(family(name))]


@pytest.mark.parametrize(("name", "score"), CASES)
@pytest.mark.parametrize("prune_at", [0, 1, 2])
@torch.no_grad()
def test_the_pass_equals_the_deployed_model(name: str, score: Score, prune_at: int) -> None:
    vit = family(name)
    images = images_for(vit)
    student = Student(vit, score, prune_at).eval()
    logits, importance = student(images, KEPT)
    wanted = PrunableViT(vit, FixedPruning(score, prune_at, KEPT)).trace(images)
    assert wanted.importance is not None
    assert relative_difference(logits, wanted.logits) < TOLERANCE
    assert (importance - wanted.importance).abs().max() < 1e-6
    assert importance.dtype == torch.float32
    dense, seen = student(images, None)
    assert relative_difference(dense, vit(images)) < TOLERANCE
    assert torch.equal(seen, importance), "what is dropped afterwards changes nothing in it"
    if prune_at < 2:  # after the last attention a class token no longer meets the others
        assert relative_difference(dense, logits) > 1e-3, "dropping tokens changes nothing: the comparison is blind"


@torch.no_grad()
def test_attention_as_on_the_cpu_gives_the_same_answers() -> None:
    vit = small_vit(qk_norm=True)
    images = images_for(vit)
    fused = Student(vit, Score.MEAN, 1)(images, KEPT)
    unfuse_on_cpu(vit)
    assert not any(block.attn.fused_attn for block in vit.blocks)
    assert relative_difference(Student(vit, Score.MEAN, 1)(images, KEPT).logits, fused.logits) < TOLERANCE


def masked(vit: VisionTransformer, images: Tensor, prune_at: int, keep: Tensor) -> Tensor:
    """The forward pass in which dropped tokens stay, but nobody attends to them and the readout leaves them out.

    Args:
        vit: any.
        images: [B, 3, H, W].
        prune_at: block after whose attention tokens are dropped.
        keep: bool [B, P+N], as many in every image.
    """
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    for index, block in enumerate(vit.blocks):
        attn, h = block.attn, block.norm1(x)
        batch, tokens, _ = h.shape
        qkv = attn.qkv(h).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim)
        q, k, v = attn.q_norm(qkv[:, :, 0]), attn.k_norm(qkv[:, :, 1]), qkv[:, :, 2]
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * attn.head_dim**-0.5
        if index > prune_at:
            scores = scores.masked_fill(~keep[:, None, None, :], float("-inf"))
        y = torch.einsum("bhqk,bkhd->bqhd", torch.softmax(scores, dim=-1), v)
        x = x + block.ls1(attn.proj(attn.norm(y.reshape(batch, tokens, -1))))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    read = vit.norm(x)[keep].reshape(len(images), int(keep[0].sum()), -1)
    logits: Tensor = vit.forward_head(read)
    return logits


def loss_of(logits: Tensor) -> Tensor:
    """Something of which every logit's gradient is a value of its own."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=logits.dtype)
    return (logits * weights).sum() + torch.logsumexp(logits, dim=1).sum() + logits.square().mean()


def gradients(vit: VisionTransformer, images: Tensor, forward: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Gradients of all parameters and of the images; zero where none reaches."""
    vit.zero_grad(set_to_none=True)
    images = images.clone().requires_grad_()
    loss_of(forward(images)).backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    found = {name: p.grad for name, p in vit.named_parameters()}
    return {
        "images": images.grad,
        **{name: torch.zeros_like(p) if found[name] is None else found[name] for name, p in vit.named_parameters()},
    }


@pytest.mark.parametrize(("name", "score"), CASES)
def test_gradients_equal_those_of_a_masked_pass(name: str, score: Score) -> None:
    prune_at = 1
    vit = copy.deepcopy(family(name)).double()
    images = images_for(vit).double()
    with torch.no_grad():
        chosen = kept_tokens(importance_of(vit, prune_at, score, images).float(), KEPT)
    keep = torch.zeros(len(images), vit.num_prefix_tokens + vit.patch_embed.num_patches, dtype=torch.bool)
    keep[:, : vit.num_prefix_tokens] = True
    for row, patches in zip(keep, chosen, strict=True):
        row[[vit.num_prefix_tokens + i for i in patches]] = True
    assert len({tuple(patches) for patches in chosen}) > 1, "images that all keep the same tokens prove little"

    student = Student(vit, score, prune_at)
    found = gradients(vit, images, lambda batch: student(batch, KEPT).logits)
    wanted = gradients(vit, images, lambda batch: masked(vit, batch, prune_at, keep))
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name_, gradient in wanted.items():
        scale = max(float(gradient.abs().max()), 1e-6 * largest)
        assert float((found[name_] - gradient).abs().max()) < EXACT * scale, name_
    assert float((dense["images"] - wanted["images"]).abs().max()) > 1e-3 * float(wanted["images"].abs().max())
    last = vit.blocks[-1].mlp.fc1.weight if hasattr(vit.blocks[-1].mlp, "fc1") else vit.blocks[-1].norm1.weight
    assert last.grad is not None and float(last.grad.abs().max()) > 0


def test_keeping_all_tokens_has_the_gradients_of_a_dense_step() -> None:
    vit = small_vit().double()
    images = images_for(vit).double()
    student = Student(vit, Score.MEAN, 1)
    whole = gradients(vit, images, lambda batch: student(batch, vit.patch_embed.num_patches).logits)
    dense = gradients(vit, images, lambda batch: student(batch, None).logits)
    for name, gradient in dense.items():
        assert float((whole[name] - gradient).abs().max()) <= EXACT * float(gradient.abs().max()), name


@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("kept", [None, KEPT])
def test_the_divergence_of_importance_teaches_queries_and_keys_up_to_the_block_pruned_in(
    score: Score, kept: int | None
) -> None:
    vit = small_vit(depth=4)
    images = images_for(vit)
    student = Student(vit, score, 2)
    wanted = torch.softmax(torch.randn(len(images), 16, generator=torch.Generator().manual_seed(1)), dim=1)
    importance_divergence(student(images, kept).importance, wanted).backward()  # type: ignore[no-untyped-call]
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
def test_no_gradient_flows_through_the_selection(score: Score) -> None:
    """Importance itself hangs on the parameters, and the logits do not hang on it."""
    vit = small_vit()
    logits, importance = Student(vit, score, 1)(images_for(vit), KEPT)
    assert importance.requires_grad
    (through,) = torch.autograd.grad(logits.sum(), importance, allow_unused=True, retain_graph=True)
    assert through is None
    assert torch.autograd.grad(importance[0, 0], vit.blocks[1].attn.qkv.weight)[0].abs().max() > 0


@pytest.mark.parametrize("rates", ["path", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_rate"])
@pytest.mark.parametrize("kept", [None, KEPT])
@torch.no_grad()
def test_what_is_dropped_at_random_is_dropped_in_training_alone(rates: str, kept: int | None) -> None:
    vit = small_vit(depth=1) if rates == "path" else small_vit(depth=1, **{rates: 0.5})
    if rates == "path":
        vit.blocks[0].drop_path1 = vit.blocks[0].drop_path2 = DropPath(0.5)
    images = images_for(vit, 16)
    student = Student(vit, Score.MEAN, 0)
    still = [student.eval()(images, kept).logits for _ in range(2)]
    assert torch.equal(*still)
    assert relative_difference(still[0], Student(small_vit(depth=1), Score.MEAN, 0)(images, kept).logits) < TOLERANCE
    torch.manual_seed(0)
    moving = [student.train()(images, kept).logits for _ in range(2)]
    assert relative_difference(moving[0], still[0]) > 1e-3
    assert relative_difference(*moving) > 1e-3
    torch.manual_seed(0)
    assert torch.equal(student(images, kept).logits, moving[0]), "the generator is the only source of chance"


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
    student(images_for(vit), KEPT).logits.sum().backward()
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
        mixed = Student(vit, Score.MEAN, 1)(images, KEPT)
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
