"""The options and the result of tuning: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sait_deploy.artifacts.points import PointRequest
from sait_deploy.artifacts.tuned_points import Measure
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.tune_limits import RECALLS, Limit
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.evaluation.tune_trials import GRID, PointFamily, Trial, check_grid
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME, find_runtime
from sait_deploy.system.option_values import check_options


class Search(StrEnum):
    """What may differ between the artifacts that a search compares."""

    PRUNE_AT = "prune-at"
    """The block that is pruned in: a quarter, a third, a half and two thirds of the depth."""

    SCORE = "score"
    """How importance is read off the attention."""


class Outcome(StrEnum):
    """What tuning came to. With all but the first, dense is recommended and no point is written."""

    TUNED = "tuned"
    """A point keeps to the limit with confidence, and kept to it on the check images."""

    NOTHING_PASSES = "nothing passes"
    """Not even the first candidate keeps to the limit with confidence, or none that does prunes anything."""

    TOO_FEW_IMAGES = "too few images"
    """Even a point without a single loss could not be shown to keep to the limit; nothing was run."""

    CHECK_FAILED = "check failed"
    """The point chosen is beyond the limit on the check images."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What to hold a point to, and how to look for it.

    Attributes:
        max_drop: points of top-1 that may be lost against dense; needs labels.
        max_disagreement: percent of images whose top-1 may be another than dense's. Of a model without a head, the mean
            of one less the cosine to dense's features, in percent: 0.5 asks for a mean cosine of 0.995.
        max_recall_drop: of a model without a head, percent of images whose nearest other image by dense may be missed.
        recall_at: among how many nearest images it is to be found: 1, 5 or 10.
        confidence: probability with which a point beyond the limit is not chosen, in [0.5, 1).
        splits: where the images come from.
        name: what to call the point.
        families: what runs along a sequence: mass, density, or both, of which the cheaper point is taken.
        grid: shares to try, from safe to cheap: of importance, or of tokens.
        min_keep: patch tokens that an image keeps at least at any mass tried: a peaked importance may leave too little.
        max_keep: likewise at most; None for all. Attention pads a batch to its longest image.
        search: in what artifacts may differ that are exported and compared; with none only the one given is tuned.
        runtime: what answers.
        precision: what it runs in; None for what the artifact is made for.
        threads: threads within one operator; None for all processors.
        device: where the runtime runs; see ``RunOptions``.
        batch: images asked about at once.

    Raises:
        InvalidArgument: not exactly one limit, or a value that cannot be.
    """

    max_drop: float | None = None
    max_disagreement: float | None = None
    max_recall_drop: float | None = None
    recall_at: int = 1
    confidence: float = 0.95
    splits: SplitOptions = field(default_factory=SplitOptions)
    name: str = "tuned"
    families: tuple[PointFamily, ...] = (PointFamily.MASS,)
    grid: tuple[float, ...] = GRID
    min_keep: int = 1
    max_keep: int | None = None
    search: tuple[Search, ...] = ()
    runtime: str = ONNXRUNTIME
    precision: RunPrecision | None = None
    threads: int | None = None
    device: str = DEFAULT_DEVICE
    batch: int = 32

    def __post_init__(self) -> None:
        check_options(self)
        _ = self.running
        given = [limit for limit in (self.max_drop, self.max_disagreement, self.max_recall_drop) if limit is not None]
        if len(given) != 1:
            raise InvalidArgument(
                "a point is tuned to one limit",
                "give either --max-drop or --max-disagreement, such as 0.5, or of embeddings --max-recall-drop",
            )
        if self.recall_at not in RECALLS or (self.recall_at != 1 and self.max_recall_drop is None):
            raise InvalidArgument(
                f"recall among {self.recall_at} nearest images is not measured here",
                f"give --max-recall-drop, and --recall-at one of {', '.join(map(str, RECALLS))}",
            )
        _ = self.limit(classes=0 if self.max_recall_drop is not None else 1)
        check_grid(self.grid)
        if not self.families or len(set(self.families)) != len(self.families):
            raise InvalidArgument(f"the families {', '.join(self.families) or 'none'} cannot be", "name each once")
        limits = PointRequest("tuned", 1.0, self.min_keep, self.max_keep)
        if PointFamily.MASS not in self.families and (limits.min_keep, limits.max_keep) != (1, None):
            raise InvalidArgument("limits to what images keep are for masses", "add masses to the families")
        if self.batch < 1:
            raise InvalidArgument(f"a batch of {self.batch} holds no image", "give a whole number from 1")
        runtime = find_runtime(self.runtime)
        runtime.check_device(self.device)
        if self.search and runtime.builder is not None:
            raise InvalidArgument(
                f"a search makes artifacts, and {self.runtime} runs engines that are built of them",
                "search with --runtime onnxruntime, then build an engine of what it finds",
            )

    @property
    def running(self) -> RunOptions:
        """The part that a runtime needs."""
        return RunOptions(self.threads, device=self.device, precision=self.precision)

    def limit(self, classes: int) -> Limit:
        """Returns the limit for a model with that many classes, 0 without a head.

        Raises:
            InvalidArgument: there is no top-1 to lose, or are no embeddings, or a limit or confidence that cannot be.
        """
        if self.max_drop is not None:
            if not classes:
                raise InvalidArgument(
                    "a model without a head has no top-1 to lose", "give --max-recall-drop or --max-disagreement"
                )
            return Limit(Measure.DROP, self.max_drop, self.confidence)
        if self.max_recall_drop is not None:
            if classes:
                raise InvalidArgument(
                    f"recall is of embeddings, and this model has {classes} classes",
                    "give --max-drop or --max-disagreement, or export with --task embed",
                )
            return Limit(RECALLS[self.recall_at], self.max_recall_drop, self.confidence)
        assert self.max_disagreement is not None
        measure = Measure.DISAGREEMENT if classes else Measure.COSINE
        return Limit(measure, self.max_disagreement, self.confidence)


@dataclass(frozen=True, slots=True)
class ImagesUsed:
    """One of the two sets: how many images, and where from."""

    images: int
    source: str


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What tuning found.

    Attributes:
        outcome: whether there is a point.
        message: what came of it, in a line.
        hint: what to do next, in a line.
        artifact: folder of the artifact that has the point; the one given where there is none.
        model: the model's name.
        limit: what points were held to.
        sequences: how many shared one less the confidence.
        images_needed: calibration images that it takes at least, without a loss among them.
        calibration: images chosen on.
        check: images checked on.
        trials: candidates in the order in which they were tried.
        chosen: the trial of the chosen point on the calibration images; None without one.
        checked: its trial on the check images; None where there was none.
        file: the point's file; None without one.
        notes: what a reader must know.
        exported: names of artifacts that a search left in the workspace beside the one with the point.
    """

    outcome: Outcome
    message: str
    hint: str
    artifact: Path
    model: str
    limit: Limit
    sequences: int
    images_needed: int
    calibration: ImagesUsed
    check: ImagesUsed
    trials: tuple[Trial, ...] = ()
    chosen: Trial | None = None
    checked: Trial | None = None
    file: Path | None = None
    notes: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
