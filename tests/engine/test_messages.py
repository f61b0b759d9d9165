"""What a builder says leads somewhere, is one line and is not too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.engine.messages import explain_error, explain_warning, shortened

LONGEST = 300
LINES = st.text(max_size=2000)


@pytest.mark.parametrize(
    ("said", "meaning", "hint"),
    [
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([decompose_composite_ops.cpp:59: "
            "Attention operation was not supported by a dedicated kernel.",
            "no fused kernel",
            "--allow-unfused",
        ),
        (
            "Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics to implement the operation "
            "within workspace limit. Consider increase the allowed workspace size if applicable.",
            "limits given",
            "--workspace",
        ),
        ("Error Code 10: Could not find any implementation for node {ForeignNode[a...b]}.", "limits", "--workspace"),
        ("Requested amount of GPU memory could not be allocated: OutOfMemory", "more memory", "--batch"),
        ("target does not support HW-specific datatypes", "no such element type", "--target"),
        ("Cannot compile operation 'a' for Turing (SM75): FP32 GEMM is not supported.", "sm75", "--precision fp16"),
        ("Unable to load library: libnvinfer_builder_resource.so.10", "lacks a library", "--version-compatible"),
        ("CUDA initialization failure: CUDA driver version is insufficient", "needs a GPU", "where a GPU is"),
        ("graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed.", "needs a GPU", "--strip-weights"),
    ],
)
def test_known_errors_are_explained_wherever_they_stand(said: str, meaning: str, hint: str) -> None:
    for messages in ([said], ["first", said, "and so it ends"]):
        what, to_do = explain_error(messages)
        assert meaning in what
        assert hint in to_do


def test_of_unknown_errors_the_last_is_shown_with_where_the_rest_is() -> None:
    what, hint = explain_error(["the cause", "and so it\n  ends"])
    assert what == "and so it ends"
    assert "--debug" in hint


def test_a_builder_that_gave_no_reason() -> None:
    what, hint = explain_error([])
    assert what == "the builder gave no reason"
    assert hint


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Detected subnormal FP16 values in weights.", "--precision bf16"),
        ("- 3 weights are affected by this issue: values less than smallest positive FP16 subnormal value", "bf16"),
        ("Weights overflow: converted to infinity", "--precision bf16"),
        ("Timing cache was created with another version", "--timing-cache"),
        ("Using an engine plan file across different models of devices is not recommended", "kind of GPU"),
    ],
)
def test_known_warnings_are_explained_and_still_quoted(said: str, hint: str) -> None:
    found = explain_warning(said)
    assert hint in found
    assert f"({said})" in found


@given(LINES)
def test_an_unknown_warning_is_left_as_it_is_but_for_its_length(said: str) -> None:
    known = ("subnormal", "less than", "infinity", "Timing cache", "different models")
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
