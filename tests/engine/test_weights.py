"""Weights by name: those of a lowered graph, under the names that the parser of a real TensorRT gives them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.lowering import lower_parts
from sait_deploy.engine.weights import digest_of, weights_of
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, SelectionForm
from sait_deploy.exporters.packed_lengths import moved_lengths
from tests.runtime.host_refitter import HostRefitter, weights_of_graph

LOWERINGS = [
    LowerOptions(EnginePrecision.FP16, AttentionForm.FUSED, SelectionForm.FUNCTION),
    LowerOptions(EnginePrecision.BF16, AttentionForm.FUSED_LENGTHS, SelectionForm.FUNCTION),
    LowerOptions(EnginePrecision.FP16, AttentionForm.PACKED, SelectionForm.FUNCTION),
    LowerOptions(EnginePrecision.FP32, AttentionForm.DECOMPOSED, SelectionForm.FUNCTION),
]


def network_of(trt: Any, logger: Any, file: Path) -> tuple[Any, ...]:
    """What the parser makes of a file, and all that has to live as long; what it refuses is parsed as builds do."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(file)):
        return network, parser, builder
    moved = moved_lengths(file)
    assert moved is not None
    return network_of(trt, logger, moved)


@pytest.mark.parametrize("lowering", LOWERINGS, ids=lambda each: f"{each.precision}-{each.attention}")
def test_the_parser_knows_weights_under_these_names(
    tiny_adaptive: Artifact, tmp_path: Path, lowering: LowerOptions
) -> None:
    """Wherever it wants attention on packed rows to be told its images: names do not depend on that."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    for part in lower_parts(tiny_adaptive, lowering, tmp_path).values():
        found = weights_of(part.path)
        network, *_alive = network_of(trt, logger, part.path)
        unknown = [name for name in found if not network.mark_weights_refittable(name)]
        # Sizes and axes that the parser reads by itself, of which no layer is made.
        assert all(found[name].dtype.kind == "i" and found[name].size <= 8 for name in unknown), unknown
        assert len(unknown) < len(found) / 3


def as_bytes(weights: dict[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in weights.items()}


@pytest.mark.parametrize("lowering", LOWERINGS, ids=lambda each: f"{each.precision}-{each.attention}")
def test_weights_are_what_onnx_reads(tiny_adaptive: Artifact, tmp_path: Path, lowering: LowerOptions) -> None:
    for part in lower_parts(tiny_adaptive, lowering, tmp_path).values():
        found = weights_of(part.path)
        assert all(array.flags.c_contiguous for array in found.values())
        assert as_bytes(found) == as_bytes(weights_of_graph(onnx.load(part.path)))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", "HALF"), ("bfloat16", "BF16"), ("int64", "INT64"), ("bool", "BOOL")]
)
def test_the_package_takes_weights_by_address(dtype: str, kind: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    numbers = np.array([0, 1, 2, 1], np.int64).astype(ir.DataType[dtype.upper()].numpy())
    taken = trt.Weights(getattr(trt.DataType, kind), numbers.ctypes.data, numbers.size)
    assert (taken.size, taken.nbytes) == (numbers.size, numbers.nbytes)
    if dtype != "bfloat16":
        np.testing.assert_array_equal(taken.numpy(), numbers)


def test_a_digest_tells_names_types_shapes_and_numbers_apart() -> None:
    numbers = np.arange(4, dtype=np.float32)
    others: list[dict[str, NDArray[Any]]] = [
        {"a": numbers},
        {"b": numbers},
        {"a": numbers.view(np.int32)},
        {"a": numbers.reshape(2, 2)},
        {"a": numbers + 1},
        {"a": numbers, "scalar": np.float32(1).reshape(())},
    ]
    assert len({digest_of(weights) for weights in others}) == len(others)
    both = {"a": numbers, "b": numbers + 1}
    assert digest_of(both) == digest_of(dict(reversed(both.items())))


def test_the_stand_ins_refitter_has_the_methods_of_a_real_one() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    methods = [each for each in vars(HostRefitter).values() if inspect.isfunction(each) and each.__name__[0] != "_"]
    assert len(methods) == 5
    for method in methods:
        described = getattr(trt.Refitter, method.__name__).__doc__
        line = next(line for line in described.splitlines() if "->" in line)
        assert line.split("->")[0].count(": ") == len(inspect.signature(method).parameters), line
