"""Profiles: every shape that a request can have is taken, each profile is in order, and points are tuned for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, Profile, Range, Shape, choose_profile, parts_of, profiles
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, IMAGES, KEEP_LIMITS, KEPT, LANES, MASS, TOKENS
from sait_deploy.tokens import most_images
from tests.engine.cases import RTX, TRT, adaptive_manifest
from tests.exported import draft

DEIT = {"patches": 196, "prefix": 1, "width": 384}
POINTS = ((100.0, 120), (40.0, 60), (190.0, 196))
BATCH = BatchRange(1, 8, 32)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Adaptive artifacts of any size, with any points."""
    patches = draw(st.integers(1, 300))
    kept = st.integers(1, patches).flatmap(lambda most: st.tuples(st.floats(1, most), st.just(most)))
    points = draw(st.lists(kept, min_size=1, max_size=5))
    return adaptive_manifest(patches, draw(st.integers(0, 5)), 32, tuple(points))


BATCHES = st.lists(st.integers(1, 64), min_size=3, max_size=3).map(lambda sizes: BatchRange(*sorted(sizes)))
BUILDERS = st.sampled_from(BuilderName)


@functools.cache
def fixed() -> Manifest:
    return draft()


def trunk(manifest: Manifest, batch: BatchRange, builder: BuilderName) -> tuple[Profile, ...]:
    return profiles(manifest, batch, builder)[PartName.TRUNK]


def shapes(manifest: Manifest, images: int, rows: int, longest: int) -> dict[str, Shape]:
    """Shapes of a request after the seam."""
    geometry = manifest.model.geometry
    return {
        TOKENS: (images * geometry.tokens, geometry.width),
        CU_SEQLENS: (images + 1,),
        GUARD: (images, 1),
        KEPT: (rows,),
        LANES: (longest,),
    }


@given(st.data(), manifests(), BATCHES, BUILDERS)
def test_every_request_is_taken(
    data: st.DataObject, manifest: Manifest, batch: BatchRange, builder: BuilderName
) -> None:
    geometry = manifest.model.geometry
    fewest = max(1, geometry.prefix_tokens)
    images = data.draw(st.integers(batch.smallest, batch.largest))
    rows = data.draw(st.integers(images * fewest, images * geometry.tokens))
    longest = data.draw(st.integers(max(fewest, math.ceil(rows / images)), geometry.tokens))
    among = trunk(manifest, batch, builder)
    wanted = shapes(manifest, images, rows, longest)
    index = choose_profile(among, wanted)
    assert index is not None
    assert all(among[index].ranges[name].holds(shape) for name, shape in wanted.items())
    stem = {IMAGES: (images, 3, *manifest.model.image_size), MASS: (images,), KEEP_LIMITS: (images, 2)}
    assert choose_profile(profiles(manifest, batch, builder)[PartName.STEM], stem) == 0


@given(st.data(), manifests(), BATCHES, BUILDERS)
def test_what_no_request_can_have_is_not_taken(
    data: st.DataObject, manifest: Manifest, batch: BatchRange, builder: BuilderName
) -> None:
    tokens, fewest = manifest.model.geometry.tokens, max(1, manifest.model.geometry.prefix_tokens)
    among = trunk(manifest, batch, builder)
    images = data.draw(st.integers(batch.smallest, batch.largest))
    good = shapes(manifest, images, images * tokens, tokens)
    assert choose_profile(among, good) is not None
    wrong = [
        shapes(manifest, images, images * tokens, tokens + 1),
        shapes(manifest, images, images * tokens, fewest - 1),
        shapes(manifest, batch.largest + 1, (batch.largest + 1) * fewest, tokens),
        shapes(manifest, batch.largest, batch.largest * tokens + 1, tokens),
        shapes(manifest, batch.smallest, batch.smallest * fewest - 1, tokens),
        good | {TOKENS: (images * tokens,)},
    ]
    assert [choose_profile(among, shape) for shape in wrong] == [None] * len(wrong)


@given(manifests(), BATCHES, BUILDERS)
def test_every_range_is_in_order(manifest: Manifest, batch: BatchRange, builder: BuilderName) -> None:
    for among in profiles(manifest, batch, builder).values():
        assert among
        for profile in among:
            for span in profile.ranges.values():
                for low, optimum, high in zip(span.smallest, span.optimum, span.largest, strict=True):
                    assert 1 <= low <= optimum <= high


@given(manifests(), BATCHES, BUILDERS)
def test_bands_of_rows_neither_overlap_nor_leave_gaps(
    manifest: Manifest, batch: BatchRange, builder: BuilderName
) -> None:
    geometry = manifest.model.geometry
    bands = [profile.ranges[KEPT] for profile in trunk(manifest, batch, builder)]
    assert bands[0].smallest == (batch.smallest * max(1, geometry.prefix_tokens),)
    assert bands[-1].largest == (batch.largest * geometry.tokens,)
    for lower, upper in itertools.pairwise(bands):
        assert upper.smallest[0] == lower.largest[0] + 1


