"""Inputs of MassTokenSelect: large random batches for comparing forms, and hypothesis strategies for small ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from tests.plugins.forms import Floats, Ints

PREFIXES = (0, 1, 2, 3, 4, 5)
MAX_PATCHES = 4096
STEP = 2.0**-20
"""The resolution of the selection: importance is compared in steps of this size."""

_ROWS_PER_BATCH = 90
_SPREAD_SIZES = 12
_BELOW_ONE = float(np.nextafter(np.float32(1), 0))
# A flat row of 10, 100 or 1,000 patches reaches a tenth exactly in float32, and just misses it in float64.
_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_FIXED_SIZES = (1, 2, 10, 100, 196, 1000, MAX_PATCHES - 1, MAX_PATCHES)
_MASSES = (0.0, 1.2e-38, 1e-6, *_TENTHS, 0.95, 0.99, 0.999, _BELOW_ONE, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """One call's inputs: importance float32 [B, N], mass float32 [B], keep_limits int32 [B, 2], and the prefix."""

    importance: Floats
    mass: Floats
    keep_limits: Ints
    prefix: int


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return shares


def _random_importance(rng: np.random.Generator, rows: int, patches: int) -> Floats:
    """Gives every row one of nine kinds of score, in turn from a random start."""
    exponential = rng.exponential(size=(rows, patches))
    kind = (np.arange(rows) + rng.integers(9)) % 9
    peaked = _normalised(exponential ** rng.uniform(1.5, 6, (rows, 1)))
    # Few distinct values and so many ties, or many values and few ties.
    highest = np.where(rng.random((rows, 1)) < 0.5, min(12, 2**20 // patches), 2**20 // patches)
    kinds = (
        peaked,
        _normalised(rng.uniform(0.9, 1.1, (rows, patches))),
        np.full((rows, patches), 1 / patches),
        _normalised(np.round(exponential * 3)),
        np.zeros((rows, patches)),
        rng.uniform(0, STEP / 2, (rows, patches)),
        # Halfway between two steps, where rounding to even and rounding up part.
        (rng.integers(0, highest, (rows, patches)) + 0.5) * STEP,
        # A sum that is not 1: well below it, or above it by as much as the precondition allows.
        peaked * np.where(rng.random((rows, 1)) < 0.5, rng.random((rows, 1)), 1 + 2.0**-11),
        # A few real scores, the rest below the resolution.
        np.where(rng.random((rows, patches)) < 0.1, peaked, exponential * STEP / 64),
    )
    importance: Floats = np.clip(np.choose(kind[:, None], kinds), 0, 1).astype(np.float32)
    return importance


def _random_limits(rng: np.random.Generator, rows: int, patches: int) -> Ints:
    """Draws (min_keep, max_keep) of ten kinds, among them min above max and limits beyond N."""
    one, other = rng.integers(0, patches + 1, (2, rows))
    low, high = np.minimum(one, other), np.maximum(one, other)
    none, all_of_them = np.zeros(rows, dtype=np.int64), np.full(rows, patches)
    kinds = (
        (none, all_of_them),
        (none + 1, all_of_them),
        (none, none),
        (none + 1, none + 1),
        (one, one),
        (all_of_them, all_of_them),
        (low, high),
        (high, low),
        (low, all_of_them + 9),
        (all_of_them + 7, none),
    )
    kind = rng.integers(len(kinds), size=rows)
    return np.stack([np.choose(kind, [pair[side] for pair in kinds]) for side in (0, 1)], axis=1).astype(np.int32)


def _random_batch(rng: np.random.Generator, rows: int, patches: int, prefix: int) -> Batch:
    mass = np.where(rng.random(rows) < 0.6, rng.choice(_MASSES, rows), rng.random(rows)).astype(np.float32)
    limits = _random_limits(rng, rows, patches)
    return Batch(_random_importance(rng, rows, patches), mass, limits, prefix)


@cache
def large_batches() -> tuple[tuple[Batch, Ints, Ints], ...]:
    """Returns over 10,000 rows, with the reference's keep and counts: every prefix, N from 1 to 4,096."""
    rng = np.random.default_rng(20)
    cases = []
    for prefix in PREFIXES:
        spread = np.rint(np.exp(rng.uniform(0, np.log(MAX_PATCHES), _SPREAD_SIZES))).astype(int)
        for patches in (*_FIXED_SIZES, *(int(size) for size in spread)):
            batch = _random_batch(rng, _ROWS_PER_BATCH, patches, prefix)
            cases.append((batch, *mass_token_select(batch.importance, batch.mass, batch.keep_limits, prefix)))
    return tuple(cases)


def masses() -> st.SearchStrategy[float]:
    """Masses at and around the thresholds, and anywhere from 0 to 2; each is a float32."""
    floats = st.floats(0, 2, width=32, allow_subnormal=False)
    return st.sampled_from([float(np.float32(mass)) for mass in _MASSES]) | floats


@st.composite
def score_rows(draw: st.DrawFn, patches: int) -> list[float]:
    """One image's importance in half steps, so that every value and every tie is exact in float32."""
    half_steps = st.integers(0, 4) | st.integers(0, 2**21 // patches)
    return [value * STEP / 2 for value in draw(st.lists(half_steps, min_size=patches, max_size=patches))]


@st.composite
def small_batches(draw: st.DrawFn, max_patches: int = 12) -> Batch:
    """Batches of one to four images with a few patches each, every image at its own operating point."""
    rows, patches = draw(st.integers(1, 4)), draw(st.integers(1, max_patches))
    keep_limit = st.integers(0, patches + 2)
    return Batch(
        importance=np.array([draw(score_rows(patches)) for _ in range(rows)], dtype=np.float32),
        mass=np.array([draw(masses()) for _ in range(rows)], dtype=np.float32),
        keep_limits=np.array([[draw(keep_limit), draw(keep_limit)] for _ in range(rows)], dtype=np.int32),
        prefix=draw(st.sampled_from(PREFIXES)),
    )
