"""The evaluate stage: a model or an artifact in, how right it is at which cost out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sait_deploy.artifacts.folder import Artifact, ArtifactLike, open_artifact
from sait_deploy.artifacts.manifest import ModelInfo
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.class_embeddings import ClassEmbeddings, read_class_embeddings
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.evaluation.run import EvaluationRun
from sait_deploy.evaluation.sources import ArtifactSource, ModelSource, Source
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset, check_class_map, evaluation_dataset, folder_dataset, grouped_dataset
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime
from sait_deploy.system.progress import Progress, logged

if TYPE_CHECKING:
    from sait_deploy.models.registry import LoadedModel

__all__ = ["EvaluateOptions", "check_for_artifact", "check_for_model", "evaluate"]


def evaluate(
    what: LoadedModel | ArtifactLike,
    images: Dataset | str | os.PathLike[str] | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = logged,
    groupings: Sequence[Grouping] = (),
) -> Evaluation:
    """Evaluates a model in torch, or an artifact on a runtime.

    Example::

        options = EvaluateOptions(densities=("0.5",), limit=500)
        evaluation = sait_deploy.evaluate("artifacts/sait_demo_digits-adaptive", "photographs", options)

    A model and an adaptive artifact answer any density and mass, a density artifact its own density, and a dense one
    nothing else. Controls and lower resolutions run in torch; where that cannot be had, a note says why.

    Args:
        what: the model, or the artifact or its folder; its dense baseline is looked for beside it.
        images: images, with labels where they are known; a folder of them; or None for what comes with the toolkit.
        options: what to evaluate, and how. A model without classes is an embedder: its images are judged by which find
            which, see ``evaluation.retrieval``.
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
    opened = open_artifact(what) if isinstance(what, (str, os.PathLike)) else what
    source = _source(opened, options, progress)
    classes = _class_embeddings(source.model, options.class_embeddings)
    if not isinstance(images, Dataset):
        folder = None if images is None else Path(images)
        images = _dataset(source, folder, options.class_map, classes)
    return EvaluationRun(source, images, options, progress, groupings, classes).report()


def check_for_model(options: EvaluateOptions) -> None:
    """Checks what a model in torch can be asked.

    Raises:
        InvalidArgument: a runtime that runs artifacts, or a precision.
    """
    if options.runtime is not None and not find_runtime(options.runtime).from_weights:
        raise InvalidArgument(
            f"--runtime {options.runtime} runs artifacts, and a model is evaluated in torch",
            "leave it out, or export the model and name its artifact",
        )
    if options.precision is not None:
        raise InvalidArgument(
            f"--precision {options.precision} is for artifacts, and a model is evaluated in torch, in fp32",
            "leave it out, or export the model and name its artifact",
        )


def check_for_artifact(options: EvaluateOptions) -> None:
    """Checks what an artifact can be asked.

    Raises:
        InvalidArgument: a score, a block or a task, or no such runtime.
    """
    own = (
        ("--score", options.score),
        ("--prune-at", options.prune_at),
        ("--task", options.task),
        ("--head", options.head),
    )
    for flag, value in own:
        if value is not None:
            raise InvalidArgument(
                f"{flag} cannot be chosen for an artifact, which has its own",
                "leave it out, or evaluate a model with --model",
            )
    if options.runtime is not None:
        find_runtime(options.runtime)


def _source(what: LoadedModel | Artifact, options: EvaluateOptions, progress: Progress) -> Source:
    if isinstance(what, Artifact):
        check_for_artifact(options)
        refuse_tower(what.manifest, "evaluate")
        return ArtifactSource(what, options.runtime or ONNXRUNTIME, options.running)
    from sait_deploy.models.embedder import for_task
    from sait_deploy.models.weights import chosen_pruning
    from sait_deploy.runtime.torch import ModelInMemory

    check_for_model(options)
    known, what = what.weights.notes, for_task(what, options.task, options.head)
    for note in what.weights.notes[len(known) :]:
        progress(note)
    refuse_tower(ModelInMemory(what, None), "evaluate")
    pruning = chosen_pruning(what.training, what.info.geometry.depth, options.score, options.prune_at)
    return ModelSource(what, pruning, options.running)


def _class_embeddings(model: ModelInfo, path: Path | None) -> ClassEmbeddings | None:
    if path is None:
        return None
    if model.classes:
        raise InvalidArgument(
            f"class embeddings are for a model that embeds, and {model.name} has {model.classes} classes of its own",
            "give --task embed, or an artifact that was exported so",
        )
    return read_class_embeddings(path, model.answer_width)


def _dataset(source: Source, folder: Path | None, class_map: Path | None, given: ClassEmbeddings | None) -> Dataset:
    """Returns the images; labels are of the classes given, else of the model's, else of the folders themselves."""
    check_class_map(folder, class_map)
    model = source.model
    if folder is None and given is not None:
        raise InvalidArgument("class embeddings need images to classify", "name a folder with --images")
    if folder is None:
        return evaluation_dataset(model.name, source.channels)
    if given is not None:
        return folder_dataset(folder, given.labels, len(given.labels), class_map)
    if not model.classes:
        if class_map is not None:
            raise InvalidArgument(
                "a class map is for classes of a model, and of one that embeds each folder is a class", "leave it out"
            )
        return grouped_dataset(folder)
    return folder_dataset(folder, model.labels, model.classes, class_map)
