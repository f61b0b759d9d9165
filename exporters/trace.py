"""torch module → ONNX graph: one trace, with ``ai.sait`` operators kept as nodes."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import onnx_ir as ir
import torch
from onnxscript import values
from torch import Tensor, nn

from sait_deploy.exporters.older_opset import TRACED
from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.onnx_form import operator_schema
from sait_deploy.plugins.spec import DOMAIN, DOMAIN_VERSION, OperatorSpec
from sait_deploy.system.loggers import errors_only

TRACED_BATCH: Final = 2
"""Batch size of the example input of a graph for any: torch.export would specialise on 0 and 1."""


def trace(
    module: nn.Module,
    image: tuple[int, int, int],
    output_names: Sequence[str],
    opset: int,
    further: Mapping[str, Tensor] = MappingProxyType({}),
    fixed_batch: int | None = None,
) -> ir.Model:
    """Exports a module with a dynamic batch dimension, or a fixed one.

    Args:
        module: takes images float32 [B, C, H, W], then the further inputs, and returns a tuple of tensors.
        image: C, H and W.
        output_names: names of the outputs, in order.
        opset: version of the standard operators, which ``finish`` lowers where torch writes no older one.
        further: inputs after the images, name to an example of ``TRACED_BATCH`` images, or of the fixed batch.
        fixed_batch: images of every request; None for any number.
    """
    count = TRACED_BATCH if fixed_batch is None else fixed_batch
    examples = {"images": torch.zeros(count, *image), **further}
    batch = torch.export.Dim("batch", min=1)
    dynamic = None if fixed_batch is not None else tuple({0: batch} for _ in examples)
    _parse_once()
    with _quiet(), _uncollected(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            dynamo=True,
            opset_version=max(opset, TRACED),
            input_names=list(examples),
            output_names=list(output_names),
            dynamic_shapes=dynamic,
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None
    return program.model


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {operator.torch_operator._opoverload: _translation(operator.spec) for operator in OPERATORS.values()}


def _translation(spec: OperatorSpec) -> Callable[..., Any]:
    """Maps a torch operator to a node; torch passes attributes by position after the tensors."""
    operator = values.Op(values.Opset(DOMAIN, DOMAIN_VERSION), spec.name, operator_schema(spec))
    tensors, names = len(spec.inputs), [attribute.name for attribute in spec.attributes]

    def translate(*arguments: Tensor | float, **attributes: float) -> Any:
        named = dict(zip(names, arguments[tensors:], strict=False))
        return operator(*arguments[:tensors], **named, **attributes)

    return translate


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress, advice and deprecation notes off the user's screen; errors still raise."""
    silent = contextlib.redirect_stdout(io.StringIO())
    with errors_only("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings(), silent:
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Stops garbage collection while the block runs: it takes a tenth of a trace and frees hardly anything."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@functools.cache
def _parse_once() -> None:
    """Lets onnxscript keep the signatures of torch's operators, whose 500 sources it would parse for every trace."""
    parsed = getattr(getattr(values, "TracedOnnxFunction", None), "function_ir", None)
    if isinstance(parsed, property) and parsed.fget is not None:
        values.TracedOnnxFunction.function_ir = property(functools.cache(parsed.fget))
