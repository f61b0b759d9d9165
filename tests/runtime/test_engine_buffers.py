"""What running an engine takes: buffers that hold every batch, shapes of each, and offsets that can be."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import TensorInfo
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.runtime.engine_buffers import EngineTensors, Extents, engine_parts
from tests.engine.cases import TRT, adaptive_manifest, engine_manifest
from tests.exported import draft

BATCH = BatchRange(2, 4, 6)
SOURCE = adaptive_manifest(points=((8.0, 12), (3.0, 5)))
TOKENS, WIDTH, PREFIX = SOURCE.model.geometry.tokens, SOURCE.model.geometry.width, 1
MOST = 2**31 - 1


def tensors(builder: BuilderName = TRT) -> EngineTensors:
    return EngineTensors(engine_manifest(SOURCE, batch=BATCH, builder=builder), SOURCE.model.geometry)


def dense_tensors() -> EngineTensors:
    source = draft()
    return EngineTensors(engine_manifest(source, batch=BATCH), source.model.geometry)


ADAPTIVE, DENSE = tensors(), dense_tensors()
STEM, TRUNK = (ADAPTIVE.manifest.part(name) for name in (PartName.STEM, PartName.TRUNK))
IMAGES = st.integers(BATCH.smallest, BATCH.largest)


@st.composite
def kept(draw: st.DrawFn) -> list[int]:
    """Tokens that each image of a batch keeps."""
    return draw(st.lists(st.integers(PREFIX, TOKENS), min_size=BATCH.smallest, max_size=BATCH.largest))


def offsets(lengths: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([0, *itertools.accumulate(lengths)], dtype=np.int32)


def test_an_adaptive_engines_buffers_are_those_of_the_largest_batch() -> None:
    """The seam's are shared, and ``kept`` is the front of ``rows``."""
    most, height, across = BATCH.largest, *SOURCE.model.image_size
    wanted = {
        "images": ("float32", most * 3 * height * across * 4),
        "mass": ("float32", most * 4),
        "keep_limits": ("int32", most * 2 * 4),
        "tokens": ("float16", most * TOKENS * WIDTH * 2),
        "rows": ("int32", most * TOKENS * 4),
        "cu_seqlens": ("int32", (most + 1) * 4),
        "guard": ("float32", most * 4),
        "counts": ("int32", most * 4),
        "importance": ("float32", most * (TOKENS - PREFIX) * 4),
        "keep": ("int32", most * TOKENS * 4),
        "lanes": ("int32", TOKENS * 4),
        "logits": ("float32", most * SOURCE.model.classes * 4),
    }
    found = ADAPTIVE.buffers()
    assert {buffer.name: (buffer.dtype, buffer.size) for buffer in found} == wanted
    assert len(found) == len(wanted)


def test_a_dense_engines_buffers() -> None:
    model = draft().model
    found = {buffer.name: buffer.size for buffer in DENSE.buffers()}
    height, across = model.image_size
    assert found == {"images": 6 * 3 * height * across * 4, "logits": 6 * model.classes * 4}


@given(kept())
def test_every_batch_fits_its_buffers(lengths: list[int]) -> None:
    sizes = {buffer.name: buffer.size for buffer in ADAPTIVE.buffers()}
    width = {"float32": 4, "float16": 2, "int32": 4}
    extents = ADAPTIVE.extents(offsets(lengths))
    for part in (STEM, TRUNK):
        for tensor in (*part.inputs, *part.outputs):
            shape = ADAPTIVE.shape(tensor, len(lengths), extents)
            place = "rows" if tensor.name == "kept" else tensor.name
            assert all(size > 0 for size in shape)
            assert int(np.prod(shape)) * width[tensor.dtype] <= sizes[place]


