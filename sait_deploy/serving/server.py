"""All artifacts that a process serves, opened and checked: what the protocols ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sait_deploy import __version__
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import named_point
from sait_deploy.artifacts.pruning_info import PointInfo
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.artifacts.tuned_points import read_points
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.serving.batching import BatchLimits
from sait_deploy.serving.ladder import PointLadder
from sait_deploy.serving.model import STEM_IMAGES, Observer, ServedModel
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.refusals import Refused, Status
from sait_deploy.serving.stages import open_stages


class Server:
    """Served models by name, the first of which answers where no name is given.

    Args:
        models: in the order in which they were named.
        options: that they were opened with.
        token: that requests must bear; None for none.
        observer: is told what happens.
    """

    def __init__(
        self, models: Sequence[ServedModel], options: ModelsOptions, token: str | None, observer: Observer
    ) -> None:
        self.models = {model.name: model for model in models}
        self.options, self.token, self.version = options, token, __version__
        self.observer = observer

    def model(self, name: str | None) -> ServedModel:
        """Returns a model, the first where no name is given.

        Raises:
            Refused: there is none of that name.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refused(Status.NOT_FOUND, f"no model {name!r} is served", f"served are {', '.join(self.models)}")
        return self.models[name]


def open_server(options: ModelsOptions, observer: Observer, token: str | None = None) -> Server:
    """Opens all artifacts of a server, cut at their seams where they can be.

    Raises:
        SaitError: one cannot be loaded, or a point cannot be.
    """
    artifacts = [artifact_for(open_artifact(path), options.runtime, options.precision) for path in options.artifacts]
    for artifact in artifacts:
        refuse_tower(artifact.manifest, "serve")
        _check_points(artifact, options)
    executor = ThreadPoolExecutor(1, thread_name_prefix="compute")
    models = [
        _served(path, artifact, options, executor, observer)
        for path, artifact in zip(options.artifacts, artifacts, strict=True)
    ]
    return Server(models, options, token, observer)


def served_name(path: Path) -> str:
    """Returns what requests call an artifact: the name of its folder."""
    return path.resolve().name


def _served(
    path: Path, artifact: Artifact, options: ModelsOptions, executor: ThreadPoolExecutor, observer: Observer
) -> ServedModel:
    manifest = artifact.manifest
    stages = open_stages(artifact, options.runtime, options.run_options)
    tokens = manifest.model.geometry.tokens
    budget = STEM_IMAGES * tokens if options.token_budget is None else options.token_budget
    ladder, point = None, options.point
    if manifest.form is not Form.ADAPTIVE:
        point = None
    elif options.points:
        ladder, point = PointLadder(options.points, options.target_p99_ms / 1000, time.monotonic()), options.points[0]
    limits = BatchLimits(budget, options.batch_images)
    return ServedModel(served_name(path), manifest, stages, executor, limits, ladder, point, options.queue, observer)


def _check_points(artifact: Artifact, options: ModelsOptions) -> None:
    manifest = artifact.manifest
    asked = options.points or (() if options.point is None else (options.point,))
    if manifest.form is not Form.ADAPTIVE:
        if asked and len(options.artifacts) == 1:
            raise InvalidArgument(
                f"{manifest.name} is a {manifest.form} artifact: its operating point is fixed",
                "leave the point out, or export an adaptive one with --mass",
            )
        return
    for name in asked:
        named_point(manifest, name)
    if options.points:
        _check_order(manifest, options.points)
        if not options.degrade:
            _check_tuned(artifact, options.points[1:])


def _info(manifest: Manifest, name: str) -> PointInfo:
    assert manifest.pruning is not None
    points = manifest.pruning.points
    return next((info for info in points if info.name == name), points[0])


def _check_order(manifest: Manifest, points: Sequence[str]) -> None:
    """Checks that points go from dear to cheap, by the work they took on the images that they were measured on."""
    work = [_info(manifest, name).macs.per_image for name in points]
    for dear, cheap, first, second in zip(points, points[1:], work, work[1:], strict=False):
        if second >= first:
            raise InvalidArgument(
                f"point {cheap!r} of {manifest.name} takes no less work than {dear!r}", "name points from dear to cheap"
            )


def _check_tuned(artifact: Artifact, points: Sequence[str]) -> None:
    """Checks that what load alone may choose was held to a limit by tuning: nobody asked for it."""
    tuned = {one.point.name for one in read_points(artifact.path, artifact.manifest)}
    for name in points:
        if name not in tuned:
            raise InvalidArgument(
                f"point {name!r} of {artifact.manifest.name} was not tuned to a limit, so load must not choose it",
                f"tune it: sait-deploy tune --name {name}; or allow it: --degrade",
            )
