"""``sait-deploy train``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from sait_deploy import demo
from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.cli._command import Command
from sait_deploy.cli._model_options import load_named, model_options, preprocessing_choice, weights_source
from sait_deploy.cli._options import Decorated, class_map_option, json_option
from sait_deploy.cli._render import live_progress, progress, show_next, show_tables
from sait_deploy.errors import InvalidArgument
from sait_deploy.reports.table import Table, figures
from sait_deploy.system.progress import no_progress
from sait_deploy.tokens import Score
from sait_deploy.training.options import (
    DEMO_DATA,
    Alternation,
    Amp,
    Augmentation,
    DataOptions,
    Distillation,
    Head,
    Recipe,
    TrainOptions,
    parse_density_range,
    parse_mass_range,
)

if TYPE_CHECKING:
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.training.train import TrainResult

_OF_TEACHERS: Final = (
    *("teacher_model", "teacher_blocks", "teacher_score"),
    *("distill_logits", "distill_importance", "temperature"),
)
_OF_SPARSE_STEPS: Final = ("density_range", "mass_range")
_RECIPE, _DATA, _DISTILLATION = Recipe(), DataOptions(), Distillation()


def _number(name: str, default: Any, text: str) -> Callable[[Decorated], Decorated]:
    return click.option(name, type=type(default), default=default, show_default=True, help=text)


def _choice(name: str, kind: type[StrEnum], default: StrEnum, text: str) -> Callable[[Decorated], Decorated]:
    values = [choice.value for choice in kind]
    return click.option(name, type=click.Choice(values), default=default.value, show_default=True, help=text)


@click.command(
    cls=Command,
    example="sait-deploy train --model deit_small_patch16_224 --pretrained --data photos/",
    renamed={"--batch-size": "--batch"},
)
@model_options
@click.option("--new-head", is_flag=True, help="Replace the classifier by a fresh one for the data's classes.")
@click.option(
    "--data",
    default=DEMO_DATA,
    show_default=True,
    metavar="FOLDER",
    help="Images, one subfolder per class, or train and val folders of such; or demo, the demonstration's digits.",
)
@click.option("--val", type=click.Path(path_type=Path), metavar="FOLDER", help="Validation images, one subfolder each.")
@class_map_option
@_choice("--augmentation", Augmentation, _DATA.augmentation, "How training images are varied.")
@_number("--workers", _DATA.workers, "Processes that load images; 0 for none but this.")
@_number("--epoch-images", _DATA.epoch_images, "Training images per epoch of demo.")
@_number("--val-images", _DATA.validation_images, "Validation images at most.")
@click.option("--teacher", type=click.Path(path_type=Path), metavar="FILE", help="Weights of a dense teacher.")
@click.option("--teacher-model", metavar="NAME", help="Its timm name.  [default: the model's]")
@_number("--teacher-blocks", _DISTILLATION.teacher_blocks, "Its last blocks, whose attention is learnt from.")
@_choice("--teacher-score", Score, _DISTILLATION.teacher_score, "How that attention is read off.")
@_number("--distill-logits", _DISTILLATION.logits, "Weight of the teacher's logits beside the labels.")
@_number("--distill-importance", _DISTILLATION.importance, "Weight of where the teacher looks.")
@_number("--temperature", _DISTILLATION.temperature, "Divides logits before they are compared.")
@_choice("--alternation", Alternation, Alternation.BATCH, "Drop tokens in every other batch or epoch, or never.")
@click.option(
    "--density-range",
    default="0.3:1.0",
    show_default=True,
    metavar="LOW:HIGH",
    help="Densities that sparse steps draw from.",
)
@click.option(
    "--mass-range",
    metavar="LOW:HIGH",
    help="Masses that every other sparse step draws from instead, each image keeping as many tokens as it takes.",
)
@_choice("--score", Score, Score.MEAN, "How importance is read off the attention.")
@click.option("--prune-at", type=int, metavar="I", help="Block to prune in, from 0.  [default: depth // 4]")
@_number("--epochs", _RECIPE.epochs, "Passes over the data.")
@_number("--batch", _RECIPE.batch, "Images per step and process.")
@_number("--opt", _RECIPE.optimizer, "timm's name of the optimizer.")
@_number("--lr", _RECIPE.learning_rate, "Peak learning rate.")
@_number("--weight-decay", _RECIPE.weight_decay, "Weight decay.")
@_number("--layer-decay", _RECIPE.layer_decay, "Factor of the learning rate from block to block, towards the input.")
@_number("--sched", _RECIPE.schedule, "timm's name of the schedule, cosine or tanh.")
@click.option("--sched-epochs", type=int, metavar="N", help="Epochs that it spans, warm-up included.  [default: all]")
@_number("--warmup-epochs", _RECIPE.warmup_epochs, "Epochs of linear rise.")
@_number("--min-lr", _RECIPE.least_learning_rate, "Learning rate at the end.")
@_number("--clip-grad", _RECIPE.clip, "Largest norm of all gradients; 0 for any.")
@_number("--smoothing", _RECIPE.label_smoothing, "Label smoothing.")
@_number("--mixup", _RECIPE.mixup, "Mixup's alpha; 0 for none.")
@_number("--cutmix", _RECIPE.cutmix, "CutMix's alpha; 0 for none.")
@_number("--drop-path", _RECIPE.drop_path, "Stochastic depth of the last block.")
@_number("--ema-decay", _RECIPE.ema_decay, "Decay of the averaged weights, which are delivered; 0 for none.")
@_choice("--amp", Amp, _RECIPE.amp, "Mixed precision.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn at random.")
@click.option(
    "--device",
    metavar="NAME",
    help="Where torch trains, by its own names: cpu, cuda:1.  [default: a GPU where there is one]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("training"),
    show_default=True,
    help="Folder for weights, log and state; started again with the same options, training goes on from there.",
)
@json_option
@click.pass_context
def command(context: click.Context, /, model: str | None, as_json: bool, **given: Any) -> None:
    """Train a model dense and sparse, so that one set of weights serves every density.

    Steps alternate between dense ones and ones in which tokens are dropped by the selection that is deployed. With
    --teacher the model also learns the teacher's logits and where its last blocks look.

    For several GPUs: accelerate launch -m sait_deploy train …
    """
    _check_used(context, given)
    options, choice = _options(given), preprocessing_choice(given)
    source = weights_source(given["weights"], given["pretrained"], given["random_weights"])
    speaks = os.environ.get("RANK", "0") == "0"  # of several processes the first, which they all know from the launcher
    if model is None and speaks:
        progress(f"no --model: training the demonstration model, {demo.NAME}")
    import torch  # noqa: F401 - of all that training needs, what to name first where none of it is installed

    from sait_deploy.models.registry import WeightsRequest, load_model
    from sait_deploy.training.train import train

    name = model or demo.NAME
    with live_progress(animated=False) if speaks else contextlib.nullcontext(no_progress) as report:
        check_place(given["output"])
        loaded = load_named(given, name, source, report, choice)
        teacher: LoadedModel | None = None
        if given["teacher"] is not None:
            pool = given["global_pool"] if given["teacher_model"] is None else None
            request = WeightsRequest(
                WeightsSource.FILE, given["teacher"], global_pool=None if pool is None else Pooling(pool)
            )
            teacher = load_model(given["teacher_model"] or name, request, given["imgsz"])
            for note in teacher.weights.notes:
                report(note)
        result = train(loaded, teacher, options, report)
    if result.is_main:
        _report(result, as_json)
        if not as_json:
            named = () if model is None else ("--model", model)
            show_next("export", *named, "--weights", result.weights, "--mass", "0.9")


def _check_used(context: click.Context, given: dict[str, Any]) -> None:
    """Refuses options that what else was asked for leaves without a use."""
    unused: list[tuple[bool, tuple[str, ...], str]] = [
        (given["data"] == DEMO_DATA, ("val", "augmentation"), "is for folders of images, not for the demonstration's"),
        (given["data"] != DEMO_DATA, ("epoch_images",), "is for the demonstration's digits, not for folders"),
        (given["teacher"] is None, _OF_TEACHERS, "is for training with a teacher: give --teacher FILE"),
        (given["alternation"] == Alternation.NEVER, _OF_SPARSE_STEPS, "is for sparse steps, and there are none"),
    ]
    for left_out, names, why in unused:
        for name in names if left_out else ():
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise InvalidArgument(f"--{name.replace('_', '-')} {why}", "leave it out")


def _options(given: dict[str, Any]) -> TrainOptions:
    return TrainOptions(
        output=given["output"],
        data=DataOptions(
            source=given["data"],
            validation=given["val"],
            augmentation=Augmentation(given["augmentation"]),
            workers=given["workers"],
            epoch_images=given["epoch_images"],
            validation_images=given["val_images"],
            class_map=given["class_map"],
        ),
        recipe=Recipe(
            epochs=given["epochs"],
            batch=given["batch"],
            optimizer=given["opt"],
            learning_rate=given["lr"],
            weight_decay=given["weight_decay"],
            layer_decay=given["layer_decay"],
            schedule=given["sched"],
            schedule_epochs=given["sched_epochs"],
            warmup_epochs=given["warmup_epochs"],
            least_learning_rate=given["min_lr"],
            clip=given["clip_grad"] or None,
            label_smoothing=given["smoothing"],
            mixup=given["mixup"],
            cutmix=given["cutmix"],
            drop_path=given["drop_path"],
            ema_decay=given["ema_decay"] or None,
            amp=Amp(given["amp"]),
        ),
        head=Head.NEW if given["new_head"] else Head.KEEP,
        alternation=Alternation(given["alternation"]),
        densities=parse_density_range(given["density_range"]),
        masses=None if given["mass_range"] is None else parse_mass_range(given["mass_range"]),
        score=Score(given["score"]),
        prune_at=given["prune_at"],
        distillation=Distillation(
            logits=given["distill_logits"],
            temperature=given["temperature"],
            importance=given["distill_importance"],
            teacher_blocks=given["teacher_blocks"],
            teacher_score=Score(given["teacher_score"]),
        ),
        seed=given["seed"],
        device=given["device"],
    )


def _report(result: TrainResult, as_json: bool) -> None:
    if as_json:
        log = [dataclasses.asdict(entry) for entry in result.log]
        click.echo(json.dumps({"weights": str(result.weights), "log": log}, indent=2))
        return
    by_mass = any(entry.mass is not None for entry in result.log)
    last = ("top-1 % by mass", "at mass") if by_mass else ()
    names = ("epoch", "loss", "dense top-1 %", "sparse top-1 %", "at density", *last, "images/s")
    rows = [
        (
            str(entry.epoch),
            f"{entry.loss:.4f}",
            f"{entry.dense_top1:.1f}",
            *_cells(entry.sparse_top1, entry.sparse_density),
            *(_cells(entry.mass_top1, entry.mass) if by_mass else ()),
            f"{entry.images_per_second:.0f}",
        )
        for entry in result.log
    ]
    show_tables(Table.of("", [figures(name) for name in names], rows))
    progress(f"weights are in {result.weights}")


def _cells(top1: float | None, at: float | None) -> tuple[str, str]:
    return "–" if top1 is None else f"{top1:.1f}", "–" if at is None else f"{at:g}"
