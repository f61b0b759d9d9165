"""The adaptive model: each image with its own number of tokens, against timm's blocks run on one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import Outputs, Precision
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.prunable_vit import AdaptivePruning, FixedPruning, PrunableViT, Pruning
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import Score
from tests.tiny import (
    FAMILIES,
    exactly,
    family,
    images_for,
    importance_of,
    keep_of,
    kept_tokens,
    patches_of,
    plain_features,
    plainly_adaptive,
    relative_difference,
    small_vit,
)

TOLERANCE = 1e-5
MIDDLE = AdaptivePruning(Score.MEAN, 1)
BOTH = Outputs.LOGITS_AND_FEATURES


def patches(vit: VisionTransformer) -> int:
    return int(vit.patch_embed.num_patches)


def anything(vit: VisionTransformer, batch: int) -> torch.Tensor:
    """Limits that bound nothing."""
    return torch.tensor([[1, patches(vit)]] * batch, dtype=torch.int32)


def prunings(vit: VisionTransformer) -> list[AdaptivePruning]:
    """Pruning in the first, a middle and the last block, by every score that the model has."""
    scores = list(Score) if vit.has_class_token else [Score.MEAN]
    return [AdaptivePruning(score, block) for block in (0, 1, len(vit.blocks) - 1) for score in scores]


def token_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """As relative_difference, of tokens [B, S, D]."""
    return relative_difference(found.flatten(0, 1), wanted.flatten(0, 1))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_image_is_pruned_as_if_alone(name: str) -> None:
    vit = family(name)
    images, counts = images_for(vit, 5, seed=3), [5, 1, patches(vit), 2, patches(vit) - 1]
    for pruning in prunings(vit):
        traced = PrunableViT(vit, pruning).trace(images, torch.full((5,), 0.3), exactly(counts))
        importance = importance_of(vit, pruning.prune_at, pruning.score, images)
        chosen = [kept_tokens(row[None], count)[0] for row, count in zip(importance, counts, strict=True)]
        assert traced.counts is not None and traced.keep is not None
        assert traced.counts.dtype == torch.int32
        assert traced.counts.tolist() == [vit.num_prefix_tokens + count for count in counts]
        assert torch.equal(traced.keep, keep_of(vit, chosen)), pruning
        expected = plainly_adaptive(vit, images, pruning.prune_at, chosen)
        assert traced.logits.shape == expected.shape
        assert relative_difference(traced.logits, expected) < TOLERANCE, pruning


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_features_of_dropped_tokens_are_what_they_were_when_dropped(name: str) -> None:
    vit = family(name)
    images, counts = images_for(vit, 4, seed=4), [1, 6, patches(vit), 3]
    for pruning in prunings(vit):
        traced = PrunableViT(vit, pruning, outputs=BOTH).trace(images, torch.ones(4), exactly(counts))
        assert traced.keep is not None and traced.features is not None
        expected = plain_features(vit, images, pruning.prune_at, patches_of(vit, traced.keep))
        assert traced.features.shape == expected.shape
        assert token_difference(traced.features, expected) < TOLERANCE, pruning


@pytest.mark.parametrize("name", ["vit", "siglip", "dinov2-registers"])
@torch.no_grad()
def test_the_dense_and_the_fixed_form_return_features_too(name: str) -> None:
    vit = family(name)
    images = images_for(vit)
    logits, dense = PrunableViT(vit, None, outputs=BOTH)(images)
    assert relative_difference(logits, vit(images)) < TOLERANCE
    assert token_difference(dense, vit.forward_features(images)) < TOLERANCE
    fixed = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 5), outputs=BOTH).trace(images)
    assert fixed.keep is not None and fixed.features is not None
    expected = plain_features(vit, images, 1, patches_of(vit, fixed.keep))
    assert token_difference(fixed.features, expected) < TOLERANCE
    assert token_difference(dense, expected) > TOLERANCE


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
    images, limits = images_for(vit, 8, seed=5), anything(vit, 8)
    limits[6], limits[7] = torch.tensor([9, 12]), torch.tensor([1, 3])
    seen = set()
    for mass in (torch.full((8,), 0.3), torch.linspace(0.05, 1.0, 8), torch.zeros(8), torch.full((8,), 7.0)):
        traced = PrunableViT(vit, MIDDLE).trace(images, mass, limits)
        assert traced.importance is not None and traced.keep is not None and traced.counts is not None
        importance, prefix = traced.importance.numpy(), vit.num_prefix_tokens
        keep, counts = mass_token_select(importance, mass.numpy(), limits.numpy(), prefix)
        np.testing.assert_array_equal(traced.keep.numpy(), keep)
        np.testing.assert_array_equal(traced.counts.numpy(), counts)
        expected = plainly_adaptive(vit, images, 1, patches_of(vit, keep))
        assert relative_difference(traced.logits, expected) < TOLERANCE, mass
        seen.update(counts.tolist())
    assert len(seen) >= 5


SMALL = small_vit()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(counts=st.lists(st.integers(1, 16), min_size=1, max_size=7), seed=st.integers(0, 50))
@torch.no_grad()
def test_any_mixture_of_counts_is_pruned_as_if_each_were_alone(counts: list[int], seed: int) -> None:
    images = images_for(SMALL, len(counts), seed)
    traced = PrunableViT(SMALL, MIDDLE).trace(images, torch.ones(len(counts)), exactly(counts))
    assert traced.keep is not None and traced.counts is not None
    assert traced.counts.tolist() == [1 + count for count in counts]
    expected = plainly_adaptive(SMALL, images, 1, patches_of(SMALL, traced.keep))
    assert relative_difference(traced.logits, expected) < TOLERANCE


@pytest.mark.parametrize("name", ["vit", "siglip", "average-and-largest"])
@torch.no_grad()
def test_a_forced_keep_is_obeyed(name: str) -> None:
    vit = family(name)
    images, chosen = images_for(vit, 3), [[0, 15], [3], [1, 2, 5, 8, 13]]
    module = PrunableViT(vit, MIDDLE, outputs=BOTH)
    forced = module.trace(images, keep=keep_of(vit, chosen))
    assert forced.counts is not None and forced.features is not None
    assert forced.counts.dtype == torch.int32
    assert forced.counts.tolist() == [vit.num_prefix_tokens + len(row) for row in chosen]
    assert relative_difference(forced.logits, plainly_adaptive(vit, images, 1, chosen)) < TOLERANCE
    assert token_difference(forced.features, plain_features(vit, images, 1, chosen)) < TOLERANCE
    free = module.trace(images, torch.ones(3), exactly([2, 1, 5]))
    assert relative_difference(forced.logits, free.logits) > TOLERANCE
    assert forced.importance is not None and free.importance is not None
    assert torch.equal(forced.importance, free.importance)


@torch.no_grad()
def test_a_forced_keep_goes_before_an_operating_point() -> None:
    vit = family("vit")
    images, chosen = images_for(vit, 2), [[4, 7], [0, 1, 2]]
    module = PrunableViT(vit, MIDDLE)
    alone = module.trace(images, keep=keep_of(vit, chosen))
    both = module.trace(images, torch.ones(2), anything(vit, 2), keep=keep_of(vit, chosen))
    assert torch.equal(alone.logits, both.logits)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours() -> None:
    for name in ("vit", "siglip", "average-with-prefix"):
        vit = family(name)
        images, counts = images_for(vit, 5), [7, 1, 16, 3, 3]
        module = PrunableViT(vit, MIDDLE)
        together = module(images, torch.ones(5), exactly(counts))[0]
        for order in ([4, 2, 0, 3, 1], [1], [3, 2], [2, 2, 1]):
            limits = exactly([counts[i] for i in order])
            found = module(images[order], torch.ones(len(order)), limits)[0]
            assert relative_difference(found, together[order]) < TOLERANCE, (name, order)


@pytest.mark.parametrize(
    "name", ["vit", "siglip", "dinov2-registers-swiglu", "average-and-largest", "beit3-inner-norms"]
)
@torch.no_grad()
def test_half_precision_is_close(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 4)
    half = PrunableViT(vit, MIDDLE, Precision.FP16, BOTH).trace(images, torch.ones(4), exactly([1, 5, 16, 9]))
    assert half.features is not None
    assert half.logits.dtype == half.features.dtype == torch.float32
    full = PrunableViT(vit, MIDDLE, outputs=BOTH).trace(images, keep=half.keep)
    assert full.features is not None
    assert 0 < relative_difference(half.logits, full.logits) < 2e-2
    assert 0 < token_difference(half.features, full.features) < 2e-2


@pytest.mark.parametrize(
    "point", [(), (torch.ones(3),), (None, exactly([1, 1, 1]))], ids=["neither", "mass alone", "limits alone"]
)
def test_an_operating_point_must_be_given_whole(point: tuple[torch.Tensor | None, ...]) -> None:
    vit = family("vit")
    with torch.no_grad(), pytest.raises(InvalidArgument, match="mass and keep_limits") as caught:
        PrunableViT(vit, MIDDLE)(images_for(vit), *point)
    assert caught.value.hint
