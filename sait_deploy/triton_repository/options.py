"""What a repository is made of and for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.system.option_values import check_options

MAX_BATCH: Final = 32


class Backend(StrEnum):
    """What of Triton runs a model."""

    ONNXRUNTIME = "onnxruntime"
    """The artifact's file as it is."""

    PYTHON = "python"
    """The artifact cut at its seam, in batches of tokens, by this package in Triton's Python."""

    TENSORRT = "tensorrt"
    """The artifact's TensorRT engine; of an adaptive one stem and trunk, with a model in Python between them."""


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """A repository, or a model to add to one.

    Attributes:
        artifact: the artifact's folder.
        output: the repository's folder.
        backend: what runs the model.
        point: named point of an adaptive artifact, of requests that bring no mass; None for its first.
        name: the model's; None for that of the artifact's folder.
        max_batch: images of a request, and of requests computed together, at most; None for 32, and of an engine for
            what it was built for.
        token_budget: tokens of a batch behind the seam of the Python form; None for those of eight whole images.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    artifact: Path
    output: Path
    backend: Backend = Backend.ONNXRUNTIME
    point: str | None = None
    name: str | None = None
    max_batch: int | None = None
    token_budget: int | None = None

    def __post_init__(self) -> None:
        check_options(self)
        name = self.name
        if name is not None and (not name or name.startswith(".") or "/" in name or not name.isprintable()):
            raise InvalidArgument(f"{name!r} cannot name a model", "give a folder's name, such as classifier")
        for what, value in (("images", self.max_batch), ("tokens", self.token_budget)):
            if value is not None and value < 1:
                raise InvalidArgument(f"a batch cannot have {value} {what} at most", "give 1 or more")
        if self.token_budget is not None and self.backend is not Backend.PYTHON:
            raise InvalidArgument(
                f"the {self.backend} backend makes no batches of tokens",
                "leave the budget out, or give --backend python",
            )
