"""Does the exported graph agree with its references? Selection bit for bit, logits within the precision's tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Form, Manifest, ParityInfo, Precision, Task, block_features
from sait_deploy.artifacts.points import BatchPoint, PointChoice
from sait_deploy.errors import ParityError
from sait_deploy.exporters.names import KEEP
from sait_deploy.exporting.selection import check_selection, reference_keep
from sait_deploy.runtime.answers import Output, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import Numbers, portions
from sait_deploy.tokens import OperatingPoint

if TYPE_CHECKING:
    from sait_deploy.models.prunable_vit import PrunableViT
    from sait_deploy.models.traced import Traced

TOLERANCE: Final = {Precision.FP32: 1e-4, Precision.FP16: 2e-2, Precision.INT8: 0.5}
"""Largest difference of a logit, relative to the largest reference logit of the image or to 1, whichever is larger.

Numbers of an embedding of unit length are all small: a difference of those is relative to the largest alone.
"""

_LEAST_SCALE: Final = 1e-6
"""What a difference of embeddings is relative to at least: features that are all zero have no direction."""

MASS_ONE: Final = "mass 1"
MIXED: Final = "mixed points"
"""Two runs of an adaptive artifact: where it is dense, and where every image has a point of its own. No named point can
be called so."""

BATCHES: Final = (1, 3, 8)
"""Batch sizes to run; the graph was traced at another, so that a batch baked in would show."""


@dataclass(frozen=True, slots=True)
class ParityImages:
    """Real images to compare on: float32 [n, 3, H, W], and where they came from."""

    images: NDArray[np.float32]
    source: str


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The comparison, and what the graph itself answered.

    Attributes:
        info: the comparison.
        logits: float32 [n, classes] at the default point.
        kept: patch tokens per image, int32 [n], for every named point.
    """

    info: ParityInfo
    logits: NDArray[np.float32]
    kept: dict[str, NDArray[np.int32]]


def batches_of(count: int) -> list[slice]:
    """Cuts ``count`` images into batches of the sizes in ``BATCHES``, in turn."""
    cuts, start, turn = [], 0, 0
    while start < count:
        cuts.append(slice(start, min(count, start + BATCHES[turn % len(BATCHES)])))
        start, turn = cuts[-1].stop, turn + 1
    return cuts


def _cuts(count: int, batch_range: tuple[int, int]) -> list[Numbers]:
    """Returns the numbers of the images of each batch; a runner of fewer batch sizes gets those that it takes."""
    fewest, most = batch_range
    if fewest == 1 and most >= max(BATCHES):
        return [np.arange(cut.start, cut.stop) for cut in batches_of(count)]
    return portions(count, max(BATCHES), batch_range)


def check_parity(runner: Runner, reference: PrunableViT, images: ParityImages) -> ParityResult:
    """Compares an artifact's graph with the selection's definition and with the fp32 torch model.

    The graph's keep must equal, bit for bit, the reference selection of the graph's own importance; its logits (and
    features) must equal those of the torch model forced to that keep, within the tolerance, from which top-1 follows
    wherever the reference's margin is more than twice that. How often the kept set differs from torch's own is
    reported, not judged: importance itself moves with precision and runtime. An adaptive artifact is compared at all
    of its named points, at mass 1 (there with the dense model), and with each image at a point of its own.

    Args:
        runner: the artifact on the runtime to check.
        reference: the torch model in fp32, pruned as the artifact is.
        images: what to compare on.

    Raises:
        ParityError: they do not agree.
        ModelError: importance or logits are not numbers.
    """
    manifest = runner.artifact.manifest
    found = []
    for point in _points(manifest):
        against = reference if point.name != MASS_ONE else reference.dense()
        found.append(_check_point(runner, against, images.images, point))
    cuts = _cuts(len(images.images), runner.batch_range)
    # At mass 1 every set is equal, and with mixed points many are: only named points say something.
    named = [point for point in found if point.name not in (MASS_ONE, MIXED)]
    top1 = None if manifest.model.classes == 0 else float(np.mean([point.top1 for point in named]))
    same = [point.same_kept for point in named if point.same_kept is not None]
    info = ParityInfo(
        runtime=runner.runtime,
        images=len(images.images),
        image_source=images.source,
        batches=tuple(sorted({len(cut) for cut in cuts})),
        tolerance=TOLERANCE[manifest.dtype],
        largest_difference=max(point.difference for point in found),
        top1_agreement=top1,
        cosine=min(point.cosine for point in found),
        kept_sets_equal_torch=float(np.mean(same)) if same else None,
        points=tuple(point.name for point in found if point.name is not None),
    )
    return ParityResult(info, found[0].logits, {p.name: p.kept for p in found if p.name is not None})


