"""The demonstration's tasks: what images are composed of, and what they are labelled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from sait_deploy import demo
from sait_deploy.demo.data import Composed, Split, compose_scene, load_sources
from sait_deploy.demo.fashion import CLASSES as GOODS_CLASSES
from sait_deploy.demo.fashion import read_goods
from sait_deploy.demo.goods import compose_goods
from sait_deploy.demo.many import compose_many_digits
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
        composer: from the split, and the folder of Fashion-MNIST where it is named, to what composes its images.
    """

    name: str
    source: str
    words: str
    labels: tuple[str, ...]
    composer: Callable[[Split, Path | None], Composer]


def _digits(split: Split, fashion: Path | None) -> Composer:
    return partial(compose_scene, load_sources(split))


def _many(split: Split, fashion: Path | None) -> Composer:
    return partial(compose_many_digits, load_sources(split))


def _goods(split: Split, fashion: Path | None) -> Composer:
    if fashion is None:
        raise InvalidArgument("goods are composed of Fashion-MNIST, and its folder is not named", "give --fashion DIR")
    return partial(compose_goods, read_goods(fashion, split), load_sources(split))


DIGITS: Final = Task("digits", "demo", "composed digits", demo.LABELS, _digits)
MANY: Final = Task("many", "demo-many", "compositions of many digits", demo.LABELS, _many)
GOODS: Final = Task("goods", "demo-goods", "composed goods", GOODS_CLASSES, _goods)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (DIGITS, MANY, GOODS)}


def composed_scenes(task: Task, split: Split, count: int, seed: int, fashion: Path | None = None) -> list[Composed]:
    """Composes ``count`` images of a task; the same arguments always give the same images.

    Raises:
        InvalidArgument: the folder of Fashion-MNIST is not named, and the task needs it.
        ImageError: it cannot be read.
        MissingDependency: scikit-learn or scikit-image is not installed.
    """
    composer, rng = task.composer(split, fashion), np.random.default_rng(seed)
    return [composer(rng) for _ in range(count)]
