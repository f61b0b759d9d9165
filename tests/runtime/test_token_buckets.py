"""Buckets of packed rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.runtime.token_buckets import STEP, bucket_of

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


def test_a_batch_size_has_few_buckets() -> None:
    """DeiT-S at batch 256, whatever is kept."""
    most = 256 * 197
    assert len({bucket_of(total, most) for total in range(2 * 256, most + 1)}) <= 85
