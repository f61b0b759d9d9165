"""Does the exported graph agree with its references? Selection bit for bit, logits within the precision's tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import ParityError
from sait_deploy.manifest import ParityInfo, Precision
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime.base import Runner, Selection
from sait_deploy.schedule import OperatingPoint

if TYPE_CHECKING:
    from sait_deploy.models import PrunableViT

TOLERANCE: Final = {Precision.FP32: 1e-4, Precision.FP16: 2e-2}
"""Largest difference of a logit, relative to the largest reference logit of the image or to 1, whichever is larger."""

BATCHES: Final = (1, 3, 8)
"""Batch sizes to run; the graph was traced at another, so that a batch baked in would show."""


@dataclass(frozen=True, slots=True)
class ParityImages:
    """Real images to compare on: float32 [n, 3, H, W], and where they came from."""

    images: NDArray[np.float32]
    source: str


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The comparison, and the graph's own logits float32 [n, classes] it was made on."""

    info: ParityInfo
    logits: NDArray[np.float32]


def batches_of(count: int) -> list[slice]:
    """Cuts ``count`` images into batches of the sizes in ``BATCHES``, in turn."""
    cuts, start, turn = [], 0, 0
    while start < count:
        cuts.append(slice(start, min(count, start + BATCHES[turn % len(BATCHES)])))
        start, turn = cuts[-1].stop, turn + 1
    return cuts


def check_parity(runner: Runner, reference: PrunableViT, images: ParityImages) -> ParityResult:
    """Compares an artifact's graph with the selection's definition and with the fp32 torch model.

    The graph's keep must equal, bit for bit, the reference selection of the graph's own importance; its logits must
    equal those of the torch model forced to that keep, within the tolerance, from which top-1 follows wherever the
    reference's margin is more than twice that. How often the kept set differs from torch's own is reported, not judged:
    importance itself moves with precision and runtime.

    Args:
        runner: the artifact on the runtime to check.
        reference: the torch model in fp32, pruned as the artifact is.
        images: what to compare on.

    Raises:
        ParityError: they do not agree.
        ModelError: importance or logits are not numbers.
    """
    import torch

    manifest, geometry = runner.artifact.manifest, runner.artifact.manifest.model.geometry
    tolerance = TOLERANCE[manifest.dtype]
    logits, expected, same_kept, cuts = [], [], [], batches_of(len(images.images))
    for cut in cuts:
        batch = images.images[cut]
        with torch.inference_mode():
            if manifest.pruning is None:
                logits.append(runner.run(batch).logits)
                expected.append(reference(torch.from_numpy(batch))[0].numpy())
                continue
            selection = runner.select(batch)
            _check_selection(selection, manifest.pruning.point, geometry.prefix_tokens, cut.start)
            _check_public_outputs(runner, batch, selection, tolerance, cut.start)
            forced = reference.trace(torch.from_numpy(batch), torch.from_numpy(selection.keep))
        # Importance is read before anything is dropped, so what is forced afterwards does not move it.
        assert forced.importance is not None
        own = _reference_keep(forced.importance.numpy(), manifest.pruning.point, geometry.prefix_tokens)
        logits.append(selection.logits)
        expected.append(forced.logits.numpy())
        same_kept.append((own == selection.keep).all(axis=1))
    found, wanted = np.concatenate(logits), np.concatenate(expected)
    difference = _compare(found, wanted, tolerance)
    top1 = None if manifest.model.classes == 0 else float((found.argmax(1) == wanted.argmax(1)).mean())
    info = ParityInfo(
        runtime=runner.runtime.value,
        images=len(found),
        image_source=images.source,
        batches=tuple(sorted({cut.stop - cut.start for cut in cuts})),
        tolerance=tolerance,
        largest_difference=float(difference),
        top1_agreement=top1,
        cosine=float(_cosine(found, wanted).min()),
        kept_sets_equal_torch=float(np.concatenate(same_kept).mean()) if same_kept else None,
    )
    return ParityResult(info, found)


def _reference_keep(importance: NDArray[np.float32], point: OperatingPoint, prefix: int) -> NDArray[np.int32]:
    batch = len(importance)
    mass = np.full(batch, point.mass, dtype=np.float32)
    limits = np.tile(np.array([[point.min_keep, point.max_keep]], dtype=np.int32), (batch, 1))
    return mass_token_select(importance, mass, limits, prefix)[0]


def _check_selection(selection: Selection, point: OperatingPoint, prefix: int, first: int) -> None:
    keep = _reference_keep(selection.importance, point, prefix)
    wrong = np.flatnonzero((keep != selection.keep).any(axis=1))
    if len(wrong):
        raise ParityError(
            f"image {first + int(wrong[0])} keeps other tokens than the reference selection of the same importance",
            "the runtime computes an integer operator wrongly: report it with its version",
        )


def _check_public_outputs(
    runner: Runner, batch: NDArray[np.float32], selection: Selection, tolerance: float, first: int
) -> None:
    """The file as it is shipped must answer as its copy with more outputs does."""
    output = runner.run(batch)
    prefix = runner.artifact.manifest.model.geometry.prefix_tokens
    if not np.array_equal(output.kept + prefix, selection.keep.sum(axis=1)):
        raise ParityError(f"counts from image {first} on differ from the kept tokens", "report it")
    _compare(output.logits, selection.logits, tolerance, first)


def _compare(found: NDArray[np.float32], wanted: NDArray[np.float32], tolerance: float, first: int = 0) -> float:
    if found.shape != wanted.shape:
        raise ParityError(f"outputs are {list(found.shape)}, the reference's {list(wanted.shape)}", "report it")
    scale = np.maximum(1.0, np.abs(wanted).max(axis=1))
    difference = np.abs(found - wanted).max(axis=1) / scale
    worst = int(difference.argmax())
    if not difference[worst] <= tolerance:  # so that a reference that is not a number is no agreement
        raise ParityError(
            f"the outputs of image {first + worst} differ from the reference's by {difference[worst]:.2e}, "
            f"over {tolerance:g}",
            "export with --dtype fp32, or report it with the model's name",
        )
    return float(difference[worst])


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=1) / np.maximum(norms, 1e-30)
    return product
