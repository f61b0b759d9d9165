"""What is measured: forced distributions of kept tokens, and the operating points of each artifact."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import Pruning
from sait_deploy.bench.variants import NO_SWEEP, RunnableVariant, Sweep, runnable_variants
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime import load
from sait_deploy.tokens import OperatingPoint, Score
from tests.exported import TinyExport, draft_adaptive
from tests.tiny import random_batch

PATCHES = 36
"""Patch tokens of the small model."""

FORCED = KeptDistribution(12, 5)


@pytest.mark.parametrize("text", ["", "105", ":", "105:", ":25", "a:b", "105:25:3", "105,25", "1O5:25"])
def test_what_is_no_mean_and_spread_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="are not MEAN:SD") as caught:
        KeptDistribution.parse(text)
    assert repr(text) in caught.value.message
    assert "105:25" in caught.value.hint


@pytest.mark.parametrize("text", ["0:1", "0.9:1", "-5:2", "105:-1", "nan:1", "105:nan", "inf:1", "105:inf", "1e999:1"])
def test_numbers_that_no_images_keep_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be") as caught:
        KeptDistribution.parse(text)
    assert "105:25" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "mean", "sd"), [("105:25", 105, 25), ("98.4:0", 98.4, 0), (" 1 : 3.5 ", 1, 3.5), ("1:0", 1, 0)]
)
def test_mean_and_spread_are_read(text: str, mean: float, sd: float) -> None:
    assert KeptDistribution.parse(text) == KeptDistribution(mean, sd)


@pytest.mark.parametrize(("images", "shortfall"), [(8, 0.08), (64, 0.01)])
@given(mean=st.floats(60, 140), sd=st.floats(4, 20))
def test_few_images_have_the_mean_and_nearly_the_spread(images: int, shortfall: float, mean: float, sd: float) -> None:
    """Of 196 patch tokens, so that nothing is cut off. Quantiles lack the tails beyond their outermost."""
    counts = KeptDistribution(mean, sd).counts(images, 196)
    assert abs(counts.mean() - mean) <= 0.5
    assert (1 - shortfall) * sd - 0.5 <= counts.std() <= sd + 0.5


@given(mean=st.floats(1, 1e6), sd=st.floats(0, 1e6), images=st.integers(1, 80), patches=st.integers(1, 400))
def test_counts_are_whole_within_the_model_s_tokens_and_always_the_same(
    mean: float, sd: float, images: int, patches: int
) -> None:
    forced = KeptDistribution(mean, sd)
    counts = forced.counts(images, patches)
    assert counts.dtype == np.int64
    assert counts.shape == (images,)
    assert counts.min() >= 1
    assert counts.max() <= patches
    assert_array_equal(counts, forced.counts(images, patches))


@given(mean=st.floats(1, 196), sd=st.floats(0, 100))
def test_a_single_image_gets_the_mean(mean: float, sd: float) -> None:
    (count,) = KeptDistribution(mean, sd).counts(1, 196)
    assert abs(count - mean) <= 0.5


def test_what_lies_outside_is_cut_off_and_nothing_else() -> None:
    counts = np.sort(KeptDistribution(10, 8).counts(64, 20))
    free = np.sort(KeptDistribution(100, 8).counts(64, 196)) - 90
    assert counts.min() == 1 and counts.max() == 20
    assert_array_equal(counts, free.clip(1, 20))


def test_no_batch_of_eight_holds_the_small_ones_or_the_large_ones_alone() -> None:
    counts = KeptDistribution(100, 25).counts(64, 196)
    means = counts.reshape(8, 8).mean(axis=1)
    assert abs(means - 100).max() < 3 * 25 / math.sqrt(8)


def labels(subjects: list[RunnableVariant]) -> list[str]:
    return [subject.label for subject in subjects]


def test_the_named_points_are_measured_in_their_order(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    found = runnable_variants([tiny.dense, tiny.half, tiny_adaptive], NO_SWEEP)
    assert labels(found) == ["dense", "density 0.5", "mass 0.6", "fast", "wide"]
    assert [subject.choice.point for subject in found] == [None, None, "mass0.6", "fast", "wide"]
    assert [subject.artifact for subject in found] == [tiny.dense, tiny.half, *[tiny_adaptive] * 3]
    assert not any(subject.kept for subject in found)


def test_a_sweep_replaces_the_named_points_and_leaves_fixed_artifacts(
    tiny: TinyExport, tiny_adaptive: Artifact
) -> None:
    sweep = Sweep((0.25, 1.0), ("wide", "mass0.6", "default"), (FORCED, KeptDistribution(20.5, 0)))
    dense, half, *found = runnable_variants([tiny.dense, tiny.half, tiny_adaptive], sweep)
    assert labels([dense, half]) == ["dense", "density 0.5"]
    assert labels(found) == [
        "wide", "mass 0.6", "default", "mass 0.25", "mass 1", "kept 12 ± 5", "kept 20.5 ± 0"
    ]  # fmt: skip
    assert [subject.choice for subject in found] == [
        PointChoice(point="wide"),
        PointChoice(point="mass0.6"),
        PointChoice(point="default"),
        PointChoice(None, 0.25),
        PointChoice(None, 1.0),
        DEFAULT_CHOICE,
        DEFAULT_CHOICE,
    ]
    assert [subject.kept for subject in found] == [*[None] * 5, FORCED, KeptDistribution(20.5, 0)]


def test_a_variant_says_how_it_prunes(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    dense, half, *found = runnable_variants([tiny.dense, tiny.half, tiny_adaptive], Sweep((0.25,), (), (FORCED,)))
    patches = tiny_adaptive.manifest.model.geometry.patch_tokens
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    how = (pruning.score, pruning.prune_at)
    kept = math.ceil(patches / 2)
    assert dense.pruning is None
    assert half.pruning == Pruning("0.5", OperatingPoint(1.0, kept, kept), None, *how)
    assert [variant.pruning for variant in found] == [
        Pruning(None, OperatingPoint(0.25, 1, patches), None, *how),
        Pruning(None, None, FORCED, *how),
    ]


@pytest.mark.parametrize("sweep", [NO_SWEEP, Sweep((0.5, 0.6), ("fast", "mass0.6"), (FORCED,))])
def test_ids_are_unique_and_begin_with_the_artifact_s(tiny: TinyExport, tiny_adaptive: Artifact, sweep: Sweep) -> None:
    other = with_manifest(tiny_adaptive, id="another")
    found = runnable_variants([tiny.dense, tiny.half, tiny_adaptive, other], sweep)
    assert len({subject.id for subject in found}) == len(found)
    assert all(subject.id.startswith(subject.artifact.manifest.id) for subject in found)
    assert [subject.id for subject in found[:2]] == [tiny.dense.manifest.id, tiny.half.manifest.id]


def test_the_same_point_twice_is_measured_once(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    sweep = Sweep((0.5, 0.5), ("fast", "fast"), (FORCED, FORCED))
    assert labels(runnable_variants([tiny.dense, tiny_adaptive], sweep)[1:]) == ["fast", "mass 0.5", "kept 12 ± 5"]


def test_a_point_that_the_artifact_has_not(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    with pytest.raises(InvalidArgument, match=r"test_vit-96px-adaptive has no point 'slow'") as caught:
        runnable_variants([tiny.dense, tiny_adaptive], Sweep(points=("fast", "slow")))
    assert caught.value.hint == "it has mass0.6, fast, wide"


@pytest.mark.parametrize("mass", [-0.1, math.nan, math.inf])
def test_a_mass_that_is_none(tiny: TinyExport, tiny_adaptive: Artifact, mass: float) -> None:
    with pytest.raises(InvalidArgument, match="is no number from 0 on"):
        runnable_variants([tiny.dense, tiny_adaptive], Sweep(masses=(mass,)))


@pytest.mark.parametrize("sweep", [Sweep(masses=(0.5,)), Sweep(points=("fast",)), Sweep(kept=(FORCED,))])
def test_a_sweep_of_nothing_adaptive_is_refused(tiny: TinyExport, sweep: Sweep) -> None:
    with pytest.raises(InvalidArgument, match="are for adaptive artifacts, and none of these is") as caught:
        runnable_variants([tiny.dense, tiny.half], sweep)
    assert "--mass" in caught.value.hint
    assert labels(runnable_variants([tiny.dense, tiny.half], NO_SWEEP)) == ["dense", "density 0.5"]


def with_manifest(artifact: Artifact, **fields: object) -> Artifact:
    """Returns the artifact with fields of its manifest, or of what it says of pruning, replaced; nothing is written."""
    manifest, pruning = artifact.manifest, artifact.manifest.pruning
    assert pruning is not None
    own = {name: value for name, value in fields.items() if hasattr(pruning, name)}
    others = {name: value for name, value in fields.items() if name not in own}
    changed = dataclasses.replace(manifest, pruning=dataclasses.replace(pruning, **own), **others)  # type: ignore[arg-type]
    return Artifact(artifact.path, changed)


@pytest.mark.parametrize(
    ("changes", "further"),
    [
        ({}, ""),
        ({"prune_at": 2}, ", block 2"),
        ({"score": Score.CLS}, ", cls score"),
        ({"prune_at": 0, "score": Score.CLS}, ", block 0, cls score"),
    ],
)
def test_labels_tell_what_is_not_the_default(
    tiny: TinyExport, tiny_adaptive: Artifact, changes: dict[str, object], further: str
) -> None:
    artifacts = [tiny.dense, with_manifest(tiny.half, **changes), with_manifest(tiny_adaptive, **changes)]
    found = runnable_variants(artifacts, Sweep((0.5,), ("fast",), (FORCED,)))
    names = ("density 0.5", "fast", "mass 0.5", "kept 12 ± 5")
    assert labels(found) == ["dense", *(f"{name}{further}" for name in names)]


def test_only_points_whose_counts_follow_from_the_images_count_tokens(
    tiny: TinyExport, tiny_adaptive: Artifact
) -> None:
    named = runnable_variants([tiny.dense, tiny.half, tiny_adaptive], NO_SWEEP)
    assert [subject.counts_tokens for subject in named] == [False, False, True, True, True]
    swept = runnable_variants([tiny.dense, tiny_adaptive], Sweep((0.999, 1.0, 1.5), ("wide",), (FORCED,)))
    assert [subject.counts_tokens for subject in swept] == [False, True, True, False, False, False]


def test_choices_of_a_point_are_the_point(tiny_adaptive: Artifact) -> None:
    choice = PointChoice(mass=0.4)
    choices = RunnableVariant("s", "s", tiny_adaptive, choice).choices(7)
    assert choices.of(slice(0, 3)) == choices.of(slice(3, 7)) == choice


@pytest.fixture(scope="module")
def drafted() -> Artifact:
    """An adaptive artifact of 16 patch tokens that is nowhere."""
    return Artifact(Path("nowhere"), draft_adaptive())


@given(images=st.integers(1, 40), batch=st.integers(1, 9))
def test_parts_of_forced_counts_make_the_whole(drafted: Artifact, images: int, batch: int) -> None:
    choices = RunnableVariant("s", "s", drafted, kept=KeptDistribution(8, 4)).choices(images)
    parts = [choices.of(slice(start, start + batch)) for start in range(0, images, batch)]
    for limit in ("min_keep", "max_keep"):
        whole = np.concatenate([getattr(part, limit) for part in parts])
        assert_array_equal(whole, KeptDistribution(8, 4).counts(images, 16))


def test_forced_counts_come_out_of_a_runner(tiny_adaptive: Artifact) -> None:
    subject = RunnableVariant("s", "s", tiny_adaptive, kept=FORCED)
    images, choices = random_batch((10, 3, 96, 96)), subject.choices(10)
    runner = load(tiny_adaptive)
    kept = [runner.run_at(images[part], choices.of(part)).kept for part in (slice(0, 4), slice(4, 10))]
    assert_array_equal(np.concatenate(kept), FORCED.counts(10, PATCHES))


def test_a_mass_keeps_the_default_point_s_limits_and_its_label_says_so(tiny_adaptive: Artifact) -> None:
    """As when the artifact is run; the same point by name and by mass is one row."""
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    limited = dataclasses.replace(pruning.points[0], point=OperatingPoint(0.6, 8, 12))
    artifact = with_manifest(tiny_adaptive, points=(limited,))
    found = runnable_variants([artifact], Sweep((0.6, 0.6000001), ("mass0.6",)))
    assert [subject.label for subject in found] == ["mass 0.6, 8 to 12", "mass 0.6000001, 8 to 12"]


@pytest.mark.parametrize(("point", "counts"), [((1.0, 1, 36), False), ((0.5, 7, 7), False), ((0.5, 7, 8), True)])
def test_a_point_that_fixes_the_count_needs_no_images(
    tiny_adaptive: Artifact, point: tuple[float, int, int], counts: bool
) -> None:
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    fixed = dataclasses.replace(pruning.points[0], point=OperatingPoint(*point))
    artifact = with_manifest(tiny_adaptive, points=(fixed,))
    (subject,) = runnable_variants([artifact], NO_SWEEP)
    assert subject.counts_tokens is counts


def test_a_mean_beyond_the_model_s_tokens_is_refused(tiny_adaptive: Artifact) -> None:
    with pytest.raises(InvalidArgument, match="105:25 is for more than the 36 patch tokens"):
        runnable_variants([tiny_adaptive], Sweep(kept=(KeptDistribution(105, 25),)))


def test_a_huge_mass_is_a_mass(tiny_adaptive: Artifact) -> None:
    (subject,) = runnable_variants([tiny_adaptive], Sweep((1e6,)))
    assert subject.label == "mass 1000000" and not subject.counts_tokens
