"""Builders' errors and warnings, explained, with what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Explanation:
    """What messages with a fragment in them mean, and what to do."""

    fragment: str
    meaning: str
    hint: str


_ERRORS: Final = (
    Explanation(
        "Attention operation was not supported by a dedicated kernel",
        "an attention has no fused kernel for this precision, head size and target",
        "build with --allow-unfused, or with another --precision or --target",
    ),
    Explanation(
        "uses packed (NHD) inputs",
        "this GPU has no kernel for attention on packed rows",
        "build without --attention packed",
    ),
    Explanation(
        "OutOfMemory",
        "the builder got too little memory",
        "give a larger --builder-workspace if you gave one, else a smaller --batch, or free some of the GPU's memory",
    ),
    Explanation(
        "Could not find any implementation",
        "no kernel fits within the limits given",
        "give a larger --builder-workspace, or a smaller --batch",
    ),
    Explanation(
        "within workspace limit",
        "no kernel fits within the limits given",
        "give a larger --builder-workspace, or a smaller --batch",
    ),
    Explanation(
        "for Turing (SM75)",
        "sm75 has no kernels for this precision",
        "use --precision fp16, or leave sm75 out of --target",
    ),
    Explanation("HW-specific datatypes", "a target has no such element type", "use another --precision or --target"),
    Explanation(
        "Unable to load library",
        "this installation lacks a library that the option needs",
        "leave --version-compatible out, or install the whole TensorRT",
    ),
    Explanation("CUDA driver version is insufficient", "the builder needs a GPU for this", "build where a GPU is"),
    Explanation(
        "is of another GPU or TensorRT",
        "the timing cache cannot be used",
        "remove the --timing-cache file, or name another",
    ),
    Explanation("CUDA_SUCCESS", "the builder needs a GPU for this", "build where a GPU is, or without --strip-weights"),
)

_WARNINGS: Final = (
    Explanation(
        "less than smallest positive",
        "weights smaller than this precision holds were made larger or 0",
        "compare with --precision bf16 or fp32",
    ),
    Explanation("subnormal", "small weights lose digits in this precision", "compare with --precision bf16 or fp32"),
    Explanation(
        "would overflow",
        "weights larger than this precision holds were made its largest",
        "build with --precision bf16 or fp32",
    ),
    Explanation("infinity", "weights are infinite", "check the weights"),
    Explanation("NaN values", "weights are not numbers", "check the weights"),
    Explanation("iming cache", "measured kernel times could not be used", "remove the --timing-cache file"),
)

_LONGEST: Final = 300


def explain_error(messages: list[str]) -> tuple[str, str]:
    """Returns what is wrong and what to do, from the messages of a builder that failed."""
    for explanation in _ERRORS:
        if any(explanation.fragment in message for message in messages):
            return explanation.meaning, explanation.hint
    reason = shortened(messages[-1]) if messages else "the builder gave no reason"
    return reason, "run again with --debug to see all that the builder says"


def explain_warning(message: str) -> str:
    """Returns a warning with what it means, where that is known."""
    for explanation in _WARNINGS:
        if explanation.fragment in message:
            return f"{explanation.meaning}: {explanation.hint} ({shortened(message)})"
    return shortened(message)


def shortened(message: str) -> str:
    """Returns a message on one line, cut where it is long."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
