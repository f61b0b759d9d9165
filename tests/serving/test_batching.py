"""Batches of tokens: the budget holds, order holds, nothing is lost, and batches fill under load."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.serving.batching import Stage, TokenBatcher

TOKENS = 197
COUNTS = st.lists(st.integers(1, TOKENS), min_size=1, max_size=40)
SIZES = st.tuples(st.integers(1, 900), st.integers(1, 8), st.integers(1, 20))


def drained(batcher: TokenBatcher[int], counts: list[int]) -> list[tuple[Stage, tuple[int, ...], int]]:
    """Computes all that is queued; image i keeps counts[i] tokens."""
    done = []
    while (batch := batcher.take()) is not None:
        done.append((batch.stage, batch.items, batch.tokens))
        if batch.stage is Stage.STEM:
            for item in batch.items:
                batcher.add_cut(item, counts[item])
    return done


@given(COUNTS, SIZES)
def test_no_trunk_has_more_tokens_than_the_budget_but_that_of_a_single_image(
    counts: list[int], sizes: tuple[int, int, int]
) -> None:
    budget, stem_images, most = sizes
    batcher: TokenBatcher[int] = TokenBatcher(budget, stem_images, most)
    for image in range(len(counts)):
        batcher.add(image)
    for stage, items, tokens in drained(batcher, counts):
        if stage is Stage.STEM:
            assert 1 <= len(items) <= stem_images
        else:
            assert tokens == sum(counts[item] for item in items)
            assert len(items) == 1 or (tokens <= budget and len(items) <= most)


@given(COUNTS, SIZES, st.lists(st.booleans(), max_size=80), st.sets(st.integers(0, 39)))
def test_images_are_computed_once_in_the_order_of_arrival_whatever_arrives_or_leaves_between(
    counts: list[int], sizes: tuple[int, int, int], arrivals: list[bool], leaving: set[int]
) -> None:
    batcher: TokenBatcher[int] = TokenBatcher(*sizes)
    images = iter(range(len(counts)))
    order: dict[Stage, list[int]] = {stage: [] for stage in Stage}
    gone: set[int] = set()
    for arrives in [*arrivals, *[True] * len(counts), *[False] * (3 * len(counts))]:
        image = next(images, None) if arrives else None
        if image is not None:
            batcher.add(image)
            if image in leaving:
                batcher.discard(image)
                gone.add(image)
            continue
        batch = batcher.take()
        if batch is None:
            continue
        order[batch.stage] += batch.items
        if batch.stage is Stage.STEM:
            for item in batch.items:
                batcher.add_cut(item, counts[item])
    staying = [image for image in range(len(counts)) if image not in gone]
    assert order == {Stage.STEM: staying, Stage.TRUNK: staying}
    assert (batcher.waiting, batcher.cut, batcher.oldest) == (0, 0, None)


@given(COUNTS, SIZES)
def test_a_trunk_that_is_not_the_last_is_full(counts: list[int], sizes: tuple[int, int, int]) -> None:
    budget, stem_images, most = sizes
    batcher: TokenBatcher[int] = TokenBatcher(budget, stem_images, most)
    for image in range(len(counts)):
        batcher.add(image)
    trunks = [(items, tokens) for stage, items, tokens in drained(batcher, counts) if stage is Stage.TRUNK]
    for (items, tokens), (following, _) in itertools.pairwise(trunks):
        assert len(items) == most or tokens + counts[following[0]] > budget


def test_one_image_alone_waits_for_no_other() -> None:
    batcher: TokenBatcher[int] = TokenBatcher(1000, 8, 8)
    batcher.add(0)
    assert [stage for stage, _, _ in drained(batcher, [10])] == [Stage.STEM, Stage.TRUNK]


def test_what_is_discarded_behind_the_stem_no_longer_counts_towards_the_budget() -> None:
    batcher: TokenBatcher[int] = TokenBatcher(100, 8, 8)
    for item in range(3):
        batcher.add_cut(item, 50)
    batcher.discard(1)
    batch = batcher.take()
    assert batch is not None and (batch.items, batch.tokens) == ((0, 2), 100)
    assert batcher.take() is None