@given(kept())
def test_shapes_are_those_of_the_batch(lengths: list[int]) -> None:
    images, extents = len(lengths), ADAPTIVE.extents(offsets(lengths))
    assert extents == Extents(sum(lengths), max(lengths))
    height, across = SOURCE.model.image_size
    assert ADAPTIVE.input_shapes(STEM, images) == {
        "images": (images, 3, height, across),
        "mass": (images,),
        "keep_limits": (images, 2),
    }
    assert ADAPTIVE.input_shapes(TRUNK, images, extents) == {
        "tokens": (images * TOKENS, WIDTH),
        "cu_seqlens": (images + 1,),
        "guard": (images, 1),
        "kept": (sum(lengths),),
        "lanes": (max(lengths),),
    }


@given(kept(), st.sampled_from(BuilderName))
def test_every_batch_has_a_profile_that_takes_it(lengths: list[int], builder: BuilderName) -> None:
    made = tensors(builder)
    trunk, images, extents = made.manifest.part(PartName.TRUNK), len(lengths), made.extents(offsets(lengths))
    ranges = trunk.profiles[made.profile(trunk, images, extents)].ranges
    assert all(ranges[name].holds(shape) for name, shape in made.input_shapes(trunk, images, extents).items())
    assert made.profile(made.manifest.part(PartName.STEM), images) == 0


def test_the_profile_follows_the_rows() -> None:
    assert len(TRUNK.profiles) > 1
    found = [ADAPTIVE.profile(TRUNK, 4, Extents(rows, TOKENS)) for rows in range(4 * PREFIX, 4 * TOKENS + 1)]
    assert found == sorted(found)
    assert len(set(found)) > 1


@given(st.integers(-5, 100))
def test_batches_that_the_engine_was_built_for_are_taken_and_no_others(images: int) -> None:
    if BATCH.smallest <= images <= BATCH.largest:
        ADAPTIVE.check_batch(images)
        assert ADAPTIVE.profile(STEM, images) == 0
        return
    with pytest.raises(InvalidArgument, match=f"takes 2 to 6 images, not {images}") as caught:
        ADAPTIVE.check_batch(images)
    assert "--batch" in caught.value.hint
    with pytest.raises(InvalidArgument, match="no profile") as caught:
        ADAPTIVE.profile(STEM, images)
    assert "--batch" in caught.value.hint


@given(st.lists(st.integers(-MOST - 1, MOST), min_size=2, max_size=7))
def test_offsets_that_are_none_are_never_taken(numbers: list[int]) -> None:
    """Whatever a damaged engine may count."""
    lengths = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    possible = numbers[0] == 0 and all(1 <= length <= TOKENS for length in lengths)
    try:
        found = ADAPTIVE.extents(np.array(numbers, dtype=np.int32))
    except ModelError as error:
        assert not possible
        assert error.hint and len(error.message) < 500
    else:
        assert possible
        assert found == Extents(numbers[-1], max(lengths))


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 5, 9],
        [0, 0, 5],
        [0, 5, 5],
        [0, 5, 4],
        [0, -1, 5],
        [0, TOKENS + 1, TOKENS + 2],
        [0, 5, 5 + TOKENS + 1],
        [0, MOST, -MOST],
        [0, 0],
        [-MOST - 1, MOST],
    ],
)
def test_offsets_that_cannot_be(numbers: list[int]) -> None:
    with pytest.raises(ModelError, match="which cannot be"):
        ADAPTIVE.extents(np.array(numbers, dtype=np.int32))


def test_the_fewest_and_the_most_that_can_be_kept() -> None:
    assert ADAPTIVE.extents(offsets([1, 1])) == Extents(2, 1)
    assert ADAPTIVE.extents(offsets([TOKENS] * 6)) == Extents(6 * TOKENS, TOKENS)


def test_a_tensor_of_unknown_extents_is_an_error() -> None:
    with pytest.raises(ModelError, match="has shape"):
        ADAPTIVE.shape(TensorInfo("logits", "float32", ("batch", "classes")), 2)


def test_what_runs_first_and_what_after_the_host() -> None:
    assert engine_parts(ADAPTIVE.manifest) == (STEM, TRUNK)
    turned = dataclasses.replace(ADAPTIVE.manifest, parts=(TRUNK, STEM))
    assert engine_parts(turned) == (STEM, TRUNK)
    assert engine_parts(DENSE.manifest) == (DENSE.manifest.part(PartName.MODEL), None)
