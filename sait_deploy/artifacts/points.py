"""Operating points: asked for at export, named in the manifest, resolved for every image of a batch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.codec import shown
from sait_deploy.artifacts.manifest import Form, ModelInfo
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.tokens import OperatingPoint

DEFAULT_POINT: Final = "default"
"""The name under which an artifact's first point is always known."""

PerImage: TypeAlias = float | Sequence[float] | NDArray[Any]
"""One value for all images, or one for each."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_MOST_MASS: Final = 2.0
_THRESHOLD_HINT: Final = "give a multiple of uniform importance, such as 1.5"
_MASS_HINT: Final = "give the share of importance to keep, such as 0.95"


@dataclass(frozen=True, slots=True)
class PointRequest:
    """An operating point to name in an adaptive artifact.

    Attributes:
        name: a letter, then letters, digits, ``_``, ``.`` and ``-``.
        mass: probability mass to reach; 1 and above keeps all that ``max_keep`` allows.
        min_keep: patch tokens kept at least.
        max_keep: patch tokens kept at most; None for all of the model's.

    Raises:
        InvalidArgument: a name or number that is not allowed.
    """

    name: str
    mass: float
    min_keep: int = 1
    max_keep: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgument(f"{self.name!r} cannot name a point", "begin with a letter; no spaces")
        object.__setattr__(self, "mass", check_mass(self.mass))
        for limit in (self.min_keep, self.max_keep):
            if limit is not None and type(limit) is not int:
                raise InvalidArgument(f"point {self.name!r} has limit {limit!r}, which is no whole number")
        if self.min_keep < 1 or (self.max_keep is not None and self.max_keep < self.min_keep):
            raise InvalidArgument(
                f"point {self.name!r} keeps {self.min_keep} to {'all' if self.max_keep is None else self.max_keep} "
                "patch tokens, which cannot be",
                "give 1 <= min <= max",
            )

    @classmethod
    def of(cls, name: str, point: OperatingPoint) -> PointRequest:
        """Returns the request for an operating point under a name."""
        return cls(name, point.mass, point.min_keep, point.max_keep)

    def resolve(self, patch_tokens: int) -> OperatingPoint:
        """Returns the operating point of a model with that many patch tokens.

        Raises:
            InvalidArgument: it keeps more than there are.
        """
        most = patch_tokens if self.max_keep is None else self.max_keep
        if max(most, self.min_keep) > patch_tokens:
            raise InvalidArgument(
                f"point {self.name!r} keeps {self.min_keep} to {most} patch tokens; the model has {patch_tokens}",
                f"give at most {patch_tokens}",
            )
        return OperatingPoint(self.mass, self.min_keep, most)


def mass_point(mass: float, min_keep: int = 1, max_keep: int | None = None) -> PointRequest:
    """Returns the point of a probability mass, named after it: ``mass0.95``."""
    return PointRequest("mass" + f"{mass:.12g}".replace("+", ""), mass, min_keep, max_keep)


def threshold_point(threshold: float, min_keep: int = 1, max_keep: int | None = None) -> PointRequest:
    """Returns the point at which a threshold alone decides, named after it: ``threshold1.5``."""
    return PointRequest("threshold" + f"{threshold:.12g}".replace("+", ""), 1.0, min_keep, max_keep)


def parse_threshold(text: str) -> float:
    """Reads a multiple of uniform importance.

    Raises:
        InvalidArgument: it is no number above 0.
    """
    try:
        threshold = float(text)
    except ValueError:
        raise InvalidArgument(f"threshold {text!r} is not a number", _THRESHOLD_HINT) from None
    if not (math.isfinite(threshold) and threshold > 0):
        raise InvalidArgument(f"threshold {text} is no number above 0", _THRESHOLD_HINT)
    return threshold


def check_mass(mass: float) -> float:
    """Returns a probability mass that can be one.

    Raises:
        InvalidArgument: it is no number from 0 on.
    """
    try:
        value = float(mass)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"mass {shown(mass)} is not a number", _MASS_HINT) from None
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(f"mass {value:g} is no number from 0 on", _MASS_HINT)
    return value


def parse_mass(text: str) -> float:
    """Reads a probability mass.

    Raises:
        InvalidArgument: it is no number from 0 on.
    """
    try:
        mass = float(text)
    except ValueError:
        raise InvalidArgument(f"mass {text!r} is not a number", _MASS_HINT) from None
    return check_mass(mass)


def parse_point(text: str, min_keep: int = 1, max_keep: int | None = None) -> PointRequest:
    """Reads ``NAME=mass[,min[,max]]``; limits that are left out are the given ones.

    Raises:
        InvalidArgument: it is not of that form.
    """
    name, equals, rest = text.partition("=")
    parts = rest.split(",")
    if not equals or not 1 <= len(parts) <= 3:
        raise InvalidArgument(f"point {text!r} is not NAME=mass[,min[,max]]", "such as fast=0.8,8,100")
    try:
        least = int(parts[1]) if len(parts) > 1 else min_keep
        most = int(parts[2]) if len(parts) > 2 else max_keep
    except ValueError:
        raise InvalidArgument(f"point {text!r} has a limit that is no whole number", "such as fast=0.8,8,100") from None
    return PointRequest(name.strip(), parse_mass(parts[0]), least, most)


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """An operating point for every image of a batch: mass float32 [B], keep_limits int32 [B, 2]."""

    mass: NDArray[np.float32]
    keep_limits: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PointChoice:
    """What a caller asks of an adaptive artifact: a named point, and what replaces parts of it.

    Attributes:
        point: name; None for the artifact's default.
        mass: one value or one per image; None for the point's.
        min_keep: likewise.
        max_keep: likewise.
    """

    point: str | None = None
    mass: PerImage | None = None
    min_keep: PerImage | None = None
    max_keep: PerImage | None = None

    @classmethod
    def of(cls, point: OperatingPoint) -> PointChoice:
        """Returns the choice of an operating point for all images."""
        return cls(None, point.mass, point.min_keep, point.max_keep)

    @property
    def is_default(self) -> bool:
        """Whether nothing was asked for."""
        return self.point is None and self.mass is None and self.min_keep is None and self.max_keep is None


DEFAULT_CHOICE: Final = PointChoice()
"""Nothing asked for: the artifact's default point."""