@dataclass(frozen=True, slots=True)
class _Point:
    """What one run asks for.

    Attributes:
        name: of the point; None for a dense artifact.
        cycle: the operating points of the images, in turn; empty for a dense artifact.
        choice: what the runner is asked for; None for each image's own of the cycle.
    """

    name: str | None
    cycle: tuple[OperatingPoint, ...]
    choice: PointChoice | None

    def of(self, numbers: Numbers) -> tuple[PointChoice, BatchPoint | None]:
        """Returns what the runner is asked for of the images of these numbers, and what that means for each."""
        if not self.cycle:
            return PointChoice(), None
        points = [self.cycle[i % len(self.cycle)] for i in numbers]
        mass = np.array([min(point.mass, 2.0) for point in points], dtype=np.float32)  # from 1 on all are the same
        limits = np.array([[point.min_keep, point.max_keep] for point in points], dtype=np.int32)
        return self.choice or PointChoice(None, mass, limits[:, 0], limits[:, 1]), BatchPoint(mass, limits)


@dataclass(frozen=True, slots=True)
class _PointResult:
    """What the runs at one operating point found."""

    name: str | None
    difference: float
    top1: float
    cosine: float
    same_kept: float | None
    logits: NDArray[np.float32]
    kept: NDArray[np.int32]


