"""What to quantise, and how close the answers have to stay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.dataset import check_class_map
from sait_deploy.system.option_values import check_options

CALIBRATION_IMAGES: Final = 128
"""Images whose ranges are read, where there are as many."""

FEWEST_IMAGES: Final = 32
"""Images below which no folder is accepted."""


class Exclude(StrEnum):
    """Which linear layers of the blocks stay float."""

    AUTO = "auto"
    """What importance is read from, and the layers whose int8 costs most, as many as agreement needs."""

    NONE = "none"
    """Only those that are named."""


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        images: folder of images to calibrate and to compare on; None for the demonstration's own.
        class_map: file that says the class of each subfolder of ``images``; None for the classes of those names.
        exclude: how layers that stay float are found.
        keep_float: names of layers that stay float whatever they cost, such as ``blocks.3.mlp.fc2``; ``*`` matches.
        min_agreement: percent of held-out images that must get the float artifact's top-1 at every operating point.
        threads: threads of calibration and comparison; None for all processors.
        overwrite: whether an artifact of the same identity may be replaced.

    Raises:
        InvalidArgument: an agreement outside of 0 to 100, or a class map without images.
    """

    images: Path | None = None
    class_map: Path | None = None
    exclude: Exclude = Exclude.AUTO
    keep_float: tuple[str, ...] = ()
    min_agreement: float = 99.0
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        check_class_map(self.images, self.class_map)
        if not 0 <= self.min_agreement <= 100:
            raise InvalidArgument(f"an agreement of {self.min_agreement:g} % cannot be", "give 0 to 100")


def parse_exclude(text: str) -> tuple[Exclude, tuple[str, ...]]:
    """Returns what ``--exclude`` says: ``auto``, ``none``, or names separated by commas, which alone stay float.

    Raises:
        InvalidArgument: a name is empty.
    """
    if text in list(Exclude):
        return Exclude(text), ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise InvalidArgument(f"--exclude {text!r} has an empty name", "give auto, none, or names such as blocks.0.*")
    return Exclude.NONE, names
