"""What an evaluation is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.manifest import Head, Task
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE
from sait_deploy.system.option_values import check_options
from sait_deploy.tokens import Score

ORACLE: Final = tuple(map(Decimal, ("0.03", "0.05", "0.08", "0.12", "0.17", "0.24", "0.34", "0.47", "0.63", "0.8")))
"""Densities among which what each image needs is looked for; beyond the last there is dense."""

ORACLE_MASSES: Final = tuple(map(mass_point, (0.95, 0.9, 0.8, 0.7, 0.6)))
"""What is compared with the oracle where neither densities nor points are named, beside the default points."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate beside dense, and how.

    Attributes:
        densities: kept shares of the patch tokens.
        points: masses and named points. With neither densities nor points, an adaptive artifact is evaluated at its own
            points, and a model at densities 0.7, 0.5, 0.3 and 0.2 and masses 0.9 and 0.8.
        controls: densities at which random tokens, and the least important, are kept in place of the most important;
            None for random tokens beside every density and mass of a model without classes, and for none of others.
        lower_resolutions: image heights in pixels at which dense runs as a rival; None for those of equal
            multiply-accumulates at each density and point; empty for none.
        bench_report: a benchmark's JSON file, from which densities that take as long as each mass are found.
        bench_runtime: whose times; None for those of the runtime evaluated, or the only ones there.
        bench_batch: images per request of those times; None for the largest there.
        batch: images asked about at once.
        limit: images at most, evenly spaced; None for all.
        score: how importance is read off a model's attention; None for as the weights were trained, else by the mean.
        prune_at: block that a model is pruned in; None for the one that the weights were trained at, else depth // 4.
        runtime: what runs an artifact; None for ONNX Runtime.
        precision: what an artifact runs in; None for what it is made for. For int8 it is the int8 artifact made from it
            that answers, for a float precision the float one.
        weights: weights file of an artifact, where the one that its manifest names is not there any more.
        threads: threads within one operator; None for all of the processors this process may use.
        device: where the runtime that answers runs, a model in torch; see ``RunOptions``. Controls and lower
            resolutions of an artifact run in torch, on this device where torch answers, else on the CPU.
        class_map: file that says the class of each subfolder of the images; None for the classes of those names.
        oracle: densities among which the fewest tokens that each image needs are looked for, such as ``ORACLE``, for a
            bound of what choosing them image by image could gain; none for no bound.
        class_embeddings: NumPy archive by which a model that embeds classifies; see
            ``class_embeddings.read_class_embeddings``.
        task: what a model answers; None to classify with a head, and to embed without one.
        head: what the head is, of a model that embeds; see ``models.embedder.for_task``.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    densities: tuple[Decimal, ...] = ()
    points: tuple[PointRequest, ...] = ()
    controls: tuple[Decimal, ...] | None = None
    lower_resolutions: tuple[int, ...] | None = None
    bench_report: Path | None = None
    bench_runtime: str | None = None
    bench_batch: int | None = None
    batch: int = 32
    limit: int | None = None
    score: Score | None = None
    prune_at: int | None = None
    runtime: str | None = None
    precision: RunPrecision | None = None
    weights: Path | None = None
    threads: int | None = None
    device: str = DEFAULT_DEVICE
    class_map: Path | None = None
    oracle: tuple[Decimal, ...] = ()
    class_embeddings: Path | None = None
    task: Task | None = None
    head: Head | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for density in (*self.densities, *(self.controls or ()), *self.oracle):
            if not (density.is_finite() and 0 < density <= 1):
                raise InvalidArgument(f"density {density} is outside (0, 1]", "give the share of tokens to keep")
        _check_once("density", self.densities)
        _check_once("control", self.controls or ())
        _check_once("density of the oracle", self.oracle)
        _check_once("point", [point.name for point in self.points])
        for what, number in (("batch", self.batch), ("limit", self.limit), ("bench batch", self.bench_batch)):
            if number is not None and (type(number) is not int or number < 1):
                raise InvalidArgument(f"{what} {number!r} is below 1", "give a whole number from 1")
        if self.bench_report is None and (self.bench_runtime is not None or self.bench_batch is not None):
            raise InvalidArgument("a runtime and batch of a benchmark need its file", "name the benchmark's JSON file")
        if self.class_embeddings is not None and self.task not in (None, Task.EMBED):
            raise InvalidArgument(
                f"class embeddings are for a model that embeds, not for --task {self.task}", "give --task embed"
            )
        _ = self.running

    @property
    def running(self) -> RunOptions:
        """The part that a runtime needs."""
        return RunOptions(self.threads, self.weights, self.device, self.precision)


def _check_once(what: str, values: Sequence[object]) -> None:
    repeated = [value for value in values if values.count(value) > 1]
    if repeated:
        raise InvalidArgument(f"{what} {repeated[0]} is given twice", "give each once")
