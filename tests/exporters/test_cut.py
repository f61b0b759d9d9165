"""The cut: stem, host and trunk are the whole file, bit for bit, and nothing crosses but what has a name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sait_deploy.artifacts.manifest import FEATURES, Outputs, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.cut import Parts, cut
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, IMPORTANCE, KEPT, LANES, ROWS, TOKENS
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.tokens import Score
from tests.exporters.graphs import (
    ADAPTIVE,
    PRUNING,
    Opened,
    before_last,
    copied,
    finished,
    initializers,
    kinds,
    nodes,
    vit_named,
)
from tests.exporters.parts import SEAM, InParts, bridged, declared, parts_of, whole
from tests.tiny import FAMILIES, random_batch

FP32, FP16 = Precision.FP32, Precision.FP16
LOGITS, BOTH = Outputs.LOGITS, Outputs.LOGITS_AND_FEATURES
MOST = 5

# The small model, how it is pruned, its precision, and what it returns.
Case = tuple[str, AdaptivePruning, Precision, Outputs]
CASES: Final[dict[str, Case]] = {
    "class-token": ("small/3", ADAPTIVE, FP32, LOGITS),
    "average-no-prefix": ("siglip-average/2", before_last("siglip-average/2"), FP32, LOGITS),
    "average-registers": ("average-register/2", before_last("average-register/2"), FP32, LOGITS),
    "attention-pool-no-prefix": ("siglip/2", before_last("siglip/2"), FP32, LOGITS),
    "features": ("small/3", ADAPTIVE, FP32, BOTH),
    "fp16": ("small/3", ADAPTIVE, FP16, LOGITS),
    "last-block-by-class-token": ("plain", AdaptivePruning(Score.CLS, 1), FP32, LOGITS),
}


@functools.cache
def both(case: str) -> tuple[Opened, InParts]:
    return Opened(whole(*CASES[case])), InParts(parts_of(*CASES[case]))


def images_of(model: onnx.ModelProto, count: int = MOST, seed: int = 0) -> NDArray[np.float32]:
    height, width = (axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[2:])
    return random_batch((count, 3, height, width), seed)


def point_of(images: Sequence[tuple[float, int, int]]) -> BatchPoint:
    """Mass, least and most of every image."""
    mass, least, most = zip(*images, strict=True)
    return BatchPoint(np.array(mass, np.float32), np.stack([least, most], axis=1).astype(np.int32))


POINTS: Final = {
    "masses": [(0.5, 1, 16), (0.9, 1, 16), (0.2, 1, 16), (0.7, 1, 16), (0.95, 1, 16)],
    "mixed": [(1.0, 3, 3), (0.5, 8, 12), (0.0, 1, 1), (1.0, 1, 16), (0.9, 1, 2)],
    "equal": [(1.0, 6, 6)] * MOST,
    "dense": [(1.0, 1, 16)] * MOST,
}


def assert_equal(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    """The same outputs, bit for bit."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_stem_host_and_trunk_are_the_whole(case: str) -> None:
    (graph, parts), images = both(case), images_of(whole(*CASES[case]))
    for title, images_point in POINTS.items():
        for batch in range(1, MOST + 1):
            point = point_of(images_point[:batch])
            expected = graph(images[:batch], point)
            assert_equal(parts(images[:batch], point), expected)
            if (title, batch) == ("mixed", MOST):
                assert len(set(expected["counts"].tolist())) >= 4


POINT = st.tuples(st.floats(0, 1.25, width=32), st.integers(1, 16), st.integers(1, 16))


