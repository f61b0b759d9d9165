"""The two halves of a model against the whole, rules for the count against what they are said to be."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.selection_parts import (
    MASS,
    THRESHOLD,
    CountRule,
    Floats,
    Reading,
    Rest,
    Stem,
    answered,
    by_calibration,
    by_clusters,
    by_power,
    counts_at,
    in_torch,
    kept,
    mean_macs,
    reading,
)
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.models.prunable_vit import PrunableViT, geometry_of
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.tokens import Score, pruned_macs
from tests.tiny import images_for, small_vit

RULES = (MASS, THRESHOLD, by_power(0.5), by_power(2.0), by_calibration(0.5))


def shares(images: int, tokens: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).exponential(size=(images, tokens)) ** 2
    return (drawn / drawn.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("score", [Score.MEAN, Score.CLS])
def test_the_halves_answer_as_the_pruned_model(score: Score) -> None:
    vit = small_vit()
    images = images_for(vit, 3)
    tokens, importance = in_torch(Stem(vit, 1))(images.numpy())
    counts = np.full(3, 5, np.int32)
    keep = kept(reading(importance, Reading(score.value)), counts, 1)
    found = answered(in_torch(Rest(vit, 1)), tokens, keep, 2)
    with torch.no_grad():
        traced = PrunableViT(vit, FixedPruning(score, 1, 5)).trace(images)
    assert traced.keep is not None
    np.testing.assert_array_equal(keep, traced.keep.numpy())
    np.testing.assert_allclose(found, traced.logits.numpy(), atol=1e-5)


def test_images_of_different_counts_are_answered_in_their_order() -> None:
    vit = small_vit()
    tokens, importance = in_torch(Stem(vit, 1))(images_for(vit, 5).numpy())
    counts, rest = np.array([3, 16, 3, 1, 9], np.int32), in_torch(Rest(vit, 1))
    keep = kept(reading(importance, Reading.MEAN), counts, 1)
    assert keep.sum(1).tolist() == (counts + 1).tolist()
    found = answered(rest, tokens, keep, 8)
    for image in range(5):
        alone = rest(tokens[image][keep[image]][None])[0][0]
        np.testing.assert_allclose(found[image], alone, atol=1e-5)


def test_every_reading_is_a_distribution_and_none_is_another() -> None:
    vit = small_vit()
    _, importance = in_torch(Stem(vit, 1))(images_for(vit, 2).numpy())
    assert importance.shape == (2, len(Reading), 16)
    np.testing.assert_allclose(importance.sum(2), 1, atol=1e-5)
    pairs = [(one, other) for one in Reading for other in Reading if one < other]
    assert all(np.abs(reading(importance, a) - reading(importance, b)).max() > 1e-4 for a, b in pairs)


@given(st.integers(0, 50), st.floats(0.02, 0.98))
def test_a_calibration_reaches_from_a_density_to_the_mass(seed: int, level: float) -> None:
    importance = shares(8, 40, seed)
    own = MASS.counts(importance, level)
    np.testing.assert_array_equal(by_calibration(1.0).counts(importance, level), own)
    np.testing.assert_array_equal(by_power(1.0).counts(importance, level), own)
    assert np.ptp(by_calibration(0.0).counts(importance, level)) == 0
    assert np.ptp(by_calibration(0.5).counts(importance, level)) <= np.ptp(own)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("seed", "share"), [(0, 0.05), (1, 0.3), (2, 0.5), (3, 0.7)])
def test_a_level_costs_at_most_what_is_asked_and_nearly_as_much(rule: CountRule, seed: int, share: float) -> None:
    geometry = geometry_of(small_vit())
    importance = shares(16, geometry.patch_tokens, seed)
    costs = [pruned_macs(geometry, 1, count) for count in range(1, geometry.patch_tokens + 1)]
    macs = costs[0] + share * (costs[-1] - costs[0])
    _, counts = counts_at(rule, importance, functools.partial(mean_macs, geometry, 1), macs)
    assert counts.min() >= 1 and counts.max() <= geometry.patch_tokens
    steps = 2.0 if "spread" in rule.name else 1.0
    assert macs - steps * (costs[-1] - costs[-2]) <= mean_macs(geometry, 1, counts) <= macs


def test_answers_that_go_together_count_as_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(60) < 0.8, rng.random(60) < 0.6
    alone = by_clusters(first, second, np.arange(60))
    together = by_clusters(np.repeat(first, 4), np.repeat(second, 4), np.repeat(np.arange(60), 4))
    difference = first.astype(float) - second
    width = 196 * difference.std(ddof=1) / 60**0.5
    assert alone.high - alone.value == pytest.approx(width)
    assert ends(together) == pytest.approx(ends(alone))


def ends(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.value, estimate.high]
