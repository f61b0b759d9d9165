"""The model at a fixed number of tokens, against a plain implementation."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import (
    VisionTransformer,
)

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.models.prunable_vit import FixedPruning, PrunableViT
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import Score
from tests.tiny import (
    FAMILIES,
    family,
    images_for,
    importance_of,
    keep_of,
    kept_tokens,
    plainly_pruned,
    relative_difference,
    small_vit,
)

TOLERANCE = 1e-4


def scores_of(vit: VisionTransformer) -> list[Score]:
    return list(Score) if vit.has_class_token else [Score.MEAN]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_mid_density_equals_a_plain_implementation(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 4, seed=1)
    for prune_at, kept in ((0, 5), (1, 1), (len(vit.blocks) - 1, 7)):
        for score in scores_of(vit):
            traced = PrunableViT(vit, FixedPruning(score, prune_at, kept)).trace(images)
            chosen = kept_tokens(importance_of(vit, prune_at, score, images), kept)
            assert traced.keep is not None
            patches = traced.keep[:, vit.num_prefix_tokens :]
            assert [row.nonzero().flatten().tolist() for row in patches] == chosen, (prune_at, score)
            expected = plainly_pruned(vit, images, prune_at, chosen)
            assert relative_difference(traced.logits, expected) < TOLERANCE, (prune_at, score)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_importance_is_read_off_the_attention(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 3, seed=2)
    for prune_at in (0, 2):
        for score in scores_of(vit):
            importance = PrunableViT(vit, FixedPruning(score, prune_at, 3)).trace(images).importance
            assert importance is not None
            assert importance.dtype == torch.float32
            assert importance.shape == (3, vit.patch_embed.num_patches)
            torch.testing.assert_close(importance.sum(dim=1), torch.ones(3), rtol=0, atol=1e-6)
            assert importance.min() >= 0
            torch.testing.assert_close(importance, importance_of(vit, prune_at, score, images), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_two_scores_choose_differently() -> None:
    vit = family("vit")
    images = images_for(vit, 8)
    kept = [PrunableViT(vit, FixedPruning(score, 1, 8)).trace(images).keep for score in Score]
    assert kept[0] is not None and kept[1] is not None
    assert not torch.equal(kept[0], kept[1])


@torch.no_grad()
def test_the_selection_is_the_reference_selection_of_its_importance() -> None:
    vit = family("dinov2-registers")
    images = images_for(vit, 6)
    traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6)).trace(images)
    assert traced.importance is not None and traced.keep is not None and traced.counts is not None
    limits = torch.full((6, 2), 6, dtype=torch.int32).numpy()
    keep, counts = mass_token_select(traced.importance.numpy(), torch.ones(6).numpy(), limits, 5)
    assert (traced.keep.numpy() == keep).all()
    assert (traced.counts.numpy() == counts).all()


@torch.no_grad()
def test_a_forced_keep_is_obeyed() -> None:
    vit = family("vit")
    images = images_for(vit, 3)
    chosen = [[0, 1, 2, 3], [12, 13, 14, 15], [0, 5, 10, 15]]
    traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images, keep=keep_of(vit, chosen))
    assert relative_difference(traced.logits, plainly_pruned(vit, images, 1, chosen)) < TOLERANCE
    free = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images)
    assert relative_difference(traced.logits, free.logits) > TOLERANCE


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch() -> None:
    vit = family("siglip")
    images = images_for(vit, 5)
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    together = module(images)[0]
    alone = torch.cat([module(image[None])[0] for image in images])
    assert relative_difference(together, alone) < TOLERANCE


def test_dropout_and_stochastic_depth_are_off() -> None:
    vit = small_vit(drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5, pos_drop_rate=0.5)
    vit.train()
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    images = images_for(vit)
    with torch.no_grad():
        assert torch.equal(module(images)[0], module(images)[0])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_half_precision_is_close(name: str) -> None:
    vit = family(name)
    images = images_for(vit)
    pruning = FixedPruning(Score.MEAN, 1, 6)
    half = PrunableViT(vit, pruning, Precision.FP16).trace(images)
    assert half.logits.dtype == torch.float32
    assert half.importance is not None and half.importance.dtype == torch.float32
    full = PrunableViT(vit, pruning).trace(images, keep=half.keep)
    assert full.importance is not None
    torch.testing.assert_close(half.importance, full.importance, rtol=0.05, atol=1e-3)
    assert 0 < relative_difference(half.logits, full.logits) < 2e-2
    (dense,) = PrunableViT(vit, None, Precision.FP16)(images)
    assert relative_difference(dense, vit(images)) < 2e-2


def test_half_precision_keeps_norms_in_float32() -> None:
    module = PrunableViT(family("clip-quickgelu"), None, Precision.FP16)
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if "norm" in name else torch.float16
        assert parameter.dtype == wanted, name


def test_extreme_logits_keep_importance_a_distribution() -> None:
    vit = small_vit()
    with torch.no_grad():
        vit.blocks[1].attn.qkv.weight.mul_(40)
        traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images_for(vit))
    assert traced.importance is not None
    torch.testing.assert_close(traced.importance.sum(dim=1), torch.ones(3), rtol=0, atol=1e-5)