@given(manifests(), BATCHES)
def test_the_optima_are_a_request_that_can_be(manifest: Manifest, batch: BatchRange) -> None:
    """What a kernel is tuned for is a batch whose longest image holds its share of the rows."""
    geometry = manifest.model.geometry
    for profile in trunk(manifest, batch, BuilderName.TENSORRT):
        (sequences,), (rows,), (longest,) = (profile.ranges[name].optimum for name in (CU_SEQLENS, KEPT, LANES))
        images = sequences - 1
        assert batch.smallest <= images <= batch.largest
        assert profile.ranges[TOKENS].optimum == (images * geometry.tokens, geometry.width)
        assert profile.ranges[GUARD].optimum == (images, 1)
        assert images * max(1, geometry.prefix_tokens) <= rows <= images * geometry.tokens
        assert math.ceil(rows / images) <= longest <= geometry.tokens


def test_tensorrt_gets_a_profile_for_each_number_of_rows_that_its_points_lead_to() -> None:
    manifest = adaptive_manifest(**DEIT, points=POINTS)
    found = trunk(manifest, BATCH, TRT)
    tuned = {
        (p.ranges[CU_SEQLENS].optimum[0] - 1, p.ranges[KEPT].optimum[0], p.ranges[LANES].optimum[0]) for p in found
    }
    default_at_each_batch = {(1, 121, 121), (8, 8 * 101, 121), (32, 32 * 101, 121)}
    others_at_the_optimum = {(8, 8 * 41, 61), (8, 8 * 191, 197)}
    assert tuned == default_at_each_batch | others_at_the_optimum


def test_rows_that_are_nearly_the_same_share_a_profile_and_the_default_points_stays() -> None:
    near = trunk(adaptive_manifest(**DEIT, points=((100.0, 120), (105.0, 130))), BatchRange(8, 8, 8), TRT)
    assert [profile.ranges[KEPT].optimum for profile in near] == [(808,), (1576,)]


def test_many_points_are_not_many_profiles() -> None:
    points = tuple((float(mean), mean + 2) for mean in (4, 8, 12, 20, 35, 60, 90, 140))
    assert 2 <= len(trunk(adaptive_manifest(**DEIT, points=points), BatchRange(1, 16, 256), TRT)) <= 8


@pytest.mark.parametrize("points", [POINTS, POINTS[::-1], POINTS[:1]])
def test_rtx_gets_one_profile_tuned_for_the_default_point(points: tuple[tuple[float, int], ...]) -> None:
    (profile,) = trunk(adaptive_manifest(**DEIT, points=points), BATCH, RTX)
    mean, most = points[0]
    assert profile.ranges[KEPT] == Range((1,), (round(8 * (mean + 1)),), (32 * 197,))
    assert profile.ranges[LANES] == Range((1,), (most + 1,), (197,))
    assert profile.ranges[TOKENS] == Range((197, 384), (8 * 197, 384), (32 * 197, 384))
    assert profile.ranges[CU_SEQLENS] == Range((2,), (9,), (33,))


@pytest.mark.parametrize("builder", BuilderName)
def test_a_dense_or_density_engine_has_one_part_and_one_profile(builder: BuilderName) -> None:
    manifest = draft()
    height, width = manifest.model.image_size
    (profile,) = profiles(manifest, BATCH, builder)[PartName.MODEL]
    assert parts_of(manifest) == (PartName.MODEL,)
    assert profile.ranges == {IMAGES: Range(*((size, 3, height, width) for size in (1, 8, 32)))}


def test_an_adaptive_engine_has_a_stem_and_a_trunk() -> None:
    manifest = adaptive_manifest()
    assert parts_of(manifest) == (PartName.STEM, PartName.TRUNK)
    assert tuple(profiles(manifest, BATCH, RTX)) == parts_of(manifest)


@given(manifests(), st.integers(0, 10**9))
def test_a_batch_of_more_tokens_than_int32_counts_is_refused(manifest: Manifest, beyond: int) -> None:
    most = most_images(manifest.model.geometry)
    assume(most + 1 + beyond < 2**31)
    for source in (manifest, dataclasses.replace(fixed(), model=manifest.model)):
        with pytest.raises(InvalidArgument, match="more tokens than int32 counts") as caught:
            profiles(source, BatchRange(1, 1, most + 1 + beyond), RTX)
        assert caught.value.hint == f"at most {most}"
        assert profiles(source, BatchRange(1, 1, most), RTX)


def spans(*optima: int, smallest: int = 1, largest: int = 100) -> tuple[Profile, ...]:
    return tuple(Profile({"x": Range((smallest,), (optimum,), (largest,))}) for optimum in optima)


@pytest.mark.parametrize(("size", "index"), [(1, 0), (4, 0), (6, 1), (10, 1), (31, 1), (32, 2), (100, 2)])
def test_of_several_profiles_the_one_tuned_nearest_is_chosen(size: int, index: int) -> None:
    """Nearest by factors: 31 lies nearer to 10 than to 100, and 32 the other way round."""
    assert choose_profile(spans(2, 10, 100), {"x": (size,)}) == index


def test_a_profile_that_is_nearer_but_does_not_take_the_shape_is_passed_over() -> None:
    among = (*spans(10, largest=10), *spans(100))
    assert choose_profile(among, {"x": (11,)}) == 1
    assert choose_profile(among, {"x": (10,)}) == 0
    assert choose_profile(among, {"x": (101,)}) is None
    assert choose_profile((), {"x": (1,)}) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True))
def test_what_a_profile_is_tuned_for_it_gets(optima: list[int]) -> None:
    among = spans(*optima)
    for index, optimum in enumerate(optima):
        assert choose_profile(among, {"x": (optimum,)}) == index
