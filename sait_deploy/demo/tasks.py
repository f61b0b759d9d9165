"""The demonstration's tasks: what images are composed of, and what they are labelled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sait_deploy import demo
from sait_deploy.demo.data import CanvasOptions, Composed, Sources, Split, compose_scene, load_sources
from sait_deploy.demo.fashion import CLASSES as GOODS_CLASSES
from sait_deploy.demo.fashion import Goods, read_goods
from sait_deploy.demo.goods import GoodsOptions, compose_goods
from sait_deploy.demo.many import ManyOptions, compose_many_digits
from sait_deploy.errors import InvalidArgument

Composer = Callable[[np.random.Generator], Composed]
"""Composes one image from random numbers; the task may say more of it than ``Composed`` has."""


@dataclass(frozen=True, slots=True)
class Task:
    """What images are composed of, and what they are labelled with.

    Attributes:
        name: of the task.
        source: what names its images where a folder of training images could be named.
        words: what its images are, in the plural.
        labels: names of its classes.
        compose: from sources, product images where it has some, and random numbers to one image.
        options: how its images are composed.
        has_goods: whether it composes product images, too.
    """

    name: str
    source: str
    words: str
    labels: tuple[str, ...]
    compose: Callable[[Sources, Goods | None, np.random.Generator], Composed]
    options: CanvasOptions | ManyOptions | GoodsOptions
    has_goods: bool = False


def _digits(sources: Sources, goods: Goods | None, rng: np.random.Generator) -> Composed:
    return compose_scene(sources, rng)


def _many(sources: Sources, goods: Goods | None, rng: np.random.Generator) -> Composed:
    return compose_many_digits(sources, rng)


def _goods(sources: Sources, goods: Goods | None, rng: np.random.Generator) -> Composed:
    assert goods is not None
    return compose_goods(goods, sources, rng)


DIGITS: Final = Task("digits", "demo", "composed digits", demo.LABELS, _digits, CanvasOptions())
MANY: Final = Task("many", "demo-many", "compositions of many digits", demo.LABELS, _many, ManyOptions())
GOODS: Final = Task("goods", "demo-goods", "composed goods", GOODS_CLASSES, _goods, GoodsOptions(), has_goods=True)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (DIGITS, MANY, GOODS)}


def composer_of(
    task: Task, split: Split, fashion: Path | None = None, photographs: Sequence[Image.Image] = ()
) -> Composer:
    """Returns what composes one image of a task from random numbers.

    Args:
        task: the task.
        split: which sources its images may be made of.
        fashion: folder of Fashion-MNIST, for the task that has goods.
        photographs: grey, in place of those of the split; at least 96 pixels wide and high.

    Raises:
        InvalidArgument: the folder of Fashion-MNIST is not named, and the task needs it.
        ImageError: it cannot be read.
        MissingDependency: scikit-learn or scikit-image is not installed.
    """
    if task.has_goods and fashion is None:
        raise InvalidArgument(
            f"{task.words} are made of Fashion-MNIST, and its folder is not named",
            "give --fashion DIR, such as of Debian's dataset-fashion-mnist",
        )
    goods = read_goods(fashion, split) if task.has_goods and fashion is not None else None
    sources = load_sources(split)
    if photographs:
        sources = replace(sources, photographs=tuple(photographs))
    return partial(task.compose, sources, goods)


def composed_scenes(task: Task, split: Split, count: int, seed: int, fashion: Path | None = None) -> list[Composed]:
    """Composes ``count`` images of a task; the same arguments always give the same images.

    Raises:
        InvalidArgument, ImageError, MissingDependency: as :func:`composer_of`.
    """
    composer, rng = composer_of(task, split, fashion), np.random.default_rng(seed)
    return [composer(rng) for _ in range(count)]
