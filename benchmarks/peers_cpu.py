"""Other methods of saving tokens on the same work: weights, runtime, precision and multiply-accumulates are the same.

    python -m benchmarks.peers_cpu

Beside the toolkit's density and adaptive forms run bipartite merging, the most attended tokens with a fused one,
padding in place of packing, and the dense model at a lower resolution (``benchmarks.peers``). Times are of DeiT-S with
random weights, in turns, on each runtime and precision that this machine has; accuracies of the demonstration model on
held-out composed images. Its weights were trained dense and sparse for the toolkit's own selection and for none of the
others, which their papers also use without training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks.common import THREADS, environment, write
from benchmarks.demo_runs import EVALUATION_SEED, composed
from benchmarks.graphs import graph_in_place, own_forms
from benchmarks.peers import Fused, Keeps, Merges, Merging, Padded
from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, WeightsSource
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.clock import MeasureOptions, call_for, measure
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import Timing
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import CanvasOptions
from sait_deploy.errors import RuntimeUnavailable, SaitError
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.answers import Collector
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rivals import resolution_of_equal_macs
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.models.resize import resized
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.openvino import OpenVinoRunner
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import OPENVINO
from sait_deploy.tokens import Score, dense_macs, kept_at_density, pruned_macs

MODEL: Final = "deit_small_patch16_224"
BATCHES: Final = (1, 8, 32)
DENSITY: Final = Decimal("0.5")
SPREAD: Final = 25 / 196
"""Standard deviation of the numbers of kept tokens that are forced, as a share of all patch tokens."""
LEVELS: Final = tuple(map(Decimal, ("0.49", "0.28", "0.15")))
"""Densities of the demonstration model whose multiply-accumulates all methods get."""
IMAGES: Final = 1500
CALIBRATION_SEED: Final = 32
"""Of the compositions on which masses of equal multiply-accumulates are found, a third as many."""
SETTINGS: Final = (
    ("onnxruntime", RunPrecision.FP32),
    ("openvino", RunPrecision.FP32),
    ("openvino", RunPrecision.BF16),
)
OTHERS: Final = {
    "tomeov": "OpenVINO's own token merging (openvino_contrib) is in no package registry, and its setup asks for torch "
    "1.13; it is bipartite merging, as measured here"
}
"""Peers that were not measured, and why."""
_TIMED_IMAGES: Final = 32
_MOST_BATCHES: Final = 8


@dataclass(frozen=True, slots=True)
class Method:
    """One way to save tokens, ready to run on any runtime.

    Attributes:
        artifact: its graph in the place of an artifact's.
        mac_ratio: dense's multiply-accumulates over its own; of adaptive forms at the numbers that are forced.
        how: what was chosen to reach that, in words.
    """

    artifact: Artifact
    mac_ratio: float
    how: str

    @property
    def is_adaptive(self) -> bool:
        """Whether each image keeps its own number of tokens."""
        return self.artifact.manifest.form is Form.ADAPTIVE


def methods(model: LoadedModel, density: Decimal, folder: Path) -> dict[str, Method]:
    """Returns all methods that reach the multiply-accumulates of one density, dense first.

    Graphs that are in the folder already are taken as they are.
    """
    geometry = model.info.geometry
    dense, fixed, adaptive = own_forms(model, density, folder, progress)
    prune_at = adaptive.manifest.prune_at
    assert prune_at is not None
    kept, patches, whole = kept_at_density(density, geometry.patch_tokens), geometry.patch_tokens, dense_macs(geometry)
    target = pruned_macs(geometry, prune_at, kept)
    counts = _distribution(kept, patches).counts(_TIMED_IMAGES, patches)
    adaptive_ratio = whole / float(np.mean([pruned_macs(geometry, prune_at, int(count)) for count in counts]))
    padded = graph_in_place(Padded(model.vit, Score.MEAN, prune_at), adaptive.manifest, folder / "padded", progress)
    found = {
        "dense": Method(dense, 1.0, "nothing pruned"),
        "density": Method(fixed, whole / target, f"{kept} of {patches} patch tokens from block {prune_at} on"),
        "adaptive": Method(adaptive, adaptive_ratio, f"{kept} on average, packed"),
        "padded": Method(padded, adaptive_ratio, f"{kept} on average, padded to the longest image"),
    }
    merges, keeps = Merges.of_macs(geometry, target), Keeps.of_macs(geometry, target)
    if merges is not None:
        merging = graph_in_place(Merging(model.vit, merges), dense.manifest, folder / "merging", progress)
        how = f"{', '.join(map(str, merges.merged))} tokens merged, block by block"
        found["merging"] = Method(merging, whole / merges.macs(geometry), how)
    if keeps is not None:
        fused = graph_in_place(Fused(model.vit, keeps), dense.manifest, folder / "fused", progress)
        stages = ", ".join(f"{number} in block {block}" for block, number in keeps.kept)
        found["fused"] = Method(fused, whole / keeps.macs(geometry), f"{stages}, and one token of the others")
    size = resolution_of_equal_macs(geometry, model.info.image_size, model.info.patch_size, target)
    if size is not None:
        small = resized(model, size)
        manifest = dataclasses.replace(dense.manifest, model=small.info, preprocessing=small.preprocessing)
        lower = graph_in_place(PrunableViT(small.vit, None), manifest, folder / "lower-resolution", progress)
        how = f"dense on {size[0]} x {size[1]} pixels"
        found["lower resolution"] = Method(lower, whole / dense_macs(small.info.geometry), how)
    return found


def _distribution(kept: int, patches: int) -> KeptDistribution:
    return KeptDistribution(kept, SPREAD * patches)


def times(found: Mapping[str, Method], kept: int, batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """Measures all methods in turns, on each runtime and precision that this machine has.

    Args:
        found: the methods, dense first.
        kept: patch tokens that images keep on average in adaptive forms.
        batches: images per request.
        seconds: to measure for, per runtime, precision and batch size.
    """
    cells, skipped = [], []
    for runtime, precision in SETTINGS:
        options = RunOptions(threads=THREADS, precision=precision)
        try:
            runners = {name: _runner(method.artifact, runtime, options) for name, method in found.items()}
        except SaitError as error:
            skipped.append({"runtime": runtime, "precision": precision.value, "reason": error.message})
            progress(f"{runtime} {precision} is skipped: {error.message}")
            continue
        products = {name: runner.environment.get("matrix products") for name, runner in runners.items()}
        for batch in batches:
            progress(f"{runtime} {precision}, batch {batch}")
            samples, distinct = _samples(found, runners, kept, batch, seconds)
            rows = {name: _row(name, method, samples, distinct) for name, method in found.items()}
            where = {"runtime": runtime, "precision": precision.value, "matrix_products": products}
            cells.append({**where, "batch": batch, "methods": rows})
    return {"cells": cells, "skipped": skipped}


class _Lenient(OpenVinoRunner):
    """A runner of merging, whose sums OpenVINO leaves in float32 where bf16 is asked for: few of its products."""

    def _check_ran(self) -> None:
        """Takes what there is: the result says which products ran in what."""


def _runner(artifact: Artifact, runtime: str, options: RunOptions) -> Runner:
    try:
        return load(artifact, runtime, options)
    except RuntimeUnavailable:
        if runtime != OPENVINO or artifact.path.name != "merging":
            raise
        return _Lenient(artifact, options)


def _samples(
    found: Mapping[str, Method], runners: Mapping[str, Runner], kept: int, batch: int, seconds: float
) -> tuple[dict[str, list[float]], int]:
    """Returns seconds by method, and the number of different batches that took turns."""
    distinct = max(1, min(_MOST_BATCHES, _TIMED_IMAGES // batch))
    calls = {}
    for name, method in found.items():
        model = method.artifact.manifest.model
        counts = _distribution(kept, model.geometry.patch_tokens).counts(batch * distinct, model.geometry.patch_tokens)
        made: list[Callable[[], float | None]] = []
        for part in np.split(counts, distinct):
            images = np.random.default_rng(len(made)).standard_normal((batch, 3, *model.image_size), dtype=np.float32)
            choice = PointChoice(None, 1.0, part, part) if method.is_adaptive else DEFAULT_CHOICE
            runners[name].run_at(images, choice)
            made.append(call_for(runners[name], images, Timing.END_TO_END, choice))
        calls[name] = made
    return measure(calls, MeasureOptions(duration=seconds)), distinct


def _row(name: str, method: Method, samples: Mapping[str, list[float]], distinct: int) -> dict[str, Any]:
    over = {other: paired_ratio(samples[other], samples[name], batches=distinct) for other in ("dense", "density")}
    return {
        "speedup": dataclasses.asdict(over["dense"]),
        "speedup_over_density": dataclasses.asdict(over["density"]),
        "mac_ratio": round(method.mac_ratio, 4),
        "share": round(over["dense"].median / method.mac_ratio, 4),
    }


def accuracies(model: LoadedModel, levels: Sequence[Decimal], images: int, folder: Path) -> dict[str, Any]:
    """Answers held-out images with all methods at the multiply-accumulates of each density, on ONNX Runtime in fp32."""
    dataset, _ = composed(CanvasOptions(), EVALUATION_SEED, images)
    by_level = {level: methods(model, level, folder / f"{demo.NAME}-{level}") for level in levels}
    answerers = {}
    masses: dict[Decimal, float] = {}
    for level, found in by_level.items():
        runners = {name: load(method.artifact, options=RunOptions(threads=THREADS)) for name, method in found.items()}
        masses[level] = _equal_mass(runners["adaptive"], model, level, max(1, images // 3))
        for name, method in found.items():
            choice = PointChoice(mass=masses[level]) if method.is_adaptive else DEFAULT_CHOICE
            answerers[level, name] = Answerer(
                Identity(f"{name} {level}", name, Kind.DENSE, None), runners[name], choice
            )
    answered = Collector(dataset, 32, progress).collect(list(answerers.values()))
    assert dataset.labels is not None
    right = {key: answered[one.identity.id].right(dataset.labels) for key, one in answerers.items()}
    rows = []
    for level, found in by_level.items():
        for name, method in found.items():
            own = answered[answerers[level, name].identity.id]
            ratio = dense_macs(model.info.geometry) / float(own.macs.mean()) if method.is_adaptive else method.mac_ratio
            over = {other: paired_difference(right[level, name], right[level, other]) for other in ("dense", "density")}
            rows.append(
                {
                    "density": str(level),
                    "method": name,
                    "how": f"mass {masses[level]:.4g}" if method.is_adaptive else method.how,
                    "mac_ratio": round(ratio, 4),
                    "top1_percent": round(100 * float(right[level, name].mean()), 3),
                    "change_from_dense": dataclasses.asdict(over["dense"]),
                    "change_from_density": dataclasses.asdict(over["density"]),
                }
            )
    return {"model": demo.NAME, "images": dataset.source, "rows": rows}


def _equal_mass(runner: Runner, model: LoadedModel, density: Decimal, images: int) -> float:
    """Returns the largest mass whose mean multiply-accumulates on other images are at most those of a density."""
    geometry, prune_at = model.info.geometry, runner.description.prune_at
    assert prune_at is not None
    dataset, _ = composed(CanvasOptions(), CALIBRATION_SEED, images)
    patches = geometry.patch_tokens
    target = pruned_macs(geometry, prune_at, kept_at_density(density, patches))
    importance = runner.select(runner.preprocess(list(dataset.images))).importance
    limits = np.tile(np.array([1, patches], np.int32), (images, 1))
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        _, counts = mass_token_select(importance, np.full(images, middle, np.float32), limits, geometry.prefix_tokens)
        macs = np.mean([pruned_macs(geometry, prune_at, int(count) - geometry.prefix_tokens) for count in counts])
        low, high = (middle, high) if macs <= target else (low, middle)
    return low


@click.command()
@click.option("--seconds", type=float, default=15.0, show_default=True, help="To measure for, per batch size.")
@click.option("--images", type=int, default=IMAGES, show_default=True, help="Held-out images to answer.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/peers"), show_default=True)
def main(seconds: float, images: int, folder: Path) -> None:
    """Measure and write results/peers_cpu.json; graphs that are in the folder already are not exported again."""
    machine = environment("torch", "timm", "onnxruntime", "openvino")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    own = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    found = methods(model, DENSITY, folder / f"{MODEL}-{DENSITY}")
    kept = kept_at_density(DENSITY, model.info.geometry.patch_tokens)
    results = {
        "not_measured": OTHERS,
        "accuracy": accuracies(own, LEVELS, images, folder),
        "model": MODEL,
        "threads": THREADS,
        "methods": {name: method.how for name, method in found.items()},
        "times": times(found, kept, BATCHES, seconds),
    }
    command = f"python -m benchmarks.peers_cpu --seconds {seconds:g} --images {images}"
    click.echo(write("peers_cpu", command, results, machine))


if __name__ == "__main__":
    main()
