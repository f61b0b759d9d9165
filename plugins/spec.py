"""What an operator of the ``ai.sait`` domain looks like from outside, in one place for every form it takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DOMAIN: Final = "ai.sait"
"""ONNX domain of the operators."""

DOMAIN_VERSION: Final = 1

TORCH_NAMESPACE: Final = "sait"
"""torch.library namespace: it takes no dot."""

TENSORRT_NAMESPACE: Final = "ai_sait"
"""TensorRT's plugin namespace: it takes no dot either."""


class ElementType(StrEnum):
    """Element type of a tensor at an operator's boundary."""

    FLOAT32 = "float"
    INT32 = "int32"
    BOOL = "bool"
    ACTIVATION = "T"
    """float32 or float16, the same in every tensor of a node that has it."""


class AttributeKind(StrEnum):
    """Type of an attribute."""

    INT = "INT"
    FLOAT = "FLOAT"


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute. All are required: not every tool applies a function's defaults."""

    name: str
    kind: AttributeKind


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, element type and symbolic shape."""

    name: str
    element_type: ElementType
    shape: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """An operator's contract.

    Attributes:
        name: operator name, unique without its domain (TensorRT looks functions up by name alone).
        attributes: in the order in which the torch operator takes them, after the tensors.
        doc: the contract in words.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: tuple[AttributeSpec, ...]
    doc: str
