"""Which linear layers stay float: the named ones, what importance is read from, and those whose int8 costs most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.quantization.layers import LinearLayer, named_layers, read_by
from sait_deploy.quantization.options import Exclude, QuantizeOptions
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import run_all
from sait_deploy.system.progress import Progress

NAMED: Final = "named by --exclude"
SCORES: Final = "importance is read from it"
COSTLY: Final = "its int8 costs most agreement"

SENSITIVITY_IMAGES: Final = 16
"""Images on which the cost of one layer is measured."""


def first_exclusion(
    model: onnx.ModelProto, manifest: Manifest, layers: Sequence[LinearLayer], options: QuantizeOptions
) -> dict[str, str]:
    """Returns the layers that stay float whatever they cost, name to reason.

    Raises:
        InvalidArgument: a name is no layer's.
    """
    excluded = {layer.name: NAMED for layer in named_layers(layers, options.keep_float)}
    if options.exclude is Exclude.AUTO and manifest.pruning is not None:
        for layer in read_by(model, manifest.pruning.importance, layers):
            excluded.setdefault(layer.name, SCORES)
    return excluded


def costs(
    layers: Sequence[LinearLayer],
    wanted: NDArray[np.float32],
    batch: NDArray[np.float32],
    alone: Callable[[LinearLayer], Runner],
    progress: Progress,
) -> dict[str, float]:
    """Returns what each layer costs in int8: the mean squared change of logits where it alone is.

    Args:
        layers: which.
        wanted: the float artifact's logits float32 [B, C] of the batch.
        batch: images float32 [B, C, H, W].
        alone: makes a runner with one layer in int8.
        progress: called with each layer.
    """
    found: dict[str, float] = {}
    step = f"measuring what each of {len(layers)} layers costs in int8"
    progress(step, 0.0)
    for number, layer in enumerate(layers, 1):
        found[layer.name] = float(np.square(run_all(alone(layer), batch).logits - wanted).mean())
        progress(step, number / len(layers))
    return found


def costliest_first(cost: dict[str, float]) -> Iterator[tuple[str, ...]]:
    """Yields 1, 2, 4 and more of the costliest layers, but never all of them."""
    ranked = sorted(cost, key=lambda name: -cost[name])
    count = 1
    while count < len(ranked):
        yield tuple(ranked[:count])
        count *= 2