def _points(manifest: Manifest) -> list[_Point]:
    if manifest.pruning is None:
        return [_Point(None, (), None)]
    named = {info.name: info.point for info in manifest.pruning.points}
    if manifest.form is Form.DENSITY:
        return [_Point(name, (point,), PointChoice()) for name, point in named.items()]
    patches, threshold = manifest.model.geometry.patch_tokens, manifest.pruning.threshold
    # What a threshold leaves out, the least number brings back.
    least = 1 if threshold is None else patches
    dense, third = OperatingPoint(1.0, least, patches), -(-patches // 3)
    # Neighbours at points of their own: a graph that mixed them up, or passed limits over, would show.
    mixed = (*named.values(), dense, OperatingPoint(1.0, third, third), OperatingPoint(0.0, 1, patches))
    return [
        *(_Point(name, (point,), PointChoice(point=name)) for name, point in named.items()),
        _Point(MASS_ONE, (dense,), PointChoice(None, 1.0, least, patches)),
        _Point(MIXED, mixed, None),
    ]


def _check_point(runner: Runner, reference: PrunableViT, images: NDArray[np.float32], point: _Point) -> _PointResult:
    """Runs all images at one operating point, in batches of several sizes, and compares batch by batch."""
    import torch

    manifest, prefix = runner.artifact.manifest, runner.artifact.manifest.model.geometry.prefix_tokens
    tolerance = TOLERANCE[manifest.dtype]
    threshold = None if manifest.pruning is None else manifest.pruning.threshold
    logits, wanted, kept, same, worst = [], [], [], [], 0.0
    for cut in _cuts(len(images), runner.batch_range):
        first = int(cut[0])
        batch = images[cut]
        choice, asked = point.of(cut)
        selection = None if asked is None else runner.select_at(batch, choice)
        output = runner.run_at(batch, choice)
        kept.append(output.kept)
        keep = None
        if selection is not None and asked is not None:
            check_selection(selection, asked, prefix, first, threshold)
            _check_public_outputs(output, selection, manifest, first)
            keep = torch.from_numpy(selection.keep)
        with torch.inference_mode():
            forced = reference.trace(torch.from_numpy(batch), keep=None if reference.pruning is None else keep)
        images_of = None if manifest.model.tower is None else _check_places(output, forced, first)
        found_worst = _compare(output.logits, forced.logits.numpy(), tolerance, first, manifest.model.task, images_of)
        worst = max(worst, found_worst)
        if output.features is not None:
            assert forced.features is not None
            features = forced.features.numpy().reshape(len(batch), -1)
            worst = max(worst, _compare(output.features.reshape(len(batch), -1), features, tolerance, first))
        for block, tokens in zip(reference.blocks, forced.blocks, strict=True):
            found_tokens = output.further[block_features(block)].reshape(len(batch), -1)
            worst = max(worst, _compare(found_tokens, tokens.numpy().reshape(len(batch), -1), tolerance, first))
        logits.append(output.logits)
        wanted.append(forced.logits.numpy())
        if selection is not None and asked is not None and forced.importance is not None:
            # Importance is read before anything is dropped, so what is forced afterwards does not move it.
            own = reference_keep(forced.importance.numpy(), asked, prefix, threshold)
            same.append((own == selection.keep).all(axis=1))
    # Of an image tower each token is a row.
    rows = len(images) if manifest.model.tower is None else None
    found, expected = (np.concatenate(parts)[:rows] for parts in (logits, wanted))
    return _PointResult(
        name=point.name,
        difference=worst,
        top1=float((found.argmax(1) == expected.argmax(1)).mean()),
        cosine=float(cosines(found, expected).min()),
        same_kept=float(np.concatenate(same)[: len(images)].mean()) if same else None,
        logits=found,
        kept=np.concatenate(kept)[: len(images)],
    )


def _check_places(output: Output, forced: Traced, first: int) -> NDArray[np.intp]:
    """Compares which tokens an image tower returned with those of the torch model; returns the image of each."""
    assert forced.cu_seqlens is not None and forced.positions is not None
    starts, positions = forced.cu_seqlens.numpy(), forced.positions.numpy()
    if not (np.array_equal(output.cu_seqlens, starts) and np.array_equal(output.positions, positions)):
        raise ParityError(f"from image {first} on, tokens are of other patches than the kept ones", "report it")
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _check_public_outputs(output: Output, selection: Selection, manifest: Manifest, first: int) -> None:
    """The file as it is shipped must answer as its copy with more outputs does."""
    if not np.array_equal(output.kept + manifest.model.geometry.prefix_tokens, selection.keep.sum(axis=1)):
        raise ParityError(f"counts from image {first} on differ from the kept tokens", "report it")
    keep = output.further.get(KEEP)
    if keep is not None and not np.array_equal(keep, selection.keep):
        raise ParityError(f"keep from image {first} on differs from the kept tokens", "report it")
    _compare(output.logits, selection.logits, TOLERANCE[manifest.dtype], first, manifest.model.task)


def scale_of(wanted: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """Returns what differences from reference answers [n, C] are relative to, float32 [n]."""
    largest: NDArray[np.float32] = np.abs(wanted).max(axis=1)
    return np.maximum(np.float32(_LEAST_SCALE if task is Task.EMBED else 1.0), largest)


def _compare(
    found: NDArray[np.float32],
    wanted: NDArray[np.float32],
    tolerance: float,
    first: int,
    task: Task = Task.FEATURES,
    images_of: NDArray[np.intp] | None = None,
) -> float:
    """Returns the largest difference of rows [n, C], one of each image or of those that ``images_of`` says."""
    if found.shape != wanted.shape:
        raise ParityError(f"outputs are {list(found.shape)}, the reference's {list(wanted.shape)}", "report it")
    scale = scale_of(wanted, task)
    difference = np.abs(found - wanted).max(axis=1) / scale
    worst = int(difference.argmax())
    if not difference[worst] <= tolerance:  # NaN is not within the tolerance either
        image = worst if images_of is None else int(images_of[worst])
        raise ParityError(
            f"the outputs of image {first + image} differ from the reference's by {difference[worst]:.2e}, "
            f"over {tolerance:g}",
            "export with --precision fp32, or report it with the model's name",
        )
    return float(difference[worst])


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the cosine similarity of each two rows [n, C], float64 [n]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=1) / np.maximum(norms, 1e-30)
    return product
