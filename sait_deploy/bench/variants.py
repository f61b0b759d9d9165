"""What a benchmark measures: an artifact at an operating point, each a row of the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import (
    DEFAULT_CHOICE,
    PointChoice,
    check_mass,
    mass_point,
    named_point,
    parse_mass,
    threshold_point,
)
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import Pruning
from sait_deploy.errors import InvalidArgument
from sait_deploy.system.option_values import check_options
from sait_deploy.tokens import OperatingPoint, Score, default_prune_at


@dataclass(frozen=True, slots=True)
class RunnableVariant:
    """What is measured: an artifact at an operating point.

    Attributes:
        id: unique in a report.
        label: its short name in tables.
        artifact: what runs.
        choice: what the runner is asked for.
        point: the same resolved; None of dense, and where numbers of tokens are forced.
        kept: kept tokens to force.
    """

    id: str
    label: str
    artifact: Artifact
    choice: PointChoice = DEFAULT_CHOICE
    point: OperatingPoint | None = None
    kept: KeptDistribution | None = None

    @property
    def counts_tokens(self) -> bool:
        """Whether how many tokens are kept follows from the images."""
        pruning = self.artifact.manifest.pruning
        return pruning is not None and self.point is not None and pruning.counts_differ(self.point)

    @property
    def pruning(self) -> Pruning | None:
        """How it prunes, for the report."""
        pruning = self.artifact.manifest.pruning
        if pruning is None:
            return None
        return Pruning(pruning.density, self.point, self.kept, pruning.score, pruning.prune_at, pruning.threshold)

    def choices(self, images: int) -> _Choices:
        """Returns the operating points of that many images."""
        patches = self.artifact.manifest.model.geometry.patch_tokens
        return _Choices(self.choice, None if self.kept is None else self.kept.counts(images, patches))


@dataclass(frozen=True, slots=True)
class _Choices:
    choice: PointChoice
    counts: NDArray[np.int64] | None

    def of(self, part: slice | NDArray[np.intp]) -> PointChoice:
        """Returns the operating points of some of the images, by their place or their numbers."""
        if self.counts is None:
            return self.choice
        return PointChoice(None, 1.0, self.counts[part], self.counts[part])


@dataclass(frozen=True, slots=True)
class Sweep:
    """Operating points to measure of adaptive artifacts; with none asked for, their named points.

    A mass takes the place of the default point's, whose limits stay.
    """

    masses: tuple[float, ...] = ()
    points: tuple[str, ...] = ()
    kept: tuple[KeptDistribution, ...] = ()

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def parse(cls, masses: Iterable[str], points: Iterable[str], kept: Iterable[str]) -> Sweep:
        """Reads masses, and kept tokens as ``MEAN:SD``.

        Raises:
            InvalidArgument: one is not of that form.
        """
        return cls(tuple(map(parse_mass, masses)), tuple(points), tuple(map(KeptDistribution.parse, kept)))

    def __bool__(self) -> bool:
        return bool(self.masses or self.points or self.kept)


NO_SWEEP: Final = Sweep()


def runnable_variants(artifacts: Sequence[Artifact], sweep: Sweep) -> list[RunnableVariant]:
    """Returns what to measure, in the artifacts' order.

    Raises:
        InvalidArgument: a point that an artifact has not, or a sweep where no artifact is adaptive.
    """
    if sweep and not any(artifact.manifest.form is Form.ADAPTIVE for artifact in artifacts):
        raise InvalidArgument(
            "--mass, --point and --kept are for adaptive artifacts, and none of these is", "export one with --mass"
        )
    variants: list[RunnableVariant] = []
    for artifact in artifacts:
        if artifact.manifest.form is Form.ADAPTIVE:
            variants += _of_adaptive(artifact, sweep)
        else:
            variants.append(_of_fixed(artifact))
    return variants


def _of_fixed(artifact: Artifact) -> RunnableVariant:
    manifest = artifact.manifest
    if manifest.pruning is None:
        return RunnableVariant(manifest.id, "dense", artifact)
    label = f"density {manifest.pruning.density}{_further_label(manifest)}"
    return RunnableVariant(manifest.id, label, artifact, point=named_point(manifest, None))


def _of_adaptive(artifact: Artifact, sweep: Sweep) -> list[RunnableVariant]:
    manifest, patches = artifact.manifest, artifact.manifest.model.geometry.patch_tokens
    assert manifest.pruning is not None
    names = sweep.points or (() if sweep else tuple(info.name for info in manifest.pruning.points))
    chosen = {_point_label(manifest, name): (PointChoice(point=name), named_point(manifest, name)) for name in names}
    for mass in sweep.masses:
        point = dataclasses.replace(named_point(manifest, None), mass=check_mass(mass))
        # A label says the whole point, so one that is there already is the same point.
        chosen.setdefault(_mass_label(point, patches), (PointChoice(None, mass), point))
    variants = [
        RunnableVariant(f"{manifest.id}@{label}", label + _further_label(manifest, label), artifact, choice, point)
        for label, (choice, point) in chosen.items()
    ]
    for kept in dict.fromkeys(sweep.kept):
        if kept.mean > patches:
            raise InvalidArgument(
                f"--kept {kept.mean:g}:{kept.sd:g} is for more than the {patches} patch tokens that an image has",
                f"give a mean of at most {patches}",
            )
        label = f"kept {kept.mean:.12g} ± {kept.sd:.12g}"
        further = _further_label(manifest, label)
        variants.append(RunnableVariant(f"{manifest.id}@{label}", label + further, artifact, kept=kept))
    return variants


def _point_label(manifest: Manifest, name: str) -> str:
    """Returns a point's name, spelt out where export made it from the mass."""
    point = named_point(manifest, name)
    patches = manifest.model.geometry.patch_tokens
    if name == mass_point(point.mass).name:
        return _mass_label(point, patches)
    threshold = None if manifest.pruning is None else manifest.pruning.threshold
    if threshold is not None and (name, point.mass) == (threshold_point(threshold).name, 1):
        return _threshold_label(threshold) + _limits_label(point, patches)
    return name


def _threshold_label(threshold: float) -> str:
    return f"threshold {threshold:.12g}"


def _mass_label(point: OperatingPoint, patches: int) -> str:
    return f"mass {point.mass:.12g}{_limits_label(point, patches)}"


def _limits_label(point: OperatingPoint, patches: int) -> str:
    return "" if (point.min_keep, point.max_keep) == (1, patches) else f", {point.min_keep} to {point.max_keep}"


def _further_label(manifest: Manifest, label: str = "") -> str:
    """Returns what of an artifact's pruning is not the default, and not in the label."""
    pruning, further = manifest.pruning, ""
    assert pruning is not None
    if pruning.prune_at != default_prune_at(manifest.model.geometry.depth):
        further += f", block {pruning.prune_at}"
    if pruning.score is not Score.MEAN:
        further += f", {pruning.score} score"
    if pruning.threshold is not None and not label.startswith(_threshold_label(pruning.threshold)):
        further += f", {_threshold_label(pruning.threshold)}"
    return further
