"""The quantisation stage: float artifacts and options in, int8 artifacts beside them out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Artifact,
    ArtifactLike,
    Workspace,
    open_artifact,
    open_artifacts,
    write_manifest,
)
from sait_deploy.artifacts.golden import write_golden
from sait_deploy.artifacts.graph import lowering_errors, whole_graph_of
from sait_deploy.artifacts.manifest import AccuracyInfo, AccuracyStatus, Manifest, Precision, WeightsSource
from sait_deploy.artifacts.manifest_document import from_json
from sait_deploy.artifacts.manifest_parts import fingerprint, installed_tools, measured_points, onnx_metadata
from sait_deploy.artifacts.quantization_info import CalibrationInfo, Gate, QuantizationInfo
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.bench.groups import with_baseline
from sait_deploy.errors import InvalidArgument, StorageError, TargetMissed
from sait_deploy.exporting.parity import TOLERANCE
from sait_deploy.images.preprocess import preprocess
from sait_deploy.quantization.calibrate import METHOD, calibration_points, input_ranges
from sait_deploy.quantization.compare import Comparison, answers, compare
from sait_deploy.quantization.convert import save, with_int8
from sait_deploy.quantization.exclusion import (
    COSTLY,
    SENSITIVITY_IMAGES,
    costliest_first,
    costs,
    first_exclusion,
)
from sait_deploy.quantization.images import QuantizationImages, quantization_images
from sait_deploy.quantization.layers import LinearLayer, linear_layers
from sait_deploy.quantization.options import Exclude, QuantizeOptions
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import run_all
from sait_deploy.runtime.golden import golden_of
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner, require_onnxruntime
from sait_deploy.runtime.options import RunOptions
from sait_deploy.system.memory import give_back
from sait_deploy.system.progress import Progress, logged, named
from sait_deploy.system.reading import read_text

_UNJUDGED_IMAGES: Final = 16
"""Images run where the weights are random: what is kept is measured on them."""


def quantize(
    artifacts: ArtifactLike | Iterable[ArtifactLike],
    options: QuantizeOptions = QuantizeOptions(),
    progress: Progress = logged,
) -> list[Artifact]:
    """Makes an int8 artifact of each float one and of their dense baseline, in the same folder.

    Example::

        made = sait_deploy.quantize("artifacts/sait_demo_digits-density0.6", QuantizeOptions(min_agreement=98))

    Each is compared with its float artifact on held-out images, and all take their places together. A baseline that is
    already there, whole, is kept.

    Args:
        artifacts: one or several float ones, of one model in one folder, opened, or their folders.
        options: how.
        progress: called with each step.

    Returns:
        The int8 artifacts, the dense baseline first.

    Raises:
        InvalidArgument: an artifact is quantised already or not in fp32, or options do not fit the model.
        ImageError: there are no images, too few, or one cannot be read.
        TargetMissed: fewer answers agree than ``min_agreement``.
        NotFinite: the answer to a calibration image is not a number.
        ParityError: the int8 graph selects wrongly.
        MissingDependency: onnxruntime is not installed.
        StorageError: an artifact is there already, or cannot be written.
    """
    require_onnxruntime()
    given = open_artifacts(artifacts)
    for artifact in given:
        refuse_tower(artifact.manifest, "quantize")
        _check_float(artifact)
    floats = with_baseline(given)
    workspace = Workspace(floats[0].path.parent)
    workspace.prepare()
    sources = [_as_exported(artifact) for artifact in floats]
    images = quantization_images(sources[0].manifest, options)
    plans = [_draft(source.manifest, sources[0].manifest, images, options) for source in sources]
    existing = {plan.id: place for plan in plans if (place := workspace.find(plan.id)) is not None}
    for plan in plans[1:] if len(plans) > 1 else plans:
        if plan.id in existing and not options.overwrite:
            raise StorageError(f"{existing[plan.id]} is already there", "give --overwrite")
    made = []
    with contextlib.ExitStack() as writing:  # all take their places together, once the last of them is good
        for source, plan in zip(sources, plans, strict=True):
            if plan.id in existing and not options.overwrite:
                progress(f"{plan.name}: already there, kept")
                made.append(open_artifact(existing[plan.id]))
                continue
            place = workspace.place_for(plan.name, plan.id)
            folder = writing.enter_context(workspace.writing(place))
            work = _Work(source, plan, images, options, folder, named(plan.name, progress))
            made.append(Artifact(place, _completed(source, plan, images, work, folder)))
            give_back()
    workspace.record_last_export([artifact.path for artifact in made])
    return made


def _check_float(artifact: Artifact) -> None:
    precision = artifact.manifest.dtype
    if precision is Precision.INT8:
        raise InvalidArgument(
            f"{artifact.path.name} is quantised already",
            f"quantise {artifact.manifest.name.removesuffix(f'-{Precision.INT8}')}, which it was made from",
        )
    if precision is not Precision.FP32:
        raise InvalidArgument(
            f"{artifact.path.name} has {precision} weights, and int8 is made from fp32", "export without --precision"
        )


def _as_exported(artifact: Artifact) -> Artifact:
    """Returns the artifact without points that were tuned later: in int8 masses keep other tokens."""
    return Artifact(artifact.path, from_json(read_text(artifact.path / MANIFEST_FILE)))


def _draft(source: Manifest, baseline: Manifest, images: QuantizationImages, options: QuantizeOptions) -> Manifest:
    """Returns the manifest with everything but what making the artifact finds out."""
    settings = options.exclude, options.keep_float, images.calibration.source, len(images.calibration.images)

    def identity(manifest: Manifest) -> str:
        return f"{manifest.name}-{Precision.INT8}-{fingerprint(manifest.id, *settings)}"

    return dataclasses.replace(
        source,
        id=identity(source),
        name=f"{source.name}-{Precision.INT8}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        dtype=Precision.INT8,
        baseline=None if source.baseline is None else identity(baseline),
        quantized_from=source.id,
        tools=source.tools | installed_tools(),
        files={},
    )


def _completed(source: Artifact, plan: Manifest, images: QuantizationImages, work: _Work, folder: Path) -> Manifest:
    """Writes an artifact's files, and returns its manifest."""
    runner, comparison = work.run()
    golden = source.golden()
    write_golden(folder / GOLDEN_FILE, golden_of(runner, golden.pixels, golden.images))
    manifest = dataclasses.replace(
        measured_points(plan, comparison.kept),
        quantization=work.info(comparison),
        parity=comparison.parity(runner.runtime, f"{images.held_out.source}, beside {source.manifest.id}"),
        accuracy=work.accuracy(comparison),
        files={path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    )
    write_manifest(folder, manifest)
    return manifest


class _Work:
    """One artifact on its way to int8."""

    def __init__(
        self,
        source: Artifact,
        plan: Manifest,
        images: QuantizationImages,
        options: QuantizeOptions,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._source, self._plan, self._images, self._options = source, plan, images, options
        self._folder, self._progress = folder, progress
        self._judged = plan.weights.source is not WeightsSource.RANDOM
        self._run_options = RunOptions(threads=options.threads)
        with lowering_errors(source):
            model = whole_graph_of(source)
            self._layers = linear_layers(model)
            self._kept_float = first_exclusion(model, plan, self._layers, options)
        self._ranges: Any = None

    def run(self) -> tuple[Runner, Comparison]:
        """Writes the graph, and returns its runner and how it compares.

        Raises:
            TargetMissed: fewer answers agree than have to, with every layer that may stay float.
        """
        with lowering_errors(self._source):
            self._ranges = input_ranges(
                self._source, self._images.calibration, self._folder, self._options.threads, self._progress
            )
        held_out = self._images.held_out if self._judged else self._images.held_out.sample(_UNJUDGED_IMAGES)
        give_back()
        step = f"{len(held_out.images)} answers of the float artifact"
        # The float artifact answers first and is closed: two models at once would take the memory of both.
        reference = answers(self._reference(), held_out, self._progress, step)
        give_back()
        runner = self._runner(self._quantised())
        comparison = compare(reference, runner, held_out, self._progress)
        if self._good(comparison) or not self._judged:
            return runner, comparison
        if self._options.exclude is Exclude.AUTO:
            candidates = self._quantised()
            del runner
            found = self._costs(candidates)
            fixed = dict(self._kept_float)
            for names in costliest_first(found):
                self._kept_float = fixed | dict.fromkeys(names, COSTLY)
                self._progress(f"the costliest {len(names)} of {len(candidates)} layers stay float, first {names[0]}")
                runner = self._runner(self._quantised())
                comparison = compare(reference, runner, held_out, self._progress)
                if self._good(comparison):
                    return runner, comparison
        raise TargetMissed(self._miss(comparison), "give more or other --images, --exclude, or a lower --min-agreement")

    def info(self, comparison: Comparison) -> QuantizationInfo:
        """Returns how the artifact was made, for its manifest."""
        points = [name for name in calibration_points(self._plan) if name is not None]
        calibration = self._images.calibration
        return QuantizationInfo(
            calibration=CalibrationInfo(
                calibration.source, len(calibration.images), self._images.classes, tuple(points), METHOD
            ),
            quantized=tuple(layer.name for layer in self._quantised()),
            kept_float=self._kept_float,
            gate=Gate.PASSED if self._judged else Gate.UNMEASURED,
            min_agreement=self._options.min_agreement,
            compared=comparison.points if self._judged else (),
            compared_on=self._images.held_out.source if self._judged else "",
        )

    def accuracy(self, comparison: Comparison) -> AccuracyInfo:
        """Returns the accuracy at the default point."""
        default = comparison.points[0]
        if not self._judged or default.right is None:
            return AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None)
        return AccuracyInfo(AccuracyStatus.MEASURED, default.images, 100 * default.right / default.images)

    def _reference(self) -> Runner:
        return OnnxRuntimeRunner(self._source, self._run_options)

    def _costs(self, candidates: Sequence[LinearLayer]) -> dict[str, float]:
        few = self._images.calibration.sample(SENSITIVITY_IMAGES)
        batch = preprocess(list(few.images), self._plan.preprocessing)
        wanted = run_all(self._reference(), batch).logits
        return costs(candidates, wanted, batch, lambda layer: self._runner([layer]), self._progress)

    def _quantised(self) -> tuple[LinearLayer, ...]:
        return tuple(layer for layer in self._layers if layer.name not in self._kept_float)

    def _runner(self, layers: Sequence[LinearLayer]) -> Runner:
        """Writes the graph with these layers in int8, and opens it."""
        with lowering_errors(self._source):
            model = with_int8(whole_graph_of(self._source), self._ranges, layers)
        onnx.helper.set_model_props(model, onnx_metadata(self._plan))
        save(model, self._folder / MODEL_FILE)
        del model
        give_back()
        return OnnxRuntimeRunner(Artifact(self._folder, self._plan), self._run_options)

    def _good(self, comparison: Comparison) -> bool:
        close = comparison.difference <= TOLERANCE[Precision.INT8]
        return close and comparison.agreement >= self._options.min_agreement

    def _miss(self, comparison: Comparison) -> str:
        worst = min(comparison.points, key=lambda point: point.agreement)
        at = "" if worst.name is None else f" at {worst.name}"
        if comparison.agreement >= self._options.min_agreement:
            allowed = TOLERANCE[Precision.INT8]
            return f"{self._plan.name}: logits differ by {comparison.difference:.2g} of the largest, over {allowed:g}"
        return (
            f"{self._plan.name}: {worst.agreement:.2f} % of {worst.images} answers{at} are the float artifact's, "
            f"not {self._options.min_agreement:g} %"
        )
