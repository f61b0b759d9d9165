"""Groups of images, and how accurate a row of the report is on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.results import Stratum
from sait_deploy.evaluation.stats import paired_difference

_QUARTERS: Final = ("fewest", "few", "many", "most")


@dataclass(frozen=True, slots=True)
class Grouping:
    """A division of the images.

    Attributes:
        name: what they are divided by: "class", "digit size".
        groups: names of the groups, in the order they are shown.
        of: int64 [n], for each image the index of its group.

    Raises:
        InvalidArgument: an index is none of a group.
    """

    name: str
    groups: tuple[str, ...]
    of: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.of.ndim != 1 or (len(self.of) and not 0 <= int(self.of.min()) <= int(self.of.max()) < len(self.groups)):
            raise InvalidArgument(f"the grouping by {self.name} puts images in groups that it does not name")

    def part(self, chosen: NDArray[np.intp]) -> Grouping:
        """Returns the division of some of the images, by their numbers."""
        return Grouping(self.name, self.groups, self.of[chosen])


def by_class(labels: NDArray[np.int64], names: Sequence[str] | None) -> Grouping:
    """Groups images by their class.

    Args:
        labels: int64 [n].
        names: of the classes; None for their numbers.
    """
    found, of = np.unique(labels, return_inverse=True)
    groups = tuple(str(number) if names is None else names[number] for number in found)
    return Grouping("class", groups, of.astype(np.int64))


def by_kept(kept: NDArray[np.int32], point: str) -> Grouping | None:
    """Groups images in quarters by how many patch tokens they keep; those that keep as many stay together.

    Args:
        kept: int32 [n].
        point: the name of the point at which they do.

    Returns:
        None where all of them fall in one group.
    """
    edges = np.quantile(kept, (0.25, 0.5, 0.75), method="lower")
    quarter = np.searchsorted(edges, kept, side="left")
    found, of = np.unique(quarter, return_inverse=True)
    if len(found) < 2:
        return None
    groups = []
    for number in found:
        own = kept[quarter == number]
        low, high = int(own.min()), int(own.max())
        groups.append(f"{_QUARTERS[number]} ({low})" if low == high else f"{_QUARTERS[number]} ({low} to {high})")
    return Grouping(f"kept at {point}", tuple(groups), of.astype(np.int64))


def strata_of(
    row: str,
    grouping: Grouping,
    dense_right: NDArray[np.bool_],
    right: NDArray[np.bool_],
    kept: NDArray[np.int32],
) -> list[Stratum]:
    """Returns how accurate a row is on each group that has images.

    Args:
        row: its id.
        grouping: of the images.
        dense_right: bool [n], whether dense is right on each.
        right: bool [n], whether the row is.
        kept: int32 [n], patch tokens that the row keeps.
    """
    found = []
    for index, name in enumerate(grouping.groups):
        own = grouping.of == index
        count = int(own.sum())
        if count:
            change = paired_difference(right[own], dense_right[own])
            dense = 100.0 * float(dense_right[own].mean())
            found.append(Stratum(row, grouping.name, name, count, dense, change, float(kept[own].mean())))
    return found
