"""Groups of images: by class and tokens kept, and what a row gains or loses on each."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.evaluation.strata import Grouping, by_class, by_kept, strata_of


def test_some_of_the_images_keep_their_groups() -> None:
    found = Grouping("digit size", ("2x", "3x", "6x"), np.array([1, 0, 2, 0])).part(np.array([3, 2]))

    assert (found.name, found.groups) == ("digit size", ("2x", "3x", "6x"))
    assert found.of.tolist() == [0, 2]


def test_images_are_grouped_by_class_in_the_classes_order() -> None:
    labels = np.array([2, 0, 2, 9])

    assert by_class(labels, None).groups == ("0", "2", "9")
    named = by_class(labels, [f"n{9 - i}" for i in range(10)])
    assert named.groups == ("n9", "n7", "n0")
    assert named.of.tolist() == [1, 0, 1, 2]


def test_images_are_grouped_in_quarters_by_tokens_kept() -> None:
    kept = np.array([40, 10, 20, 30, 11, 21, 31, 41], np.int32)

    found = by_kept(kept, "mass 0.9")

    assert found is not None
    assert found.name == "kept at mass 0.9"
    assert found.groups == ("fewest (10 to 11)", "few (20 to 21)", "many (30 to 31)", "most (40 to 41)")
    assert found.of.tolist() == [3, 0, 1, 2, 0, 1, 2, 3]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_images_that_keep_as_many_stay_together_and_names_say_how_many(counts: list[int]) -> None:
    kept = np.array(counts, np.int32)

    found = by_kept(kept, "fast")

    if len(set(counts)) == 1:
        assert found is None
        return
    if found is None:  # all but a few above the last edge fall together only where one number is most of all
        assert max(map(counts.count, counts)) > len(counts) / 4
        return
    ranges = [tuple(map(int, re.findall(r"\d+", name))) for name in found.groups]
    for index, bounds in enumerate(ranges):
        own = kept[found.of == index]
        assert (int(own.min()), int(own.max())) == (bounds[0], bounds[-1])
        assert index == 0 or ranges[index - 1][-1] < bounds[0]


def test_strata_say_what_each_group_gains_and_keeps() -> None:
    grouping = Grouping("size", ("small", "none", "large"), np.array([0, 0, 0, 0, 2, 2]))
    dense = np.array([True, True, True, False, True, False])
    right = np.array([True, False, False, False, True, True])
    kept = np.array([1, 2, 3, 4, 10, 20], np.int32)

    small, large = strata_of("mass0.9", grouping, dense, right, kept)

    assert (small.row, small.grouping, small.name, small.images) == ("mass0.9", "size", "small", 4)
    assert (small.dense_top1_percent, small.kept_mean) == (75.0, 2.5)
    assert small.top1_change == paired_difference(right[:4], dense[:4])
    assert small.top1_change.value == pytest.approx(-50)
    assert (large.name, large.images, large.dense_top1_percent, large.kept_mean) == ("large", 2, 50.0, 15.0)
    assert large.top1_change.value == pytest.approx(50)


@pytest.mark.parametrize("of", [[0, 2], [-1, 0], [[0, 1]]])
def test_groups_without_a_name_are_refused(of: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="by size"):
        Grouping("size", ("small", "large"), np.array(of))
