"""Checks that files beside weights are of the model that the weights are read into, where names and shapes agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn

from sait_deploy.artifacts.manifest import Pooling
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.config_files import ConfigFile
from sait_deploy.models.hugging_face import ACTIVATIONS

_IN_PYTHON = "make the model in Python as the file says, load the weights, and give it to sait_deploy.export"


def check_configured(files: Iterable[ConfigFile], model: nn.Module, chosen: Pooling | None) -> None:
    """Compares what changes a model's answers but none of its weights' names and shapes.

    Args:
        files: beside the weights.
        model: made for them.
        chosen: pooling that the user chose; None for the model's own.

    Raises:
        InvalidArgument: a file is of a model that pools otherwise, has another number of heads or another activation.
    """
    for file in files:
        arguments = file.data.get("model_args")
        said: Mapping[str, Any] = {**file.data, **(arguments if isinstance(arguments, dict) else {})}
        pool, own = said.get("global_pool"), getattr(model, "global_pool", None)
        if chosen is None and own and isinstance(pool, str) and pool not in ("", own):
            offered = pool in list(Pooling)
            raise InvalidArgument(
                f"{file.path} is of a model whose head reads {pool!r}, and --model makes one whose head reads {own!r}",
                f"give --global-pool {pool}, or {own} if the file is wrong" if offered else _IN_PYTHON,
            )
        heads = said.get("num_heads", said.get("num_attention_heads"))
        blocks: Any = getattr(model, "blocks", None)
        made = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks else None
        if made is not None and type(heads) is int and heads != made:
            raise InvalidArgument(
                f"{file.path} is of a model with {heads} attention heads, and --model makes one with {made}",
                f"give the --model that has {heads}, or {_IN_PYTHON}",
            )
        activation = said.get("act_layer", said.get("hidden_act"))
        mlp: Any = getattr(blocks[0], "mlp", None) if blocks else None
        # A gated MLP has an activation of its own, which files do not name.
        if isinstance(activation, str) and type(mlp) is Mlp and not _computes(mlp.act, activation):
            raise InvalidArgument(
                f"{file.path} is of a model with the activation {activation!r}, and --model makes one with "
                f"{type(mlp.act).__name__}",
                f"give the --model that has it, such as those with quickgelu in their names, or {_IN_PYTHON}",
            )


def _computes(module: nn.Module, activation: str) -> bool:
    """Returns whether a module computes the activation of that name; False for a name that nothing is known of."""
    if activation not in ACTIVATIONS:
        return False
    numbers = torch.linspace(-4, 4, 33)
    with torch.no_grad():
        return torch.allclose(module(numbers.clone()), ACTIVATIONS[activation]()(numbers.clone()), rtol=0, atol=1e-6)
