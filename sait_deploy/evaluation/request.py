"""What an evaluation asks about which images, checked before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sait_deploy.artifacts.points import PointRequest
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.answerers import Identity
from sait_deploy.evaluation.options import ORACLE_MASSES, EvaluateOptions
from sait_deploy.evaluation.oracle import LEAST_IMAGES
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rivals import BenchTimes, ModelInBench, read_bench_times, smaller_sizes
from sait_deploy.evaluation.rows import of_density, of_point
from sait_deploy.evaluation.sources import Source
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.evaluation.trained import beyond_training
from sait_deploy.images.dataset import Dataset, evenly_spaced
from sait_deploy.tokens import kept_at_density


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask about which images.

    Attributes:
        dataset: the images.
        groupings: of these images.
        densities: densities to ask for, those of controls among them.
        points: masses and named points to ask for.
        times: of a benchmark, by which densities that take as long as each mass are found; None where none is named.
        notes: what a reader must know.
    """

    dataset: Dataset
    groupings: tuple[Grouping, ...]
    densities: tuple[Identity, ...]
    points: tuple[Identity, ...]
    times: BenchTimes | None
    notes: tuple[str, ...]

    @property
    def fixed(self) -> list[tuple[int, Identity]]:
        """Densities and points at which every image keeps the same number of patch tokens, behind that number."""
        every = [(identity.point, identity) for identity in (*self.densities, *self.points)]
        return [(point.max_keep, one) for point, one in every if point is not None and one.kind is Kind.DENSITY]

    @property
    def masses(self) -> list[Identity]:
        """Points at which every image keeps its own number."""
        return [identity for identity in self.points if identity.kind is Kind.MASS]


def make_request(
    source: Source, dataset: Dataset, options: EvaluateOptions, groupings: Sequence[Grouping], classes: int
) -> Request:
    """Works out what to ask a source, and about which images; ``classes`` says how many answers are chosen from.

    Raises:
        InvalidArgument: the source cannot be asked that, a label is none of the model's, a grouping is of other
            images, or there are none.
        ArtifactError: the benchmark's file cannot be read.
    """
    _check_images(classes, dataset, groupings)
    if options.oracle:
        _check_oracle(source, len(dataset.images) if options.limit is None else min(options.limit, len(dataset.images)))
    _check_sizes(source, options.lower_resolutions or ())
    notes: list[str] = []
    patches, total, limit = source.model.geometry.patch_tokens, len(dataset.images), options.limit
    if limit is not None and limit < total:
        notes.append(f"these are {limit} of {total} images, evenly spaced")
        chosen = evenly_spaced(total, limit)
        dataset, groupings = dataset.sample(limit), [grouping.part(chosen) for grouping in groupings]
    points = tuple(of_point(request, patches, source.threshold) for request in _requests(source, options))
    masses = [point for point in points if point.kind is Kind.MASS]
    times = _times(source, options, masses, notes)
    densities = _densities(source, options)
    notes += beyond_training(source.training, (*densities, *points), patches)
    return Request(dataset, tuple(groupings), densities, points, times, tuple(notes))


def _check_images(classes: int, dataset: Dataset, groupings: Sequence[Grouping]) -> None:
    total, labels = len(dataset.images), dataset.labels
    if not total:
        raise InvalidArgument("there are no images to evaluate on", "name a folder with images")
    for grouping in groupings:
        if len(grouping.of) != total:
            raise InvalidArgument(f"the grouping by {grouping.name} is of {len(grouping.of)} images, not of {total}")
    wrong = [] if labels is None or not classes else [int(one) for one in labels if not 0 <= one < classes]
    if wrong:
        raise InvalidArgument(
            f"label {wrong[0]} is not among the model's {classes} classes", "check the images' folder"
        )


def _check_oracle(source: Source, images: int) -> None:
    if source.pruning is None or source.density is not None:
        raise InvalidArgument(
            "--oracle asks for many densities, and the operating point of this artifact is fixed",
            "evaluate an adaptive one, exported with --mass, or a model",
        )
    if not source.model.classes:
        raise InvalidArgument("--oracle compares answers, and the model is headless", "evaluate one with a head")
    if images < LEAST_IMAGES:
        raise InvalidArgument(
            f"--oracle needs {LEAST_IMAGES} images or more, not {images}",
            "fewer say nothing about single images' needs",
        )


def _check_sizes(source: Source, heights: Sequence[int]) -> None:
    model = source.model
    known = [size[0] for size in smaller_sizes(model.image_size, model.patch_size)]
    for height in heights:
        if height not in known:
            below = f"no multiple of {model.patch_size[0]} below {model.image_size[0]} pixels"
            raise InvalidArgument(
                f"lower resolution {height} is {below}", f"it can be {', '.join(map(str, known)) or 'none'}"
            )


def _requests(source: Source, options: EvaluateOptions) -> tuple[PointRequest, ...]:
    """Returns the points to ask for."""
    if not options.points:
        if options.densities:
            return ()
        further = ORACLE_MASSES if options.oracle else ()
        return tuple({point.name: point for point in (*further, *source.default_points)}.values())
    if source.pruning is None or source.density is not None:
        raise InvalidArgument(
            f"point {options.points[0].name!r} cannot be asked of an artifact whose operating point is fixed",
            "evaluate an adaptive one, exported with --mass",
        )
    return options.points


def _densities(source: Source, options: EvaluateOptions) -> tuple[Identity, ...]:
    """Returns the densities to ask for."""
    named = options.densities if options.densities or options.points or options.oracle else source.default_densities
    asked, patches, own = dict.fromkeys((*named, *(options.controls or ()))), _patches(source), source.density
    if asked and source.pruning is None:
        raise InvalidArgument("a dense artifact has no densities", "evaluate one exported with --density or --mass")
    if own is None:
        return tuple(of_density(density, patches) for density in asked)
    for density in asked:
        if kept_at_density(density, patches) != kept_at_density(own, patches):
            raise InvalidArgument(
                f"density {density} cannot be asked of an artifact of density {own}",
                "leave it out, or evaluate an adaptive one, exported with --mass",
            )
    return (of_density(own, patches),)


def _times(source: Source, options: EvaluateOptions, masses: Sequence[Identity], notes: list[str]) -> BenchTimes | None:
    """Returns the times of the benchmark named, which has measured every mass and densities beside them."""
    path, pruning = options.bench_report, source.pruning
    if path is None:
        return None
    if pruning is None or not masses:
        raise InvalidArgument("a benchmark's times are for masses, and no mass is evaluated", "leave the benchmark out")
    model = ModelInBench(source.model.name, source.weights.sha256, source.model.geometry, *pruning, source.threshold)
    times = read_bench_times(path, model, options.bench_runtime, options.bench_batch, source.runtime, source.precision)
    for identity in masses:
        assert identity.point is not None
        times.timed(identity.point)
    notes.append(
        f"equal time is that of {path.name} at batch {times.batch} on {times.group}; where these images keep more or"
        " fewer tokens than those that were timed, a mass's time is moved by what densities take for the difference"
    )
    return times


def _patches(source: Source) -> int:
    return source.model.geometry.patch_tokens
