"""The evaluate stage: a model or an artifact in, how right it is at which cost out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.evaluation.answers import Progress
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.evaluation.run import EvaluationRun
from sait_deploy.evaluation.sources import ArtifactSource, ModelSource
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.dataset import Dataset
from sait_deploy.tokens import Score

if TYPE_CHECKING:
    from sait_deploy.models.registry import LoadedModel

__all__ = ["EvaluateOptions", "evaluate_artifact", "evaluate_model"]


def evaluate_model(
    loaded: LoadedModel,
    score: Score | None,
    prune_at: int | None,
    dataset: Dataset,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = lambda _: None,
    groupings: Sequence[Grouping] = (),
) -> Evaluation:
    """Evaluates a model in torch.

    Args:
        loaded: the model.
        score: how importance is read off the attention; None for as the weights were trained, else by the mean.
        prune_at: block pruned in; None for the one that the weights were trained at, else depth // 4.
        dataset: images, and labels where they are known.
        options: what to evaluate.
        progress: told what is being done, one line at a time.
        groupings: of the images, beside those by class and by tokens kept.

    Raises:
        InvalidArgument: options or labels that are not the model's, or groupings of other images.
        ImageError: an image cannot be read.
        ModelError: the model cannot be pruned, or its answer is no number.
        ArtifactError: the benchmark's file cannot be read.
    """
    from sait_deploy.models.weights import chosen_pruning

    pruning = chosen_pruning(loaded.training, loaded.info.geometry.depth, score, prune_at)
    source = ModelSource(loaded, *pruning, options.running(None))
    return EvaluationRun(source, dataset, options, progress, groupings).report()


def evaluate_artifact(
    artifact: Artifact,
    runtime: str,
    dataset: Dataset,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = lambda _: None,
    weights: Path | None = None,
    groupings: Sequence[Grouping] = (),
) -> Evaluation:
    """Evaluates an artifact on a runtime; controls and lower resolutions run in torch, or a note says why not.

    An adaptive artifact answers any density and mass, a density artifact its own, and a dense one nothing else.

    Args:
        artifact: the artifact; a density artifact's dense baseline is looked for beside it.
        runtime: what runs it.
        dataset: images, and labels where they are known.
        options: what to evaluate.
        progress: told what is being done, one line at a time.
        weights: the weights' file, where the one the manifest names is not there any more.
        groupings: of the images, beside those by class and by tokens kept.

    Raises:
        InvalidArgument: options that the artifact cannot run, labels that are not the model's, groupings of others.
        ImageError: an image cannot be read.
        ModelError: an answer is no number.
        ArtifactError: the baseline is missing, or the benchmark's file cannot be read.
        RuntimeUnavailable, MissingDependency: the runtime does not work here.
    """
    source = ArtifactSource(artifact, runtime, options.running(weights))
    return EvaluationRun(source, dataset, options, progress, groupings).report()
