"""Buckets of packed rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.runtime.token_buckets import STEP, bucket_of, lanes_of

sizes = st.integers(1, 300_000).flatmap(lambda most: st.tuples(st.integers(1, most), st.just(most)))


@given(sizes)
def test_a_bucket_holds_the_batch_and_hardly_more(size: tuple[int, int]) -> None:
    total, most = size
    bucket = bucket_of(total, most)
    assert total <= bucket <= most
    # Small batches are rounded up to a multiple of 8, and that again before the step down.
    assert bucket <= STEP * total + 16


@given(sizes)
def test_a_bucket_is_its_own(size: tuple[int, int]) -> None:
    bucket = bucket_of(*size)
    assert bucket_of(bucket, size[1]) == bucket


@given(sizes, st.integers(0, 1000))
def test_more_tokens_take_no_smaller_bucket(size: tuple[int, int], more: int) -> None:
    total, most = size
    assert bucket_of(min(total + more, most), most) >= bucket_of(total, most)


@given(st.integers(1, 4096).flatmap(lambda tokens: st.tuples(st.integers(1, tokens), st.just(tokens))))
def test_lanes_hold_the_longest_image_and_are_few(size: tuple[int, int]) -> None:
    longest, tokens = size
    lanes = lanes_of(longest, tokens)
    assert longest <= lanes <= tokens and lanes - longest < 32
    assert lanes_of(lanes, tokens) == lanes


def test_a_batch_size_has_few_buckets() -> None:
    """DeiT-S at batch 256, whatever is kept."""
    most = 256 * 197
    assert len({bucket_of(total, most) for total in range(2 * 256, most + 1)}) <= 85
