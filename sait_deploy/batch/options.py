"""What a job computes, of what, and on how many processes: checked once, for the command line and Python alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.engine.trust import Consent
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME
from sait_deploy.serving.model import STEM_IMAGES
from sait_deploy.serving.options import check_replicas
from sait_deploy.system.option_values import check_options

SHARD_IMAGES: Final = 1000
"""Images of a shard: a minute of work or so, which is what a killed process has to compute again."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """A job.

    Attributes:
        source: a folder of images or of Parquet files, one such file, or the URL of any of them that fsspec knows.
        output: the folder to write to, or its URL.
        artifact: the artifact's folder, on a cluster the same on every machine.
        choice: operating point of an adaptive artifact.
        runtime: what runs it.
        precision: what to compute in; None for what the artifact is made for.
        device: where torch or OpenVINO runs.
        threads: of each operator; None for the processors divided by the processes of this machine.
        batch: images of a batch before the seam.
        token_budget: tokens of a batch after the seam at most; None for those of ``batch`` whole images.
        replicas: processes that each run the artifact.
        shard: images of a shard; of Parquet, as many whole row groups as hold at least so many.
        top: classes of each image.
        image_column: of Parquet files; None for ``image``, else the only one that holds images.
        address: of a Ray cluster to join; None for a Ray of its own.
        consent: to engines that this user did not build.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    source: str
    output: str
    artifact: Path
    choice: PointChoice = DEFAULT_CHOICE
    runtime: str = ONNXRUNTIME
    precision: RunPrecision | None = None
    device: str = DEFAULT_DEVICE
    threads: int | None = None
    batch: int = STEM_IMAGES
    token_budget: int | None = None
    replicas: int = 1
    shard: int = SHARD_IMAGES
    top: int = 3
    image_column: str | None = None
    address: str | None = None
    consent: Consent | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_replicas(self.replicas)
        for what, value in (
            ("images of a batch", self.batch),
            ("tokens of a batch", 1 if self.token_budget is None else self.token_budget),
            ("images of a shard", self.shard),
            ("classes of an image", self.top),
        ):
            if value < 1:
                raise InvalidArgument(f"there cannot be {value} {what}", "give 1 or more")
        self.run_options  # noqa: B018 - checks threads

    @property
    def run_options(self) -> RunOptions:
        """How a runner runs."""
        return RunOptions(self.threads, None, self.device, self.precision, self.consent)
