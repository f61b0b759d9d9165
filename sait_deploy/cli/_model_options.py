"""Options that name a model, its weights, its task and how images are prepared for it, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sait_deploy.artifacts.manifest import Head, Pooling, Task, WeightsSource
from sait_deploy.artifacts.tower_info import SelectStrategy, TowerChoice
from sait_deploy.cli import _completion
from sait_deploy.cli._options import Decorated
from sait_deploy.errors import InvalidArgument

if TYPE_CHECKING:
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.system.progress import Progress

_FOUND = "  [default: from the files beside the weights, else the model's]"
PREPROCESSING_FLAGS = {
    "--mean": "mean",
    "--std": "std",
    "--crop-pct": "crop_pct",
    "--interpolation": "interpolation",
}


def image_size(text: str) -> tuple[int, int]:
    """Returns height and width in pixels, from a side such as 224 or from both such as 224x320.

    Raises:
        BadParameter: it is neither.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise click.BadParameter(f"{text!r} is no image size: give a side such as 224, or both such as 224x320")
    return int(sides[0]), int(sides[-1])


def model_options(function: Decorated) -> Decorated:
    """Adds what names a model, its weights and how images are prepared for them; see ``load_named``."""
    options = (
        click.option(
            "--model",
            default=None,
            metavar="NAME",
            shell_complete=_completion.models,
            help="A timm name, a folder with config.json, or a hub name.  [default: the demonstration model]",
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            help="Weights: safetensors, a torch checkpoint, a NumPy archive, an index of shards, or a folder of one.",
        ),
        click.option("--pretrained", is_flag=True, help="timm's own weights or the hub's, downloaded."),
        click.option("--random-weights", is_flag=True, help="Random weights: for measuring speed only."),
        click.option(
            "--imgsz",
            type=image_size,
            metavar="N|HxW",
            help="Side of the input in pixels, or height and width such as 224x320.  [default: the model's]",
        ),
        click.option(
            "--global-pool",
            type=click.Choice([choice.value for choice in Pooling]),
            help="What the head reads: avg for weights such as MAE's, fine-tuned so.  [default: the model's]",
        ),
        click.option(
            "--in-chans",
            type=int,
            metavar="N",
            help="Channels of the images: 1 grey, 3 RGB, 4 RGBA.  [default: those of the weights, else the model's]",
        ),
        click.option(
            "--mean",
            metavar="R,G,B",
            help="Mean of the pixels in [0, 1], one number or one of each channel." + _FOUND,
        ),
        click.option("--std", metavar="R,G,B", help="Their standard deviation, likewise." + _FOUND),
        click.option("--crop-pct", type=float, metavar="P", help="Part of the side that the crop keeps." + _FOUND),
        click.option("--interpolation", metavar="NAME", help="Filter used to resize, such as bicubic." + _FOUND),
    )
    for option in reversed(options):
        function = option(function)
    return function


def task_options(function: Decorated) -> Decorated:
    """Adds ``--task`` and ``--head``; see ``models.embedder.for_task``."""
    options = (
        click.option(
            "--task",
            type=click.Choice([choice.value for choice in Task]),
            help="What to answer: embed gives embeddings of unit length, tokens the kept tokens of an image tower.  "
            "[default: classify; embed without a head]",
        ),
        click.option(
            "--head",
            type=click.Choice([Head.CLASSIFIER.value, Head.PROJECTION.value]),
            help="With --task embed: a classifier is left out, a projection is part of the embedding.  "
            "[default: by config.json, else a projection in CLIP's towers]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def tower_options(function: Decorated) -> Decorated:
    """Adds what is taken of an image tower, by LLaVA's names; see ``tower_choice``."""
    options = (
        click.option(
            "--vision-feature-layer",
            type=int,
            metavar="I",
            help="With --task tokens: the block whose output is taken, -2 for the last but one as in LLaVA.  "
            "[default: the last, after the last norm]",
        ),
        click.option(
            "--vision-feature-select-strategy",
            type=click.Choice([choice.value for choice in SelectStrategy]),
            help="With --task tokens: default takes the patches alone, full the class token too.  [default: default]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def tower_choice(given: dict[str, Any]) -> TowerChoice | None:
    """Returns what the options of ``tower_options`` say; None where none is given."""
    layer, strategy = given["vision_feature_layer"], given["vision_feature_select_strategy"]
    if layer is None and strategy is None:
        return None
    return TowerChoice(layer, SelectStrategy.DEFAULT if strategy is None else SelectStrategy(strategy))


def task_of(given: dict[str, Any]) -> tuple[Task | None, Head | None]:
    """Returns what the options of ``task_options`` say."""
    task, head = given["task"], given["head"]
    return None if task is None else Task(task), None if head is None else Head(head)


def weights_source(weights: Path | None, pretrained: bool, random_weights: bool) -> WeightsSource:
    """Returns which of the options of ``model_options`` names the weights, the demonstration's where none does.

    Raises:
        InvalidArgument: more than one does.
    """
    named = [
        (weights is not None, "--weights", WeightsSource.FILE),
        (pretrained, "--pretrained", WeightsSource.PRETRAINED),
        (random_weights, "--random-weights", WeightsSource.RANDOM),
    ]
    given = [(flag, source) for is_given, flag, source in named if is_given]
    if len(given) > 1:
        raise InvalidArgument(f"{' and '.join(flag for flag, _ in given)} name different weights", "give one of them")
    return given[0][1] if given else WeightsSource.DEMO


def load_named(
    given: dict[str, Any], name: str, source: WeightsSource, report: Progress, choice: PreprocessingChoice
) -> LoadedModel:
    """Loads the model that the options of ``model_options`` name; says what was assumed and how images are prepared."""
    from sait_deploy.images.preprocessing_choice import preprocessing_words
    from sait_deploy.models.registry import WeightsRequest, load_model

    pool = None if given["global_pool"] is None else Pooling(given["global_pool"])
    request = WeightsRequest(source, given["weights"], choice, global_pool=pool, in_chans=given["in_chans"])
    loaded = load_model(name, request, given["imgsz"])
    for note in loaded.weights.notes:
        report(note)
    if loaded.info.labels_source is not None and not given.get("labels"):
        report(f"labels: {loaded.info.labels_source}")
    report(f"images: {preprocessing_words(loaded.preprocessing, loaded.preprocessing_sources)}")
    return loaded


def preprocessing_choice(given: dict[str, Any]) -> PreprocessingChoice:
    """Returns what the options of ``model_options`` say of preprocessing.

    Raises:
        InvalidArgument: a mean, std, crop or filter that cannot be.
    """
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice, parse_channels

    return PreprocessingChoice(
        mean=None if given["mean"] is None else parse_channels("mean", given["mean"]),
        std=None if given["std"] is None else parse_channels("std", given["std"]),
        crop_pct=given["crop_pct"],
        interpolation=given["interpolation"],
    )
