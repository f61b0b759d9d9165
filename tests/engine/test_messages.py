"""What a builder says leads somewhere, is one line and is not too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.engine.messages import explain_error, explain_warning, shortened

LONGEST = 300
LINES = st.text(max_size=2000)


ERRORS = [
    (
        "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([decompose_composite_ops.cpp:59: "
        "Attention operation was not supported by a dedicated kernel.  ",
        "an attention has no fused kernel for this precision, head size and target",
        "--allow-unfused",
    ),
    (
        "[optimizer.cpp::computeCosts::4048] Error Code 2: OutOfMemory (no further information)",
        "the builder got too little memory",
        "give a larger --builder-workspace if you gave one",
    ),
    (
        "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}.)",
        "no kernel fits within the limits given",
        "a larger --builder-workspace, or a smaller --batch",
    ),
    (
        "Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics to implement the operation "
        "within workspace limit. Consider increase the allowed workspace size if applicable.",
        "no kernel fits within the limits given",
        "a larger --builder-workspace, or a smaller --batch",
    ),
    (
        "Cannot compile operation 'a' for Turing (SM75): FP32 GEMM is not supported.",
        "sm75 has no kernels for this precision",
        "use --precision fp16, or leave sm75 out",
    ),
    (
        "because the model contains HW-specific datatypes: BFloat16",
        "a target has no such element type",
        "another --precision or --target",
    ),
    (
        "Unable to load library: libnvinfer_builder_resource.so.10",
        "this installation lacks a library that the option needs",
        "leave --version-compatible out",
    ),
    (
        "Cuda Runtime (In ScopedCudaStream at /_src/common/dispatch/cudaResources.cpp:25 "
        "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))",
        "the builder needs a GPU for this",
        "build where a GPU is",
    ),
    (
        "the timing cache /kernels is none, or is of another GPU or TensorRT",
        "the timing cache cannot be used",
        "remove the --timing-cache file",
    ),
    (
        "graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed. ",
        "the builder needs a GPU for this",
        "without --strip-weights",
    ),
]
"""Sentences of the libraries, each with what leads on from it and nothing else does."""


@pytest.mark.parametrize(("said", "meaning", "hint"), ERRORS)
def test_known_errors_are_explained_wherever_they_stand(said: str, meaning: str, hint: str) -> None:
    for messages in ([said], ["first", said, "and so it ends"]):
        what, to_do = explain_error(messages)
        assert what == meaning
        assert hint in to_do


def test_of_unknown_errors_the_last_is_shown_with_where_the_rest_is() -> None:
    what, hint = explain_error(["the cause", "and so it\n  ends"])
    assert what == "and so it ends"
    assert "--debug" in hint


def test_a_builder_that_gave_no_reason() -> None:
    what, hint = explain_error([])
    assert what == "the builder gave no reason"
    assert hint


WARNINGS = [
    (
        f"Detected values less than smallest positive {kind} subnormal value and converted them to the {kind} minimum "
        "subnormalized value.",
        "weights smaller than this precision holds were made larger or 0: compare with --precision bf16 or fp32",
    )
    for kind in ("FP16", "BF16")
] + [
    (
        "Detected subnormal FP16 values.",
        "small weights lose digits in this precision: compare with --precision bf16 or fp32",
    ),
    (
        "Detected finite FP32 values which would overflow in FP16 and converted them to the closest finite FP16 value.",
        "weights larger than this precision holds were made its largest: build with --precision bf16 or fp32",
    ),
    (
        "Detected FP32 infinity values and converted them to corresponding FP16 infinity.",
        "weights are infinite: check the weights",
    ),
    (
        "Detected NaN values and converted them to corresponding FP16 NaN.",
        "weights are not numbers: check the weights",
    ),
    (
        "Failed to deserialize timing cache. Returning an empty timing cache.",
        "measured kernel times could not be used: remove the --timing-cache file",
    ),
    (
        "Timing cache header mismatch:",
        "measured kernel times could not be used: remove the --timing-cache file",
    ),
]


@pytest.mark.parametrize(("said", "explained"), WARNINGS)
def test_known_warnings_are_explained_and_still_quoted(said: str, explained: str) -> None:
    assert explain_warning(said) == f"{explained} ({said})"


@given(LINES)
def test_an_unknown_warning_is_left_as_it_is_but_for_its_length(said: str) -> None:
    known = ("subnormal", "less than", "would overflow", "infinity", "NaN values", "iming cache")
    if not any(fragment in said for fragment in known):
        assert explain_warning(said) == shortened(said)


@given(LINES)
def test_what_is_shown_is_one_line_of_bounded_length(said: str) -> None:
    line = shortened(said)
    assert len(line) <= LONGEST
    assert len(line.splitlines()) <= 1
    words = " ".join(said.split())
    assert line == words or (line.endswith("…") and words.startswith(line[:-1]))


@given(st.lists(LINES, max_size=4))
def test_every_error_gets_a_line_and_a_hint(said: list[str]) -> None:
    what, hint = explain_error(said)
    assert len(what.splitlines()) <= 1
    assert hint
