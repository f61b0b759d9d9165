"""``sait-deploy predict``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.folder import Workspace
from sait_deploy.artifacts.manifest import Form, Manifest, WeightsSource
from sait_deploy.artifacts.points import PointChoice, parse_mass
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifact_option,
    consent_options,
    device_option,
    json_option,
    point_options,
    precision_option,
    runtime_option,
    threads_option,
    top_option,
    workspace_option,
)
from sait_deploy.cli._render import counted, live_progress, progress, show_next, show_tables, warn, workspace_words
from sait_deploy.errors import ImageError
from sait_deploy.images.formats import readable
from sait_deploy.images.preprocess import counts_of
from sait_deploy.prediction import (
    CONTACT_SHEET,
    Answer,
    Collected,
    Embedded,
    PredictOptions,
    answers_to,
    collect,
    prepared,
)
from sait_deploy.reports.table import Table, figures, words
from sait_deploy.reports.wording import NOTHING
from sait_deploy.runtime import Prediction, Runner, load
from sait_deploy.runtime.batches import FILLED
from sait_deploy.runtime.embeddings import nearest, unit_length
from sait_deploy.system.progress import Progress


@click.command(cls=Command, example="sait-deploy predict photos/ --visualize pictures/")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@artifact_option
@point_options
@runtime_option
@precision_option
@device_option
@threads_option
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights for --runtime torch, where the manifest's are gone.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Class names: one a line, or JSON.  [default: the artifact's]",
)
@top_option
@click.option(
    "--visualize", type=click.Path(path_type=Path), metavar="DIR", help="Write each image with its kept tokens there."
)
@click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read, without any answer.")
@workspace_option
@json_option
@consent_options
def command(
    images: tuple[Path, ...],
    artifact: Path | None,
    runtime: str,
    labels: Path | None,
    top: int,
    visualize: Path | None,
    strict: bool,
    workspace: Path,
    as_json: bool,
    **given: Any,
) -> None:
    """Classify image files and folders of images; with a model that embeds, find which of them are alike.

    Embeddings themselves are in --json.

    An image that cannot be read is named and passed over. The exit code is then 8, after all other images' answers.
    """
    options = _options(runtime, labels, top, visualize, given)
    if visualize is not None:
        check_place(visualize)
    collected = collect(images)
    opened = prepared(artifact if artifact is not None else Workspace(workspace).last_export()[-1], options)
    paths, broken = collected.paths, list[ImageError]()
    aside = None if strict or len(paths) == 1 else broken.append
    with live_progress() as report:
        runner = load(opened, runtime, options.running)
        going = answers_to(runner, paths, top, visualize, options.choice, aside)
        found = _followed(going, runner, len(paths), broken, report)
    _say(collected, broken, opened.manifest, runner.doubts)
    _show(found, opened.manifest, top, as_json)
    if visualize is not None and found:
        sheet = f", from easy to difficult in {CONTACT_SHEET}" if opened.manifest.form is Form.ADAPTIVE else ""
        progress(f"pictures are in {visualize}{sheet}")
    if found and not as_json:
        where = () if artifact is None else ("--artifact", artifact)
        again = ("predict", *images, *where, *workspace_words(workspace), "--visualize", "pictures")
        show_next(*(again if visualize is None else ("serve", opened.path)))
    if broken:
        raise ImageError(f"{len(broken)} of {len(paths)} images could not be read", readable())


def _options(
    runtime: str, labels: Path | None, top: int, visualize: Path | None, given: dict[str, Any]
) -> PredictOptions:
    mass = None if given["mass"] is None else parse_mass(given["mass"])
    return PredictOptions(
        top=top,
        choice=PointChoice(given["point"], mass, given["min_keep"], given["max_keep"]),
        labels=labels,
        visualize=visualize,
        runtime=runtime,
        precision=given["precision"],
        device=given["device"],
        threads=given["threads"],
        weights=given["weights"],
    )


def _followed(
    answers: Iterator[Answer], runner: Runner, images: int, broken: list[ImageError], report: Progress
) -> list[Answer]:
    """Returns all answers, reporting after each how many of the images are done."""
    fewest, _ = runner.batch_range
    if images % fewest:
        report(f"requests are of {fewest} images: {FILLED}")
    step = f"{runner.artifact.path.name} on {runner.runtime}, {counted(images, 'image')}"
    report(step, 0)
    found = []
    for answer in answers:
        found.append(answer)
        report(step, (len(found) + len(broken)) / images)
    return found


def _say(collected: Collected, broken: list[ImageError], manifest: Manifest, doubts: Sequence[str]) -> None:
    """Says what should be known of the answers that follow."""
    if collected.others:
        progress(f"passed over, as no image here has such a suffix: {counts_of(collected.others)}")
    for line in (*(error.message for error in broken), *doubts):
        warn(line)
    height, width = manifest.model.image_size
    if manifest.model.name == demo.NAME and any(_is_foreign(path, (width, height)) for path in collected.paths):
        classes = f"{demo.LABELS[0]} to {demo.LABELS[-1]}"
        warn(f"the demonstration model knows the digits {classes} alone, and calls any other picture one of them")
    if manifest.weights.source is WeightsSource.RANDOM:
        warn("random weights: these answers mean nothing")


def _is_foreign(path: Path, size: tuple[int, int]) -> bool:
    """Returns whether an image is none of the demonstration's, which are all of one width and height."""
    try:
        with Image.open(path) as image:
            return image.size != size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what cannot be read has its own line
        return False


