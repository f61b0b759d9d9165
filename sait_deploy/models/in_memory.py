"""What a model in memory must be for export to carry it: its class's own forward pass, float32 weights on the CPU."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sait_deploy.errors import ModelError

_UNHOOK = "take it off first: remove() of its handle, or prune.remove, remove_weight_norm and the like for weights"


def check_carried(model: nn.Module) -> None:
    """Checks that nothing changes a model's answers that export does not see, and that its weights are at hand.

    Raises:
        ModelError: a module has a forward hook, a method of its own or a parametrized weight; or a weight has no
            values, is not float32, or is not on the CPU. The message names the module or weight.
    """
    for name, module in model.named_modules():
        _check_module(name or "the model", module)
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        _check_tensor(name, tensor)


def _check_module(name: str, module: nn.Module) -> None:
    for what, hooks in (("forward hook", module._forward_hooks), ("forward pre-hook", module._forward_pre_hooks)):
        if hooks:
            raise ModelError(f"{name} has a {what}, which export does not carry", _UNHOOK)
    for attribute, value in vars(module).items():
        if callable(value) and callable(getattr(type(module), attribute, None)):
            raise ModelError(
                f"{attribute} of {name} was replaced by a function, which export does not carry",
                "use the class's own, or put what it computes into a module such as the head",
            )
    if "quantized" in type(module).__module__:
        raise ModelError(
            f"{name} is quantised, and export takes float32 weights",
            "give the model as it was before; sait-deploy quantize makes an int8 artifact of its export",
        )
    if parametrize.is_parametrized(module):
        weight = next(iter(module.parametrizations))  # type: ignore[arg-type]
        raise ModelError(
            f"{weight} of {name} is parametrized, which export does not carry",
            f"fix its values first: torch.nn.utils.parametrize.remove_parametrizations(module, {weight!r})",
        )


def _check_tensor(name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise ModelError(f"{name} is on the meta device and has no values", "load the weights into the model first")
    if tensor.device.type != "cpu":
        raise ModelError(f"{name} is on {tensor.device}", "pass model.cpu()")
    if tensor.is_floating_point() and tensor.dtype is not torch.float32:
        raise ModelError(
            f"{name} is {str(tensor.dtype).removeprefix('torch.')}, and export takes float32 weights",
            "pass model.float(); precision='fp16' of ExportOptions makes a half-precision artifact of them",
        )


@contextlib.contextmanager
def in_inference_mode(model: nn.Module) -> Iterator[None]:
    """Puts every module into inference mode, and back into its own mode when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
