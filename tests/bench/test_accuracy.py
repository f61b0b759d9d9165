"""What is right, and how many images each variant loses and gains against the first dense that ran."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.bench.accuracy import Reference
from sait_deploy.bench.jsonform import from_json
from sait_deploy.bench.results import AccuracyMeasure
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.images.dataset import shipped_dataset
from tests.bench.test_old_reports import OLD
from tests.exported import TinyExport

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(ANSWERS)
def test_lost_and_gained_are_counted_by_image(pairs: list[tuple[bool, bool]]) -> None:
    dense, other = (np.array(one) for one in zip(*pairs, strict=True))
    found = Reference(AccuracyMeasure.TOP1, None, dense).accuracy(other)
    assert (found.lost, found.gained) == (pairs.count((True, False)), pairs.count((False, True)))
    assert found.images == len(pairs)
    assert found.percent == pytest.approx(100 * (dense.sum() - (found.lost or 0) + (found.gained or 0)) / len(pairs))


def test_dense_loses_nothing_and_agreement_only_loses(tiny: TinyExport) -> None:
    report = bench([tiny.dense, tiny.half], BenchOptions((1,), threads=1, duration=0.01, warmup=0))
    dense, half = (variant.accuracy for variant in report.variants)
    assert dense is not None and half is not None
    images = len(shipped_dataset(tiny.model.info.name).images)
    assert (dense.measure, dense.images, dense.lost, dense.gained) == (AccuracyMeasure.AGREEMENT, images, 0, 0)
    assert (half.lost, half.gained) == (round(images * (1 - half.percent / 100)), 0)


def test_reports_that_do_not_say_it_leave_it_open() -> None:
    report = from_json((OLD / "schema4.json").read_text(encoding="utf-8"))
    found = [variant.accuracy for variant in report.variants if variant.accuracy is not None]
    assert found
    assert {(one.lost, one.gained) for one in found} == {(None, None)}