def _show(answers: list[Answer], manifest: Manifest, top: int, as_json: bool) -> None:
    classifies = manifest.model.classes > 0
    if as_json:
        found = [{"path": str(a.path), **dataclasses.asdict(a.prediction)} for a in answers]
        click.echo(json.dumps(found, indent=2 if classifies else None))
    elif answers:
        said = _classes(answers) if classifies else _alike(answers, top)
        heading = f"top {top}" if classifies else f"the {top} most alike, and their cosine"
        columns = [words("image"), figures(f"kept of {manifest.model.geometry.patch_tokens}"), words(heading)]
        title, names = _places([answer.path for answer in answers])
        rows = [(name, str(a.prediction.kept), text) for name, a, text in zip(names, answers, said, strict=True)]
        show_tables(Table.of(title, columns, rows))


def _places(paths: list[Path]) -> tuple[str, list[str]]:
    """Returns the folder that images have in common, for the table's head, and their names below it."""
    if len({path.is_absolute() for path in paths}) > 1:
        return "", list(map(str, paths))
    folder = os.path.commonpath([path.parent for path in paths])
    names = [os.path.relpath(path, folder or ".") for path in paths]
    return ("" if folder in ("", ".") else f"in {folder}"), names


def _classes(answers: list[Answer]) -> list[str]:
    """Returns the likeliest classes of each image."""
    found = [answer.prediction for answer in answers if isinstance(answer.prediction, Prediction)]
    pairs = [zip(one.labels, one.probabilities, strict=True) for one in found]
    return [", ".join(f"{label} {share:.1%}" for label, share in own) for own in pairs]


def _alike(answers: list[Answer], top: int) -> list[str]:
    """Returns which of the others are most alike to each embedded image."""
    import numpy as np

    found = [answer.prediction.embedding for answer in answers if isinstance(answer.prediction, Embedded)]
    embeddings, lines = unit_length(np.array(found, dtype=np.float32)), []
    names = [answer.path.name for answer in answers]
    if len(set(names)) < len(names):  # images in folders of classes are often numbered alike
        names = [f"{answer.path.parent.name}/{answer.path.name}" for answer in answers]
    for number, others in enumerate(nearest(embeddings, top)):
        pairs = zip(others, embeddings[others] @ embeddings[number], strict=True)
        lines.append(", ".join(f"{names[other]} {cosine:.3f}" for other, cosine in pairs) or NOTHING)
    return lines
