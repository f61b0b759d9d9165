"""Options that several commands take, written once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sait_deploy.artifacts.manifest import Head, Pooling, Task, WeightsSource
from sait_deploy.cli import _completion
from sait_deploy.engine.trust import (
    DOWNLOAD_FLAG,
    HOST_CODE_FLAG,
    TRUST_FLAG,
    Consent,
    Downloads,
    EngineTrust,
    HostCode,
    grant,
)
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME, RUNTIMES

if TYPE_CHECKING:
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.system.progress import Progress

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

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


def json_option(function: Decorated) -> Decorated:
    """Adds ``--json`` as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def workspace_option(function: Decorated) -> Decorated:
    """Adds ``--workspace``."""
    option = click.option(
        "--workspace",
        type=click.Path(path_type=Path),
        default=Path("artifacts"),
        show_default=True,
        help="Where the last export is looked for.",
    )
    return option(function)


def runtime_option(function: Decorated) -> Decorated:
    """Adds ``--runtime``; which names there are is checked where a runtime is loaded."""
    option = click.option(
        "--runtime",
        default=ONNXRUNTIME,
        show_default=True,
        metavar="NAME",
        shell_complete=_completion.runtimes,
        help=f"One of {', '.join(RUNTIMES)}.",
    )
    return option(function)


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """Returns the parts of an option that may be repeated and may hold commas, each once."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",")))


def precision_option(function: Decorated) -> Decorated:
    """Adds ``--precision``."""
    option = click.option(
        "--precision",
        type=click.Choice([choice.value for choice in RunPrecision]),
        help="What to run in; int8 is the artifact that quantize made.  [default: what the artifact is made for]",
    )
    return option(function)


def device_option(function: Decorated) -> Decorated:
    """Adds ``--device``."""
    option = click.option(
        "--device",
        default=DEFAULT_DEVICE,
        show_default=True,
        metavar="NAME",
        help="Where the runtime runs, by its own names: cuda:0 of torch; GPU or NPU of OpenVINO, never tried.",
    )
    return option(function)


def consent_options(function: Decorated) -> Decorated:
    """The options by which a user allows what an artifact of others does not do unasked."""

    def say(context: click.Context, option: click.Parameter, given: bool) -> None:
        said: set[str] = context.meta.setdefault(__name__, set())
        said |= {option.opts[0]} if given else set()
        grant(
            Consent(
                EngineTrust.ANY if TRUST_FLAG in said else EngineTrust.BUILT_HERE,
                HostCode.ALLOWED if HOST_CODE_FLAG in said else HostCode.REFUSED,
                Downloads.ALLOWED if DOWNLOAD_FLAG in said else Downloads.REFUSED,
            )
        )

    for name, text in (
        (DOWNLOAD_FLAG, "Fetch the weights that an artifact names from the hub, where torch needs them."),
        (HOST_CODE_FLAG, "Run code for the processor that engines built --version-compatible bring."),
        (TRUST_FLAG, "Load TensorRT engines that were built elsewhere, which is to run their code."),
    ):
        function = click.option(name, is_flag=True, expose_value=False, callback=say, help=text)(function)
    return function


def threads_option(function: Decorated) -> Decorated:
    """Adds ``--threads``."""
    option = click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads within one operator.  [default: all processors]",
    )
    return option(function)


def artifacts_argument(function: Decorated) -> Decorated:
    """Adds the artifacts that a command takes, as ``artifacts``."""
    place = click.Path(path_type=Path)
    argument = click.argument(
        "artifacts", nargs=-1, type=place, metavar="[ARTIFACT]...", shell_complete=_completion.artifacts
    )
    return argument(function)


def artifact_argument(*, required: bool) -> Callable[[Decorated], Decorated]:
    """Returns what adds the one artifact that a command takes, as ``artifact``."""
    return click.argument(
        "artifact",
        required=required,
        type=click.Path(path_type=Path),
        metavar="ARTIFACT" if required else "[ARTIFACT]",
        shell_complete=_completion.artifacts,
    )


def artifact_option(function: Decorated) -> Decorated:
    """Adds ``--artifact``."""
    option = click.option(
        "--artifact",
        type=click.Path(path_type=Path),
        metavar="DIR",
        shell_complete=_completion.artifacts,
        help="What to predict with.  [default: the last export]",
    )
    return option(function)


def top_option(function: Decorated) -> Decorated:
    """Adds ``--top``."""
    count = click.IntRange(min=1)
    return click.option("--top", type=count, default=3, show_default=True, metavar="K", help="Classes per image.")(
        function
    )


def token_budget_option(default: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--token-budget``, with its default in words."""
    text = f"Kept tokens of a batch at most.  [default: {default}]"
    return click.option("--token-budget", type=click.IntRange(min=1), metavar="N", help=text)


def replicas_option(text: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--replicas``, with a command's own help."""
    return click.option("--replicas", type=int, default=1, show_default=True, metavar="N", help=text)


def point_options(function: Decorated) -> Decorated:
    """Adds ``--point``, ``--mass``, ``--min-keep`` and ``--max-keep`` of an adaptive artifact."""
    options = (
        click.option("--point", metavar="NAME", help="Named point of an adaptive artifact.  [default: its first]"),
        click.option("--mass", metavar="M", help="Share of importance to keep, in place of the point's."),
        click.option("--min-keep", type=int, metavar="N", help="Patch tokens kept at least, likewise."),
        click.option("--max-keep", type=int, metavar="N", help="Patch tokens kept at most, likewise."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def class_map_option(function: Decorated) -> Decorated:
    """Adds ``--class-map``."""
    option = click.option(
        "--class-map",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The class of each folder: JSON, or lines of folder and class.  [default: by the folders' names]",
    )
    return option(function)


def images_option(text: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--images``, with a command's own help."""
    return click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help=text)


def reports_option(what: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--output`` as ``outputs``: files that a report is written to, in the format of their name."""
    place, text = click.Path(path_type=Path), f"Write the {what}: .json, .csv, .md, .html or .svg; repeatable."
    return click.option("-o", "--output", "outputs", multiple=True, type=place, metavar="FILE", help=text)


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
            help="What to answer: embed gives embeddings of unit length.  [default: classify; embed without a head]",
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