class Described(Protocol):
    """What running a model needs to know of it: a manifest says it of an artifact."""

    @property
    def name(self) -> str:
        """What it is called in errors."""

    @property
    def form(self) -> Form:
        """How many tokens it keeps: all, a fixed number, or as many as it is asked for."""

    @property
    def model(self) -> ModelInfo:
        """Sizes and classes."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How its images are made."""

    @property
    def prune_at(self) -> int | None:
        """Block pruned in; None where nothing is pruned."""

    @property
    def operating_points(self) -> dict[str, OperatingPoint]:
        """Its points by name, the default first; none where nothing is pruned."""


def named_point(described: Described, name: str | None) -> OperatingPoint:
    """Returns a named point of an adaptive artifact, its first where no name is given.

    Raises:
        InvalidArgument: it has no point of that name.
    """
    points = described.operating_points
    first = next(iter(points.values()))
    if name is None or (name == DEFAULT_POINT and name not in points):
        return first
    if not isinstance(name, str) or name not in points:
        raise InvalidArgument(f"{described.name} has no point {name!r}", f"it has {', '.join(points)}")
    return points[name]


def resolve(described: Described, batch: int, choice: PointChoice) -> BatchPoint | None:
    """Returns the operating point of every image; None for a form whose point is fixed.

    Raises:
        InvalidArgument: no such point; a value that is no number or of another batch; limits outside 1 to N or
            reversed; or anything asked of an artifact whose point is fixed.
    """
    if described.form is not Form.ADAPTIVE:
        if choice.is_default:
            return None
        raise InvalidArgument(
            f"{described.name} is a {described.form} artifact: its operating point is fixed",
            "leave the point out, or export an adaptive one with --mass",
        )
    named = named_point(described, choice.point)
    mass = _numbers("mass", named.mass if choice.mass is None else choice.mass, batch)
    least = _numbers("min_keep", named.min_keep if choice.min_keep is None else choice.min_keep, batch)
    most = _numbers("max_keep", named.max_keep if choice.max_keep is None else choice.max_keep, batch)
    patches = described.model.geometry.patch_tokens
    _require(np.isfinite(mass) & (mass >= 0), "mass", mass, "is no number from 0 on", _MASS_HINT)
    for name, limit in (("min_keep", least), ("max_keep", most)):
        hint = f"give whole numbers from 1 to {patches}"
        _require(limit == np.floor(limit), name, limit, "is no whole number", hint)
        within = (limit >= 1) & (limit <= patches)
        _require(within, name, limit, f"is outside 1 to {patches}, the model's patch tokens", hint)
    least, most = np.broadcast_arrays(least, most)
    _require(least <= most, "min_keep", least, "is above max_keep", "give 1 <= min_keep <= max_keep")
    keep_limits = np.stack([np.broadcast_to(limit, batch) for limit in (least, most)], axis=1)
    # From 1 on all masses are the same, and float32 ends before float64.
    return BatchPoint(np.full(batch, np.minimum(mass, _MOST_MASS), dtype=np.float32), keep_limits.astype(np.int32))


def _numbers(name: str, value: PerImage, batch: int) -> NDArray[np.float64]:
    """Returns a value as one number or as one for each image."""
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"{name} {shown(value)} is not a number", "give one value, or one per image") from None
    if values.shape not in ((), (batch,)):
        raise InvalidArgument(
            f"{name} has shape {list(values.shape)} for a batch of {batch}", "give one value, or one per image"
        )
    return values


def _require(right: NDArray[np.bool_], name: str, values: NDArray[np.float64], what: str, hint: str) -> None:
    """Refuses values that are not right, naming the image where each has its own."""
    wrong = np.flatnonzero(~np.asarray(right))
    if not len(wrong):
        return
    if values.ndim == 0:
        raise InvalidArgument(f"{name} {values:g} {what}", hint)
    raise InvalidArgument(f"{name} of image {int(wrong[0])}, {values[wrong[0]]:g}, {what}", hint)
