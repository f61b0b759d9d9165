"""The pruned model, at a fixed number of tokens and adaptive, against timm's blocks run on one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import Outputs, Precision
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning
from sait_deploy.models.traced import Traced
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import Score
from tests.tiny import (
    FAMILIES,
    FAMILY_SCORES,
    exactly,
    family,
    images_for,
    importance_of,
    keep_of,
    kept_tokens,
    patches_of,
    plain_features,
    plainly_pruned,
    relative_difference,
    small_vit,
)

TOLERANCE = 1e-5
MIDDLE = AdaptivePruning(Score.MEAN, 1)
BOTH = Outputs.LOGITS_AND_FEATURES
UNEQUAL, EQUAL = [5, 1, 16, 2, 15], [7] * 5
FORMS = pytest.mark.parametrize("counts", [EQUAL, UNEQUAL], ids=["fixed", "adaptive"])
"""Patch tokens that five images keep: as many of each is what the fixed form runs, the others take the adaptive one."""


def patches(vit: VisionTransformer) -> int:
    return int(vit.patch_embed.num_patches)


def traced_at(
    vit: VisionTransformer,
    counts: list[int],
    images: torch.Tensor,
    score: Score = Score.MEAN,
    block: int = 1,
    precision: Precision = Precision.FP32,
) -> Traced:
    """What the model does when it keeps so many patch tokens of each image, with features."""
    if len(set(counts)) == 1:
        return PrunableViT(vit, FixedPruning(score, block, counts[0]), precision, BOTH).trace(images)
    module = PrunableViT(vit, AdaptivePruning(score, block), precision, BOTH)
    return module.trace(images, torch.full((len(counts),), 0.3), exactly(counts))


def token_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """As relative_difference, of tokens [B, S, D]."""
    return relative_difference(found.flatten(0, 1), wanted.flatten(0, 1))


@FORMS
@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@torch.no_grad()
def test_every_image_is_pruned_as_if_alone(name: str, score: Score, counts: list[int]) -> None:
    vit = family(name)
    images = images_for(vit, 5, seed=3)
    for block in range(len(vit.blocks)):
        traced = traced_at(vit, counts, images, score, block)
        importance = importance_of(vit, block, score, images)
        chosen = [kept_tokens(row[None], count)[0] for row, count in zip(importance, counts, strict=True)]
        assert traced.counts is not None and traced.keep is not None and traced.importance is not None
        assert traced.counts.dtype == torch.int32
        assert traced.counts.tolist() == [vit.num_prefix_tokens + len(row) for row in chosen]
        assert torch.equal(traced.keep, keep_of(vit, chosen)), block
        assert relative_difference(traced.logits, plainly_pruned(vit, images, block, chosen)) < TOLERANCE, block

        assert traced.features is not None
        expected = plain_features(vit, images, block, chosen)
        assert traced.features.shape == expected.shape
        assert token_difference(traced.features, expected) < TOLERANCE, "dropped tokens stay as they were when dropped"

        assert traced.importance.dtype == torch.float32
        torch.testing.assert_close(traced.importance.sum(dim=1), torch.ones(5), rtol=0, atol=1e-6)
        assert traced.importance.min() >= 0
        torch.testing.assert_close(traced.importance, importance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pruning", [None, FixedPruning(Score.MEAN, 1, 5), MIDDLE])
@torch.no_grad()
def test_features_come_between_logits_and_counts_and_only_when_asked_for(pruning: Pruning | None) -> None:
    vit = family("vit")
    points = (torch.ones(2), exactly([4, 9])) if pruning is MIDDLE else ()
    plain = PrunableViT(vit, pruning)(images_for(vit, 2), *points)
    both = PrunableViT(vit, pruning, outputs=BOTH)(images_for(vit, 2), *points)
    selected = [] if pruning is None else [(2,)]
    assert [tuple(x.shape) for x in plain] == [(2, 1000), *selected]
    assert [tuple(x.shape) for x in both] == [(2, 1000), (2, 17, 48), *selected]
    assert torch.equal(plain[0], both[0])


@pytest.mark.parametrize("name", ["vit", "dinov2-registers", "siglip"])
@torch.no_grad()
def test_a_mass_keeps_what_the_reference_selection_keeps(name: str) -> None:
    vit = family(name)
    images, limits = images_for(vit, 8, seed=5), torch.tensor([[1, patches(vit)]] * 8, dtype=torch.int32)
    limits[6], limits[7] = torch.tensor([9, 12]), torch.tensor([1, 3])
    seen = set()
    for mass in (torch.full((8,), 0.3), torch.linspace(0.05, 1.0, 8), torch.zeros(8), torch.full((8,), 7.0)):
        traced = PrunableViT(vit, MIDDLE).trace(images, mass, limits)
        assert traced.importance is not None and traced.keep is not None and traced.counts is not None
        importance, prefix = traced.importance.numpy(), vit.num_prefix_tokens
        keep, counts = mass_token_select(importance, mass.numpy(), limits.numpy(), prefix)
        np.testing.assert_array_equal(traced.keep.numpy(), keep)
        np.testing.assert_array_equal(traced.counts.numpy(), counts)
        expected = plainly_pruned(vit, images, 1, patches_of(vit, keep))
        assert relative_difference(traced.logits, expected) < TOLERANCE, mass
        seen.update(counts.tolist())
    assert len(seen) >= 5


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


SMALL = small_vit()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(counts=st.lists(st.integers(1, 16), min_size=1, max_size=7), seed=st.integers(0, 50))
@torch.no_grad()
def test_any_mixture_of_counts_is_pruned_as_if_each_were_alone(counts: list[int], seed: int) -> None:
    images = images_for(SMALL, len(counts), seed)
    traced = PrunableViT(SMALL, MIDDLE).trace(images, torch.ones(len(counts)), exactly(counts))
    assert traced.keep is not None and traced.counts is not None
    assert traced.counts.tolist() == [1 + count for count in counts]
    expected = plainly_pruned(SMALL, images, 1, patches_of(SMALL, traced.keep))
    assert relative_difference(traced.logits, expected) < TOLERANCE


@FORMS
@pytest.mark.parametrize("name", ["vit", "siglip", "average-and-largest"])
@torch.no_grad()
def test_a_forced_keep_is_obeyed(name: str, counts: list[int]) -> None:
    vit = family(name)
    images, fixed = images_for(vit, 3), counts is EQUAL
    chosen = [[0, 1], [12, 13], [5, 15]] if fixed else [[0, 15], [3], [1, 2, 5, 8, 13]]
    free = traced_at(vit, [2, 2, 2] if fixed else [2, 1, 5], images)
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 2) if fixed else MIDDLE, outputs=BOTH)
    forced = module.trace(images, keep=keep_of(vit, chosen))
    assert forced.counts is not None and forced.features is not None
    assert forced.counts.dtype == torch.int32
    assert forced.counts.tolist() == [vit.num_prefix_tokens + len(row) for row in chosen]
    assert relative_difference(forced.logits, plainly_pruned(vit, images, 1, chosen)) < TOLERANCE
    assert token_difference(forced.features, plain_features(vit, images, 1, chosen)) < TOLERANCE
    assert relative_difference(forced.logits, free.logits) > TOLERANCE
    assert forced.importance is not None and free.importance is not None
    assert torch.equal(forced.importance, free.importance)


@torch.no_grad()
def test_a_forced_keep_goes_before_an_operating_point() -> None:
    vit = family("vit")
    images, chosen = images_for(vit, 2), [[4, 7], [0, 1, 2]]
    module = PrunableViT(vit, MIDDLE)
    alone = module.trace(images, keep=keep_of(vit, chosen))
    both = module.trace(
        images, torch.ones(2), torch.tensor([[1, 16]] * 2, dtype=torch.int32), keep=keep_of(vit, chosen)
    )
    assert torch.equal(alone.logits, both.logits)


@FORMS
@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(counts: list[int]) -> None:
    for name in ("vit", "siglip", "average-with-prefix"):
        vit = family(name)
        images = images_for(vit, 5)
        together = traced_at(vit, counts, images).logits
        for order in ([4, 2, 0, 3, 1], [1], [3, 2], [2, 2, 1]):
            found = traced_at(vit, [counts[i] for i in order], images[order]).logits
            assert relative_difference(found, together[order]) < TOLERANCE, (name, order)


@FORMS
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_half_precision_is_close(name: str, counts: list[int]) -> None:
    vit = family(name)
    images = images_for(vit, 5)
    half = traced_at(vit, counts, images, precision=Precision.FP16)
    assert half.features is not None and half.importance is not None
    assert half.logits.dtype == half.features.dtype == half.importance.dtype == torch.float32
    pruning = FixedPruning(Score.MEAN, 1, counts[0]) if counts is EQUAL else MIDDLE
    full = PrunableViT(vit, pruning, outputs=BOTH).trace(images, keep=half.keep)
    assert full.features is not None and full.importance is not None
    torch.testing.assert_close(half.importance, full.importance, rtol=0.05, atol=1e-3)
    assert 0 < relative_difference(half.logits, full.logits) < 2e-2
    assert 0 < token_difference(half.features, full.features) < 2e-2
    (dense,) = PrunableViT(vit, None, Precision.FP16)(images)
    assert relative_difference(dense, vit(images)) < 2e-2


def test_half_precision_keeps_norms_in_float32() -> None:
    module = PrunableViT(family("clip-quickgelu"), None, Precision.FP16)
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if "norm" in name else torch.float16
        assert parameter.dtype == wanted, name


@torch.no_grad()
def test_the_two_scores_choose_differently() -> None:
    vit = family("vit")
    images = images_for(vit, 8)
    kept = [PrunableViT(vit, FixedPruning(score, 1, 8)).trace(images).keep for score in Score]
    assert kept[0] is not None and kept[1] is not None
    assert not torch.equal(kept[0], kept[1])


def test_extreme_logits_keep_importance_a_distribution() -> None:
    vit = small_vit()
    with torch.no_grad():
        vit.blocks[1].attn.qkv.weight.mul_(40)
        traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images_for(vit))
    assert traced.importance is not None
    torch.testing.assert_close(traced.importance.sum(dim=1), torch.ones(3), rtol=0, atol=1e-5)


def test_dropout_and_stochastic_depth_are_off() -> None:
    vit = small_vit(drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5, pos_drop_rate=0.5)
    vit.train()
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    images = images_for(vit)
    with torch.no_grad():
        assert torch.equal(module(images)[0], module(images)[0])


@pytest.mark.parametrize(
    "point", [(), (torch.ones(3),), (None, exactly([1, 1, 1]))], ids=["neither", "mass alone", "limits alone"]
)
def test_an_operating_point_must_be_given_whole(point: tuple[torch.Tensor | None, ...]) -> None:
    vit = family("vit")
    with torch.no_grad(), pytest.raises(InvalidArgument, match="mass and keep_limits") as caught:
        PrunableViT(vit, MIDDLE)(images_for(vit), *point)
    assert caught.value.hint