@pytest.mark.parametrize("case", ["class-token", "attention-pool-no-prefix", "average-registers"])
@given(st.lists(POINT, min_size=1, max_size=MOST), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_they_are_at_any_point(case: str, drawn: list[tuple[float, int, int]], seed: int) -> None:
    (graph, parts), images = both(case), images_of(whole(*CASES[case]), len(drawn), seed)
    point = point_of([(mass, min(limits), max(limits)) for mass, *limits in drawn])
    assert_equal(parts(images, point), graph(images, point))


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{name}/2" for name in FAMILIES])
def test_every_family_can_be_cut(name: str) -> None:
    model, parts = whole(name, before_last(name)), parts_of(name, before_last(name))
    images, point = images_of(model), point_of(POINTS["mixed"])
    assert_equal(InParts(parts)(images, point), Opened(model)(images, point))
    assert {value.name for value in parts.trunk.graph.input} <= set(SEAM)


@pytest.mark.parametrize("case", CASES)
def test_the_seams_tensors_have_their_names_types_and_shapes(case: str) -> None:
    name, _, precision, outputs = CASES[case]
    parts, width = parts_of(*CASES[case]), vit_named(name).embed_dim
    low = TensorProto.FLOAT16 if precision is FP16 else TensorProto.FLOAT
    seam: dict[str, tuple[int, list[str | int]]] = {
        TOKENS: (low, ["batch_tokens", width]),
        ROWS: (TensorProto.INT32, ["batch_tokens"]),
        CU_SEQLENS: (TensorProto.INT32, ["batch_and_1"]),
        GUARD: (TensorProto.FLOAT, ["batch", 1]),
        KEPT: (TensorProto.INT32, ["kept_tokens"]),
        LANES: (TensorProto.INT32, ["longest"]),
    }
    given_by, taken_by = (
        {value.name: declared(value) for value in values}
        for values in (parts.stem.graph.output, parts.trunk.graph.input)
    )
    counts = {"counts": (TensorProto.INT32, ["batch"])}
    assert given_by == {name: seam[name] for name in (TOKENS, ROWS, CU_SEQLENS, GUARD)} | counts
    assert taken_by == {name: seam[name] for name in (TOKENS, CU_SEQLENS, GUARD, KEPT, LANES)}
    entering = whole(*CASES[case]).graph.input
    assert [(v.name, declared(v)) for v in parts.stem.graph.input] == [(v.name, declared(v)) for v in entering]
    expected = ["logits", FEATURES] if outputs is BOTH else ["logits"]
    assert [value.name for value in parts.trunk.graph.output] == expected
    assert {v.name: declared(v)[0] for v in parts.trunk.graph.output} == dict.fromkeys(expected, TensorProto.FLOAT)


@pytest.mark.parametrize("case", CASES)
def test_what_crosses_is_of_the_shapes_that_are_stated(case: str) -> None:
    model, (_, parts) = whole(*CASES[case]), both(case)
    vit = vit_named(CASES[case][0])
    tokens = vit.num_prefix_tokens + vit.patch_embed.num_patches
    seam = parts.seam(images_of(model, 3), point_of(POINTS["mixed"][:3]))
    total, longest = int(seam["counts"].sum()), int(seam["counts"].max())
    shapes = {TOKENS: (3 * tokens, vit.embed_dim), ROWS: (3 * tokens,), CU_SEQLENS: (4,), GUARD: (3, 1)}
    shapes |= {KEPT: (total,), LANES: (longest,), "counts": (3,)}
    assert {name: value.shape for name, value in seam.items()} == shapes
    assert not seam[GUARD].any()


@pytest.mark.parametrize("case", CASES)
def test_each_part_is_whole_and_has_its_own_alone(case: str) -> None:
    model, parts = whole(*CASES[case]), parts_of(*CASES[case])
    for part in (parts.stem, parts.trunk):
        onnx.checker.check_model(part, full_check=True)
        used = {node.op_type for node in part.graph.node if node.domain == DOMAIN}
        assert {function.name for function in part.functions} == used
        assert not nodes(part, "ReadExtents")
        weights, read = set(initializers(part)), {name for node in part.graph.node for name in node.input}
        assert weights <= read
        assert part.metadata_props == model.metadata_props
        domains = {entry.domain: entry.version for entry in model.opset_import}
        assert {entry.domain: entry.version for entry in part.opset_import} == domains
        assert (part.ir_version, part.producer_name) == (model.ir_version, model.producer_name)
    assert set(initializers(parts.stem)) | set(initializers(parts.trunk)) == set(initializers(model))
    kept = kinds(parts.stem) + kinds(parts.trunk)
    kept["ReadExtents"] += 1
    repeated = {"Shape": 1} if case.startswith("attention-pool") else {}
    assert kept - kinds(model) == repeated and not kinds(model) - kept
    blocks = len(vit_named(CASES[case][0]).blocks)
    assert kinds(parts.stem)["UniformAttention"] == CASES[case][1].prune_at + 1
    assert kinds(parts.trunk)["PackedAttention"] == blocks - CASES[case][1].prune_at - 1


@pytest.mark.parametrize("case", ["class-token", "attention-pool-no-prefix", "fp16"])
def test_the_model_that_was_given_is_left_alone(case: str) -> None:
    model = copied(whole(*CASES[case]))
    before = model.SerializeToString(deterministic=True)
    cut(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("case", ["class-token", "average-no-prefix", "attention-pool-no-prefix", "fp16"])
def test_importance_that_is_no_number_reaches_the_logits_of_its_image_alone(case: str) -> None:
    (graph, parts), images = both(case), images_of(whole(*CASES[case]), 3)
    point = point_of(POINTS["masses"][:3])
    expected = graph(images, point)["logits"]
    images[1] = np.nan
    seam = parts.seam(images, point)
    assert np.isnan(seam[GUARD]).ravel().tolist() == [False, True, False]
    assert_equal(parts(images, point), graph(images, point))
    # The tokens of another batch: what is no number comes from the guard alone.
    healthy = parts.seam(images_of(whole(*CASES[case]), 3), point)
    logits = parts.rest(healthy | {GUARD: seam[GUARD]})["logits"]
    assert np.isnan(logits[1]).all()
    np.testing.assert_array_equal(logits[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("case", ["density", "inlined"])
def test_a_graph_without_a_seam_is_refused(case: str) -> None:
    inlined = finished("small/3", ADAPTIVE, operators=OperatorForm.INLINE)
    with pytest.raises(ArtifactError, match="0 ReadExtents nodes") as caught:
        cut(inlined if case == "inlined" else whole("plain", PRUNING))
    assert "--inline" in caught.value.hint


def with_more(further: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """The small model whose logits have ``more``, which these nodes make, added to them."""
    model = copied(whole(*CASES["class-token"]))
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "logits_before"
    model.graph.node.extend([*further, helper.make_node("Add", ["logits_before", "more"], ["logits"], "last")])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def lengths_of(model: onnx.ModelProto) -> str:
    """The name that the offsets have in a graph that is not cut."""
    name: str = nodes(model, "PackRows")[0].output[1]
    return name


def assert_same_in_parts(model: onnx.ModelProto) -> Parts:
    parts, images, point = cut(model), images_of(model, 3), point_of(POINTS["mixed"][:3])
    found, expected = InParts(parts)(images, point), Opened(model)(images, point)
    assert_equal(found, expected)
    plain = Opened(whole(*CASES["class-token"]))(images, point)["logits"]
    assert not np.array_equal(found["logits"], plain), "what was added changes nothing"
    for part in (parts.stem, parts.trunk):
        onnx.checker.check_model(part, full_check=True)
    assert {value.name for value in parts.trunk.graph.input} <= set(SEAM)
    return parts


def names_in(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node}


def test_a_chain_from_the_offsets_alone_sinks_into_the_trunk() -> None:
    offsets = lengths_of(whole(*CASES["class-token"]))
    chain = [
        helper.make_node("Cast", [offsets], ["as_float"], "sinking", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["as_float", "hundredth"], ["less"], "sinking_too"),
        helper.make_node("ReduceSum", ["less"], ["more"], "sinking_last", keepdims=0),
    ]
    parts = assert_same_in_parts(with_more(chain, {"hundredth": np.array(0.01, np.float32)}))
    wanted = {"sinking", "sinking_too", "sinking_last"}
    assert wanted <= names_in(parts.trunk) and not wanted & names_in(parts.stem)


def test_a_chain_of_constants_that_both_read_is_copied() -> None:
    chain = [
        helper.make_node("Exp", ["some"], ["grown"], "chain"),
        helper.make_node("Mul", ["grown", "some"], ["more"], "chain_end"),
    ]
    model = with_more(chain, {"some": np.array(0.5, np.float32)})
    for node in reversed(chain):
        at = next(index for index, found in enumerate(model.graph.node) if found.name == node.name)
        del model.graph.node[at]
        model.graph.node.insert(0, node)
    conv = nodes(model, "Conv")[0]
    shifted = helper.make_node("Add", ["images", "more"], ["shifted"], "shift")
    model.graph.node.insert(2, shifted)
    conv.input[0] = "shifted"
    parts = assert_same_in_parts(model)
    for part in (parts.stem, parts.trunk):
        assert kinds(part)["Exp"] == 1
        assert "some" in initializers(part)
        assert len({node.name for node in part.graph.node}) == len(part.graph.node)


OFFSETS: Final = "OFFSETS"
"""Stands for the name that a graph's offsets have before it is cut."""

REFUSED: Final[dict[str, tuple[str, list[onnx.NodeProto]]]] = {
    "of the images": ("more", [helper.make_node("ReduceMean", ["images", "image_axes"], ["more"], "mean")]),
    "of importance": ("more", [helper.make_node("ReduceSum", [IMPORTANCE, "row_axis"], ["more"], "sum")]),
    "an extent that is not the batch": (
        "more",
        [
            helper.make_node("Shape", ["images"], ["height"], "height", start=2, end=3),
            helper.make_node("Cast", ["height"], ["more"], "more", to=TensorProto.FLOAT),
        ],
    ),
    "from the offsets, for another reader too": (
        "read_by_both",
        [
            helper.make_node("Cast", [OFFSETS], ["read_by_both"], "cast", to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["read_by_both"], ["more"], "last", keepdims=0),
            helper.make_node("Identity", ["read_by_both"], ["further"], "of_the_stem"),
        ],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_place_in_the_seam_is_refused_by_name(case: str) -> None:
    name, further = REFUSED[case]
    constants = {"image_axes": np.array([1, 2, 3]), "row_axis": np.array([1])}
    named = []
    for node in further:
        named.append(onnx.NodeProto())
        named[-1].CopyFrom(node)
        del named[-1].input[:]
        named[-1].input.extend(lengths_of(whole(*CASES["class-token"])) if n == OFFSETS else n for n in node.input)
    if case == "of the images":
        named[0].output[0] = "pooled"
        named.append(helper.make_node("Flatten", ["pooled"], ["more"], "flat"))
    model = with_more(named, constants)
    with pytest.raises(ArtifactError, match=r"would cross the seam, and has no place there") as caught:
        cut(model)
    assert f"{name!r}, read by " in str(caught.value) and "last" in str(caught.value)


def test_a_second_guard_is_refused() -> None:
    model = whole(*CASES["class-token"])
    (slice_,) = [node for node in nodes(model, "Slice") if node.input[0] == IMPORTANCE]
    with pytest.raises(ArtifactError, match="'more' would cross the seam as a second 'guard'"):
        cut(
            with_more(
                [helper.make_node("Mul", [slice_.output[0], "two"], ["more"], "second")],
                {"two": np.array(2, np.float32)},
            )
        )


def test_views_of_the_hosts_buffers_serve() -> None:
    """What a runtime hands the trunk are prefixes of buffers that are there: no more is read of them."""
    _, parts = both("class-token")
    seam = parts.stem(images_of(whole(*CASES["class-token"]), 2), point_of(POINTS["mixed"][:2]))
    bridge = bridged(seam)
    assert np.shares_memory(bridge[KEPT], seam[ROWS])
    assert bridge[LANES].tolist() == list(range(int(seam["counts"].max())))
