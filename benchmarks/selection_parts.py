"""Rules of selection on the same computed tokens: importance read in several ways, and how many tokens it keeps.

A model is cut in two: a stem up to the attention of the block pruned in, run once an image for all rules, and the rest,
run on the tokens that a rule keeps. Images that keep as many tokens run together, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import token_importance
from sait_deploy.models.transformer import Tokens
from sait_deploy.plugins.lanes import lanes_of
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.tokens import Geometry, Score, pruned_macs
from sait_deploy.training.layouts import FusedUniform

Floats = NDArray[np.float32]
Run = Callable[..., list[NDArray[Any]]]
_HALVINGS: Final = 40


class Reading(StrEnum):
    """How importance is read off attention."""

    MEAN = "mean"
    CLS = "cls"
    MEAN_VALUE = "mean x value norm"
    CLS_VALUE = "cls x value norm"
    MEAN_BLOCKS = "mean, all blocks so far"
    CLS_BLOCKS = "cls, all blocks so far"


class Stem(nn.Module):
    """Images to the tokens after the attention of the block pruned in, and importance read in every way.

    Args:
        vit: a model with a class token.
        prune_at: the block.
    """

    def __init__(self, vit: nn.Module, prune_at: int) -> None:
        super().__init__()
        self.vit, self.model, self.prune_at = vit, transformer_of(vit), prune_at

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns tokens [B, P+N, D] and importance [B, readings, N] of images [B, 3, H, W]."""
        model, prefix = self.model, self.model.shape().prefix
        tokens = model.embed(images)
        layout = FusedUniform.of(images.shape[0], model.shape().geometry.tokens, images.device)
        seen: list[Tensor] = []
        whole: dict[Score, list[Tensor]] = {score: [] for score in Score}
        for block in range(self.prune_at + 1):
            heads = model.heads(block, tokens)
            attended, weights = layout.scored(heads)
            tokens = model.attended(block, tokens, attended, layout)
            for score, found in whole.items():
                found.append(token_importance(weights, prefix, score))
            if block < self.prune_at:
                tokens = model.fed_forward(block, tokens, layout)
        lengths = lanes_of(heads.qkv, layout.slots, heads.num_heads)[2].norm(dim=-1)[:, :, None, :]
        for scaled in (weights, weights * lengths):
            seen += [token_importance(scaled, prefix, score) for score in (Score.MEAN, Score.CLS)]
        seen += [torch.stack(whole[score]).mean(dim=0) for score in (Score.MEAN, Score.CLS)]
        return tokens.x.reshape(images.shape[0], -1, tokens.x.shape[-1]), torch.stack(seen, dim=1)


