"""The evaluate stage: a model or an artifact in, how right it is at which cost out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import ModelInfo
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.evaluation.run import EvaluationRun
from sait_deploy.evaluation.sources import ArtifactSource, ModelSource, Source
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset, check_class_map, evaluation_dataset, folder_dataset
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime
from sait_deploy.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from sait_deploy.models.registry import LoadedModel

__all__ = ["EvaluateOptions", "check_for_artifact", "check_for_model", "evaluate"]


def evaluate(
    what: LoadedModel | Artifact,
    images: Dataset | Path | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = no_progress,
    groupings: Sequence[Grouping] = (),
) -> Evaluation:
    """Evaluates a model in torch, or an artifact on a runtime.

    A model and an adaptive artifact answer any density and mass, a density artifact its own density, and a dense one
    nothing else. Controls and lower resolutions run in torch; where that cannot be had, a note says why.

    Args:
        what: the model, or the artifact, whose dense baseline is looked for beside it.
        images: images, with labels where they are known; a folder of them; or None for what comes with the toolkit.
        options: what to evaluate, and how.
        progress: reports what is being done.
        groupings: of the images, beside those by class and by tokens kept.

    Raises:
        InvalidArgument: options that the model or artifact cannot run, labels that are not the model's, or groupings of
            other images.
        ImageError: an image cannot be read.
        ModelError: the model cannot be pruned, or an answer is no number.
        ArtifactError: the baseline is missing, or the benchmark's file cannot be read.
        RuntimeUnavailable, MissingDependency: the runtime or the device does not work here.
    """
    source = _source(what, options)
    dataset = images if isinstance(images, Dataset) else _dataset(source.model, images, options.class_map)
    return EvaluationRun(source, dataset, options, progress, groupings).report()


def check_for_model(options: EvaluateOptions) -> None:
    """Checks what a model in torch can be asked.

    Raises:
        InvalidArgument: a runtime that runs artifacts, or a precision.
    """
    if options.runtime is not None and not find_runtime(options.runtime).from_weights:
        raise InvalidArgument(
            f"--runtime {options.runtime} runs artifacts, and a model is evaluated in torch",
            "leave it out, or export the model and give --artifact",
        )
    if options.precision is not None:
        raise InvalidArgument(
            f"--precision {options.precision} is for artifacts, and a model is evaluated in torch, in fp32",
            "leave it out, or export the model and give --artifact",
        )


def check_for_artifact(options: EvaluateOptions) -> None:
    """Checks what an artifact can be asked.

    Raises:
        InvalidArgument: a score or a block, or no such runtime.
    """
    for flag, value in (("--score", options.score), ("--prune-at", options.prune_at)):
        if value is not None:
            raise InvalidArgument(
                f"{flag} cannot be chosen for an artifact, which has its own",
                "leave it out, or evaluate a model with --model",
            )
    if options.runtime is not None:
        find_runtime(options.runtime)


def _source(what: LoadedModel | Artifact, options: EvaluateOptions) -> Source:
    if isinstance(what, Artifact):
        check_for_artifact(options)
        return ArtifactSource(what, options.runtime or ONNXRUNTIME, options.running)
    from sait_deploy.models.weights import chosen_pruning

    check_for_model(options)
    pruning = chosen_pruning(what.training, what.info.geometry.depth, options.score, options.prune_at)
    return ModelSource(what, pruning, options.running)


def _dataset(model: ModelInfo, folder: Path | None, class_map: Path | None) -> Dataset:
    check_class_map(folder, class_map)
    if folder is None:
        return evaluation_dataset(model.name)
    return folder_dataset(folder, model.labels, model.classes, class_map)
