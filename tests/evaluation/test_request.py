"""What an evaluation asks about which images."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.request import make_request
from sait_deploy.evaluation.sources import ModelSource
from sait_deploy.images.dataset import Dataset, evenly_spaced
from sait_deploy.runtime import RunOptions
from sait_deploy.tokens import Score
from tests.evaluation.blotches import grouped, small

SOURCE = ModelSource(small(), (Score.MEAN, 1), RunOptions())


@given(st.integers(1, 300), st.integers(1, 320))
def test_groups_and_labels_stay_with_the_images_that_are_left(total: int, limit: int) -> None:
    """Of evenly spaced images, whose numbers their pixels and the names of their groups hold."""
    images = [np.full((1, 1, 3), [number // 256, number % 256, 0], dtype=np.uint8) for number in range(total)]
    numbers = grouped("number", [f"{number:03d}" for number in range(total)])
    dataset = Dataset(images, np.arange(total) % 10, "numbers")

    request = make_request(SOURCE, dataset, EvaluateOptions(limit=limit, lower_resolutions=()), [numbers], 10)

    (grouping,) = request.groupings
    left = [int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in map(np.asarray, request.dataset.images)]
    assert left == evenly_spaced(total, limit).tolist()
    assert [int(grouping.groups[of]) for of in grouping.of] == left
    assert request.dataset.labels is not None and request.dataset.labels.tolist() == [number % 10 for number in left]
    assert (f"these are {limit} of {total} images, evenly spaced" in request.notes) == (limit < total)
