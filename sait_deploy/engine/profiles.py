"""Optimisation profiles: which shapes an engine takes, and which of them it is tuned for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, IMAGES, KEEP_LIMITS, KEPT, LANES, MASS, TOKENS
from sait_deploy.tokens import most_images

_APART: Final = 1.25
"""Two numbers of kept rows whose ratio is below this share a profile: kernels tuned for one suit the other."""

_MOST_PROFILES: Final = 6

Shape = tuple[int, ...]


class PartName(StrEnum):
    """The engines that an artifact becomes."""

    MODEL = "model"
    STEM = "stem"
    TRUNK = "trunk"


@dataclass(frozen=True, slots=True)
class Range:
    """Shapes of one input: the smallest, what is tuned for, and the largest."""

    smallest: Shape
    optimum: Shape
    largest: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.smallest) and all(
            low <= size <= high for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes of every input of one engine."""

    ranges: dict[str, Range]


def parts_of(manifest: Manifest) -> tuple[PartName, ...]:
    """Returns the engines that an artifact becomes: an adaptive one two, the others one."""
    return (PartName.STEM, PartName.TRUNK) if manifest.form is Form.ADAPTIVE else (PartName.MODEL,)


def profiles(manifest: Manifest, batch: BatchRange, builder: BuilderName) -> dict[PartName, tuple[Profile, ...]]:
    """Returns the profiles of each engine of an artifact.

    TensorRT tunes kernels at a profile's optimum, so a trunk gets one profile for each number of rows that its points
    lead to. TensorRT for RTX builds kernels for the shapes it meets when it runs, so one profile is enough.

    Raises:
        InvalidArgument: the batch has more tokens than int32 counts.
    """
    most = most_images(manifest.model.geometry)
    if batch.largest > most:
        raise InvalidArgument(f"a batch of {batch.largest} images has more tokens than int32 counts", f"at most {most}")
    image = manifest.preprocessing.channels, *manifest.model.image_size
    images = Range(*((size, *image) for size in _sizes(batch)))
    if manifest.form is not Form.ADAPTIVE:
        return {PartName.MODEL: (Profile({IMAGES: images}),)}
    mass = Range(*((size,) for size in _sizes(batch)))
    limits = Range(*((size, 2) for size in _sizes(batch)))
    stem = Profile({IMAGES: images, MASS: mass, KEEP_LIMITS: limits})
    optima = _optima(manifest, batch)
    if builder is BuilderName.TENSORRT_RTX:
        optima = optima[:1]
    return {PartName.STEM: (stem,), PartName.TRUNK: tuple(_trunk_profiles(manifest, batch, optima))}


def _sizes(batch: BatchRange) -> tuple[int, int, int]:
    return batch.smallest, batch.optimum, batch.largest


@dataclass(frozen=True, slots=True)
class _Optimum:
    """What one profile is tuned for: images, rows of all of them, rows of the longest."""

    batch: int
    rows: int
    longest: int


def _optima(manifest: Manifest, batch: BatchRange) -> list[_Optimum]:
    """Lists what to tune for: the default point at each batch size, other points and dense at the optimum.

    The default point at the optimum comes first; others that are near one already chosen are left out.
    """
    geometry = manifest.model.geometry
    prefix, tokens = geometry.prefix_tokens, geometry.tokens
    assert manifest.pruning is not None
    points = [(info.kept.mean + prefix, info.kept.most + prefix) for info in manifest.pruning.points]
    wanted = [(size, *points[0]) for size in dict.fromkeys((batch.optimum, batch.largest, batch.smallest))]
    wanted += [(batch.optimum, *point) for point in points[1:]]
    wanted.append((batch.optimum, tokens, tokens))
    chosen: list[_Optimum] = []
    for size, mean, longest in wanted:
        rows = min(max(round(size * mean), size * (prefix + 1), int(longest)), size * tokens)
        near = any(max(rows, other.rows) < _APART * min(rows, other.rows) for other in chosen)
        if not near and len(chosen) < _MOST_PROFILES:
            chosen.append(_Optimum(size, rows, int(longest)))
    return chosen


def _trunk_profiles(manifest: Manifest, batch: BatchRange, optima: list[_Optimum]) -> list[Profile]:
    """Returns a profile for each optimum; neighbouring profiles meet at the geometric mean of their rows."""
    geometry = manifest.model.geometry
    optima = sorted(optima, key=lambda optimum: optimum.rows)
    fewest, tokens = max(1, geometry.prefix_tokens), geometry.tokens
    edges = [math.isqrt(low.rows * high.rows) for low, high in pairwise(optima)]
    lows = [batch.smallest * fewest, *(edge + 1 for edge in edges)]
    highs = [*edges, batch.largest * tokens]
    return [
        _trunk_profile(manifest, batch, optimum, low, high)
        for optimum, low, high in zip(optima, lows, highs, strict=True)
    ]


def _trunk_profile(manifest: Manifest, batch: BatchRange, optimum: _Optimum, low: int, high: int) -> Profile:
    geometry = manifest.model.geometry
    tokens, fewest = geometry.tokens, max(1, geometry.prefix_tokens)
    smallest = max(batch.smallest, math.ceil(low / tokens))
    largest = min(batch.largest, high // fewest)
    sizes = (smallest, min(max(optimum.batch, smallest), largest), largest)
    return Profile(
        {
            TOKENS: Range(*((size * tokens, geometry.width) for size in sizes)),
            CU_SEQLENS: Range(*((size + 1,) for size in sizes)),
            GUARD: Range(*((size, 1) for size in sizes)),
            KEPT: Range((low,), (optimum.rows,), (high,)),
            LANES: Range((fewest,), (optimum.longest,), (tokens,)),
        }
    )


def choose_profile(among: tuple[Profile, ...], shapes: dict[str, Shape]) -> int | None:
    """Returns the index of the profile that takes these shapes, tuned nearest to them; None where none does."""
    fitting = [
        (sum(_distance(profile.ranges[name], shape) for name, shape in shapes.items()), index)
        for index, profile in enumerate(among)
        if all(profile.ranges[name].holds(shape) for name, shape in shapes.items())
    ]
    return min(fitting)[1] if fitting else None


def _distance(span: Range, shape: Shape) -> float:
    return sum(abs(math.log(size / optimum)) for size, optimum in zip(shape, span.optimum, strict=True))