class Rest(nn.Module):
    """Tokens after the attention of the block pruned in to logits; each image has as many.

    Args:
        vit: the model.
        prune_at: the block.
    """

    def __init__(self, vit: nn.Module, prune_at: int) -> None:
        super().__init__()
        self.vit, self.model, self.prune_at = vit, transformer_of(vit), prune_at

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns logits [B, classes] of tokens [B, P+K, D]."""
        batch, each, width = tokens.shape
        layout = FusedUniform.of(batch, each, tokens.device)
        x = self.model.run_rest(self.prune_at, Tokens(tokens.reshape(-1, width)), layout).x
        return self.model.readout(self.model.normed(x), layout)


def in_torch(module: nn.Module) -> Run:
    """Returns a function of arrays that runs a module in torch."""

    def run(given: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            found = module.eval()(torch.from_numpy(np.asarray(given, np.float32)))
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return run


def in_openvino(module: nn.Module, example: Tensor, precision: str, threads: int) -> Run:
    """Returns a function of arrays that runs a module on OpenVINO, any number of images and tokens at once."""
    import openvino

    free = [-1, *example.shape[1:]] if example.ndim == 4 else [-1, -1, example.shape[-1]]
    with torch.no_grad():  # torch's own check of a trace compares names, which differ from one to the next
        traced = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, example_input=example, input=[tuple(free)])
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = shared_core().compile_model(graph, "CPU", hints)

    def run(given: NDArray[Any]) -> list[NDArray[Any]]:
        return [np.array(one) for one in compiled(np.asarray(given, np.float32)).values()]

    return run


def kept(importance: Floats, counts: NDArray[np.int32], prefix: int) -> NDArray[np.bool_]:
    """Returns which tokens the deployed selection keeps, bool [B, P+N], when each image keeps so many patch tokens."""
    limits = np.repeat(counts[:, None], 2, axis=1).astype(np.int32)
    keep, _ = mass_token_select(importance, np.ones(len(counts), np.float32), limits, prefix)
    return keep.astype(bool)


def in_groups(
    run: Run,
    tokens: Sequence[NDArray[Any]] | NDArray[Any],
    keep: NDArray[np.bool_],
    batch: int,
    step: Callable[[float], None] = lambda _: None,
) -> list[list[NDArray[Any]]]:
    """Runs a part of a model on the kept tokens of each image alone, and returns its outputs image by image.

    Args:
        run: the part.
        tokens: of each image, [S, D]; S is P+N, or fewer where an earlier part dropped some.
        keep: bool [n, P+N], of which each image's first S count.
        batch: most images at once; they have equal numbers of tokens.
        step: told the share that is done.
    """
    counts, done = keep.sum(1), 0
    found: dict[int, list[NDArray[Any]]] = {}
    for count in np.unique(counts):
        same = np.flatnonzero(counts == count)
        for part in np.split(same, range(batch, len(same), batch)):
            chosen = np.stack([tokens[image][keep[image][: len(tokens[image])]] for image in part])
            outputs = run(chosen)
            found.update((image, [one[place] for one in outputs]) for place, image in enumerate(part.tolist()))
            done += len(part)
            step(done / len(keep))
    return [found[image] for image in range(len(keep))]


def answered(
    rest: Run,
    tokens: Sequence[NDArray[Any]] | NDArray[Any],
    keep: NDArray[np.bool_],
    batch: int,
    step: Callable[[float], None] = lambda _: None,
) -> Floats:
    """Returns the logits [n, classes] of images whose kept tokens alone run on; takes what ``in_groups`` takes."""
    return np.stack([outputs[0] for outputs in in_groups(rest, tokens, keep, batch, step)])


@dataclass(frozen=True, slots=True)
class CountRule:
    """How many tokens an image keeps, by its importance and a level that says how many in all.

    Attributes:
        name: of the rule.
        counts: from importance [B, N] and a level to patch tokens kept, int32 [B]; more at higher levels.
        levels: the lowest and the highest level.
    """

    name: str
    counts: Callable[[Floats, float], NDArray[np.int32]]
    levels: tuple[float, float] = (0.0, 1.0)


def by_mass(importance: Floats, level: float) -> NDArray[np.int32]:
    """Returns the fewest tokens whose importance reaches a mass."""
    batch, patches = importance.shape
    limits = np.tile(np.array([1, patches], np.int32), (batch, 1))
    return mass_token_select(importance, np.full(batch, level, np.float32), limits, 0)[1]


def by_power(power: float) -> CountRule:
    """Keeps the fewest tokens whose importance to a power reaches a share of its sum."""

    def counts(importance: Floats, level: float) -> NDArray[np.int32]:
        raised = importance.astype(np.float64) ** power
        return by_mass((raised / raised.sum(1, keepdims=True)).astype(np.float32), level)

    return CountRule(f"mass of power {power:g}", counts)


def by_threshold(importance: Floats, level: float) -> NDArray[np.int32]:
    """Returns how many tokens have more than N^(1 - level) times uniform importance, one at least."""
    multiple = importance.shape[1] ** (1 - level)
    return np.maximum(1, (importance * importance.shape[1] > multiple).sum(1)).astype(np.int32)


def by_calibration(share: float) -> CountRule:
    """Keeps a mean count plus a share of what the mass's own count differs from its mean over images.

    The two parameters are the level, which sets the mass and with it the mean count, and the share: 1 is the mass, 0 a
    density.
    """

    def counts(importance: Floats, level: float) -> NDArray[np.int32]:
        own = by_mass(importance, level).astype(np.float64)
        mixed = own.mean() + share * (own - own.mean())
        return np.clip(np.rint(mixed), 1, importance.shape[1]).astype(np.int32)

    return CountRule(f"mass, {share:g} of its spread", counts)


MASS: Final = CountRule("mass", by_mass)
THRESHOLD: Final = CountRule("threshold", by_threshold, levels=(0.0, 2.0))


def mean_macs(geometry: Geometry, prune_at: int, counts: NDArray[np.int32]) -> float:
    """Returns the mean multiply-accumulates of images that keep so many patch tokens."""
    numbers, times = np.unique(counts, return_counts=True)
    costs = [pruned_macs(geometry, prune_at, int(number)) for number in numbers]
    return float(np.average(costs, weights=times))


def counts_at(
    rule: CountRule, importance: Floats, cost: Callable[[NDArray[np.int32]], float], most: float
) -> tuple[float, NDArray[np.int32]]:
    """Returns the highest level whose counts on these images cost at most so much, and those counts."""
    low, high = rule.levels
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(rule.counts(importance, middle)) <= most else (low, middle)
    return low, rule.counts(importance, low)


def reading(importance: Floats, name: Reading) -> Floats:
    """Returns one reading of importance [B, readings, N]."""
    return importance[:, list(Reading).index(name)]


def by_clusters(first: NDArray[np.bool_], second: NDArray[np.bool_], cluster: NDArray[np.int64]) -> Estimate:
    """Returns in how many more answers the first is right, in points, with a 95 % interval over clusters of answers.

    The clusters' sums of differences are drawn, not the answers: the usual interval of a ratio's mean.

    Args:
        first: bool [n].
        second: bool [n], of the same images.
        cluster: int64 [n], what the answers of one cluster have in common.
    """
    gains = first.astype(np.float64) - second
    value, numbers = float(gains.mean()), np.unique(cluster)
    sums = np.array([(gains[cluster == one] - value).sum() for one in numbers])
    width = 1.96 * float(np.sqrt((sums**2).sum() * len(numbers) / max(1, len(numbers) - 1))) / len(gains)
    return Estimate(100 * (value - width), 100 * value, 100 * (value + width))
