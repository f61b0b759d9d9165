"""What engines can be asked for: every value that cannot be meant is refused with what to give instead."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.engine.options import (
    DEFAULT_TARGETS,
    TARGETS,
    AttentionChoice,
    BatchRange,
    EngineOptions,
    FusionChoice,
    Portability,
    check_for_builder,
    parse_targets,
)
from sait_deploy.engine.packages import BuilderName
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import EnginePrecision, QuantizedType

RTX, TRT = BuilderName.TENSORRT_RTX, BuilderName.TENSORRT
SIZES = st.integers(1, 2**31 - 1)

PACKED = AttentionChoice.PACKED


@given(st.lists(SIZES, min_size=3, max_size=3).map(sorted))
def test_a_batch_range_is_read_as_it_is_shown(sizes: list[int]) -> None:
    batch = BatchRange(*sizes)
    assert BatchRange.parse(str(batch)) == batch
    assert [batch.smallest, batch.optimum, batch.largest] == sizes


@given(st.lists(st.integers(-3, 2**40), min_size=3, max_size=3))
def test_a_batch_range_is_in_order_and_within_int32_or_refused(sizes: list[int]) -> None:
    possible = 1 <= sizes[0] <= sizes[1] <= sizes[2] < 2**31
    try:
        BatchRange(*sizes)
    except InvalidArgument as error:
        assert not possible
        assert error.hint
    else:
        assert possible


@given(st.text(max_size=20))
def test_no_text_but_that_of_a_batch_range_is_read(text: str) -> None:
    try:
        batch = BatchRange.parse(text)
    except InvalidArgument as error:
        assert repr(text) in error.message or "out of order" in error.message or "int32" in error.message
    else:
        assert list(map(int, text.split(":"))) == [batch.smallest, batch.optimum, batch.largest]


def test_float8_wants_gpus_that_multiply_it() -> None:
    EngineOptions(quantized=QuantizedType.FP8, targets=("sm89", "sm120"))
    with pytest.raises(InvalidArgument, match="sm80, sm86 has no fp8") as caught:
        EngineOptions(quantized=QuantizedType.FP8, targets=("sm80", "sm86", "sm89"))
    assert caught.value.hint == "name GPUs from sm89 on with --target"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "'8' is not MIN:OPT:MAX"),
        ("1:8", "'1:8' is not MIN:OPT:MAX"),
        ("1:8:32:64", "is not MIN:OPT:MAX"),
        ("1:8:", "is not MIN:OPT:MAX"),
        ("a:b:c", "is not MIN:OPT:MAX"),
        ("1:8:32\n", "is not MIN:OPT:MAX"),
        ("-1:8:32", "is not MIN:OPT:MAX"),
        ("1.0:8:32", "is not MIN:OPT:MAX"),
        ("١:٨:٩", "is not MIN:OPT:MAX"),
        ("1:8:9999999999999", "is not MIN:OPT:MAX"),
        ("0:8:32", "batch 0:8:32 is out of order"),
        ("8:1:32", "batch 8:1:32 is out of order"),
        ("1:64:32", "batch 1:64:32 is out of order"),
        ("1:8:2147483648", "batch 2147483648 is beyond int32"),
    ],
)
def test_batches_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        BatchRange.parse(text)
    assert message in caught.value.message
    assert caught.value.hint


@given(st.lists(st.sampled_from(TARGETS), min_size=1))
def test_targets_are_each_taken_once_and_in_order(names: list[str]) -> None:
    found = parse_targets(" , ".join(name.upper() for name in names))
    assert found == tuple(target for target in TARGETS if target in names)
    assert EngineOptions(targets=found).targets == found


@pytest.mark.parametrize("text", ["", "sm90", "sm86,", "sm86;sm89", "86", "sm 86", "sm86,sm99"])
def test_an_unknown_target_is_named_with_those_known(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown target") as caught:
        parse_targets(text)
    assert all(target in caught.value.hint for target in TARGETS)


def test_targets_of_python_callers_are_checked_too() -> None:
    with pytest.raises(InvalidArgument, match="unknown target 'sm90'"):
        EngineOptions(targets=("sm86", "sm90"))


def test_what_is_built_where_nothing_is_asked_for_is_known() -> None:
    assert set(DEFAULT_TARGETS) <= set(TARGETS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": EnginePrecision.BF16, "targets": ("sm75", "sm86")}, "sm75 has no bf16"),
        ({"workspace_gib": 0.0}, "a workspace of 0 GiB"),
        ({"workspace_gib": -1.0}, "a workspace of -1 GiB"),
        ({"workspace_gib": math.nan}, "a workspace of nan GiB"),
        ({"workspace_gib": math.inf}, "a workspace of inf GiB"),
        ({"opt_level": -1}, "optimisation level -1"),
        ({"opt_level": 6}, "optimisation level 6"),
        ({"attention": PACKED, "precision": EnginePrecision.FP32}, "--precision fp32 asks for none"),
        ({"attention": PACKED, "fusion": FusionChoice.ALLOWED_UNFUSED}, "--allow-unfused asks for none"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        EngineOptions(**changes)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("level", range(6))
def test_every_level_there_is(level: int) -> None:
    assert EngineOptions(opt_level=level).opt_level == level


@pytest.mark.parametrize(
    ("builder", "changes", "message"),
    [
        (TRT, {"targets": ("sm86",)}, "not for --target"),
        (RTX, {"portability": frozenset({Portability.VERSIONS})}, "--version-compatible"),
        (RTX, {"portability": frozenset({Portability.HARDWARE})}, "--hardware-compatible"),
        (RTX, {"timing_cache": Path("cache")}, "--timing-cache"),
        (RTX, {"attention": PACKED}, "TensorRT for RTX has no kernel for attention on packed rows"),
    ],
)
def test_what_one_builder_has_and_the_other_has_not(
    builder: BuilderName, changes: dict[str, Any], message: str
) -> None:
    options = EngineOptions(**changes)
    with pytest.raises(InvalidArgument) as caught:
        check_for_builder(options, builder)
    assert message in caught.value.message
    assert caught.value.hint
    check_for_builder(options, TRT if builder is RTX else RTX)
