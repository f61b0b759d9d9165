"""How an evaluation runs: two passes over the images.

The first asks what is known beforehand; the second asks the densities and image sizes that cost as much as the masses,
whose cost the first pass has found.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import SaitError
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.answers import Answers, Collector
from sait_deploy.evaluation.class_embeddings import ClassEmbeddings
from sait_deploy.evaluation.embedding_notes import embedding_notes
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.oracle import Pair, oracle_of
from sait_deploy.evaluation.oracle_results import Oracle
from sait_deploy.evaluation.request import make_request
from sait_deploy.evaluation.results import SCHEMA_VERSION, Basis, Evaluation, Kind
from sait_deploy.evaluation.rivals import (
    density_of_equal_macs,
    resized_geometry,
    resolution_of_equal_macs,
    smaller_sizes,
)
from sait_deploy.evaluation.rows import Answered, Truth, of_count, of_density, of_size, ordered, random_beside
from sait_deploy.evaluation.sources import DENSE, ModelSource, Source
from sait_deploy.evaluation.strata import Grouping, by_class, by_kept
from sait_deploy.images.dataset import Dataset
from sait_deploy.reports.table import Note, Severity
from sait_deploy.system.machine import environment
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import dense_macs, kept_at_density, pruned_macs

_MOST_CLASSES: Final = 100
"""Classes up to which each is a group of images by itself."""


class EvaluationRun:
    """One evaluation.

    Args:
        source: what answers.
        dataset: the images.
        options: what to ask.
        progress: reports what is being done.
        groupings: of the images, given by the caller.
        classes: what a model without a head classifies by; None where it does not.

    Raises:
        InvalidArgument: the source cannot be asked that, a label is none of the model's, a grouping is of other images.
        ArtifactError: the benchmark's file cannot be read.
    """

    def __init__(
        self,
        source: Source,
        dataset: Dataset,
        options: EvaluateOptions,
        progress: Progress,
        groupings: Sequence[Grouping],
        classes: ClassEmbeddings | None = None,
    ) -> None:
        self._source, self._options, self._progress, self._classes = source, options, progress, classes
        self._embeds = not source.model.classes
        self._of_classes = source.model.classes if classes is None else len(classes.labels)
        self._request = make_request(source, dataset, options, groupings, self._of_classes)
        self._patches = source.model.geometry.patch_tokens
        self._notes: list[Note] = []
        self._answerers: dict[str, Answerer] = {}
        self._answers: dict[str, Answers] = {}
        self._waiting: list[Answerer] = []
        self._pairs: list[tuple[str, str, Basis]] = []
        self._of_count = {self._patches: DENSE.id}
        self._steps: list[str] = []
        self._equal_macs: dict[str, str] = {}

    def report(self) -> Evaluation:
        """Asks everything and returns what was found."""
        in_torch = self._in_torch()
        collector = Collector(self._request.dataset, self._options.batch, self._progress, self._classes)
        self._ask_known(in_torch)
        self._collect(collector, "pass 1")
        self._ask_matched(in_torch)
        self._collect(collector, "pass 2, rivals of masses")
        return self._written()

    def _in_torch(self) -> ModelSource | None:
        """Returns the model in torch where controls or lower resolutions are asked for; notes why it cannot be had."""
        sizes, prunes = self._options.lower_resolutions, bool(self._request.densities or self._request.points)
        has_controls = bool(self._options.controls) or (self._has_own_controls and prunes)
        if not has_controls and (sizes == () or (sizes is None and not prunes)):
            return None
        try:
            return self._source.in_torch()
        except SaitError as error:
            what = ["controls"] * has_controls + ["lower resolutions"] * (sizes != ())
            hint = f" ({error.hint})" if error.hint else ""
            self._notes.append(Note(f"{' and '.join(what)} are left out: {error.message}{hint}", Severity.WARNING))
            return None

    @property
    def _has_own_controls(self) -> bool:
        """Whether random tokens stand beside every point: of embeddings, cosines alone look good of nearly anything."""
        return self._embeds and self._options.controls is None

    def _ask_known(self, in_torch: ModelSource | None) -> None:
        """Queues what can be asked before anything was answered."""
        self._ask(self._source.dense())
        for kept, identity in self._request.fixed:
            self._of_count.setdefault(kept, identity.id)
        for identity in (*self._request.densities, *self._request.points):
            self._ask(self._source.at(identity))
        for density in self._options.oracle:
            self._steps.append(self._ask_count(kept_at_density(density, self._patches)))
        if in_torch is None:
            return
        self._ask_controls(in_torch)
        for height in self._options.lower_resolutions or ():
            model = self._source.model
            size = next(s for s in smaller_sizes(model.image_size, model.patch_size) if s[0] == height)
            self._ask_size(in_torch, size)
        for kept, identity in self._request.fixed:
            self._ask_random(in_torch, identity, kept)
            self._ask_rival(in_torch, identity, self._macs_at(kept))

    def _ask_controls(self, in_torch: ModelSource) -> None:
        for density in self._options.controls or ():
            for kind in (Kind.RANDOM, Kind.LEAST_IMPORTANT):
                identity = of_density(density, self._patches, kind)
                self._ask(in_torch.control(identity))
                own = self._of_count[kept_at_density(density, self._patches)]
                self._pairs.append((own, identity.id, Basis.EQUAL_MACS))

    def _ask_random(self, in_torch: ModelSource, identity: Identity, kept: int) -> None:
        """Queues as many tokens at random, where that is done beside every point, and the comparison with it."""
        if not self._has_own_controls or kept == self._patches:
            return
        control = random_beside(self._of_count.get(kept, identity.id), kept)
        if control.id not in self._answerers:
            self._ask(in_torch.control(control))
        self._pairs.append((identity.id, control.id, Basis.EQUAL_MACS))

    def _ask_matched(self, in_torch: ModelSource | None) -> None:
        """Queues what costs the same as masses, whose cost is known by now."""
        pruning, geometry = self._source.pruning, self._source.model.geometry
        for identity in self._request.masses:
            assert pruning is not None
            macs = float(self._answers[identity.id].macs.mean())
            kept = density_of_equal_macs(geometry, pruning[1], macs)
            self._equal_macs[identity.id] = self._ask_count(kept)
            self._pairs.append((identity.id, self._equal_macs[identity.id], Basis.EQUAL_MACS))
            if in_torch is not None:
                self._ask_random(in_torch, identity, kept)
                self._ask_rival(in_torch, identity, macs)
            self._ask_as_long(identity)

    def _ask_as_long(self, mass: Identity) -> None:
        """Queues the density that takes as long as a mass on these images, where a benchmark tells."""
        if self._request.times is None:
            return
        assert mass.point is not None
        kept_mean = float(self._answers[mass.id].kept.mean())
        kept = self._request.times.density_of_equal_time(mass.point, kept_mean)
        if kept is None:
            text = f"every density measured takes longer than {mass.label} on these images: none is of equal time"
            self._notes.append(Note(text, Severity.WARNING))
            return
        self._pairs.append((mass.id, self._ask_count(kept), Basis.EQUAL_TIME))

    def _ask_rival(self, in_torch: ModelSource, identity: Identity, macs: float) -> None:
        """Queues the dense model on smaller images that costs as much, and the comparison with it."""
        model, sizes = self._source.model, self._options.lower_resolutions
        if sizes == ():
            return
        if sizes is None:
            size = resolution_of_equal_macs(model.geometry, model.image_size, model.patch_size, macs)
        else:
            offered = [s for s in smaller_sizes(model.image_size, model.patch_size) if s[0] in sizes]
            size = next((s for s in offered if self._macs_of(s) >= macs), None)
        if size is None:
            self._notes.append(Note(f"no lower resolution has as many multiply-accumulates as {identity.label}"))
            return
        self._pairs.append((identity.id, self._ask_size(in_torch, size), Basis.EQUAL_MACS))

    def _ask_size(self, in_torch: ModelSource, size: tuple[int, int]) -> str:
        """Returns the id of the dense model on images of that size, which is queued if it was not."""
        identity = of_size(size)
        if identity.id not in self._answerers:
            self._ask(in_torch.on_smaller_images(identity, size))
        return identity.id

    def _ask_count(self, kept: int) -> str:
        """Returns the id of what keeps so many tokens of every image, which is queued if it was not."""
        if kept not in self._of_count:
            self._of_count[kept] = of_count(kept).id
            self._ask(self._source.at(of_count(kept)))
        return self._of_count[kept]

    def _ask(self, answerer: Answerer) -> None:
        self._answerers[answerer.identity.id] = answerer
        self._waiting.append(answerer)

    def _collect(self, collector: Collector, name: str) -> None:
        self._answers |= collector.collect(self._waiting, name)
        self._waiting = []

    def _macs_at(self, kept: int) -> int:
        assert self._source.pruning is not None
        return pruned_macs(self._source.model.geometry, self._source.pruning[1], kept)

    def _macs_of(self, size: tuple[int, int]) -> int:
        patch = self._source.model.patch_size
        return dense_macs(resized_geometry(self._source.model.geometry, size[0] // patch[0] * (size[1] // patch[1])))

    def _written(self) -> Evaluation:
        source, options, dataset = self._source, self._options, self._request.dataset
        dense = self._answers[DENSE.id]
        truth = Truth(dataset.labels, dense, self._of_classes)
        answered = {name: Answered(one, self._answers[name]) for name, one in self._answerers.items()}
        pairs = list(dict.fromkeys(self._pairs)) if truth.can_judge else []
        groupings = self._all_groupings()
        rows = ordered(list(answered.values()))
        known = map(Note, (*self._request.notes, *source.notes))
        return Evaluation(
            schema_version=SCHEMA_VERSION,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            model=source.model.name,
            weights_sha256=source.weights.sha256,
            trained_sparse=source.weights.trained_sparse,
            score="none" if source.pruning is None else source.pruning[0].value,
            prune_at=0 if source.pruning is None else source.pruning[1],
            runtime=source.runtime,
            precision=source.precision,
            images=len(dataset.images),
            image_source=dataset.source,
            labelled=dataset.labels is not None,
            environment=environment(options.threads) | source.environment,
            options=_described(options),
            rows=tuple(truth.row(one) for one in rows),
            comparisons=tuple(truth.comparison(answered[one], answered[other], basis) for one, other, basis in pairs),
            strata=tuple(truth.strata(rows, groupings)),
            notes=tuple(dict.fromkeys([*self._warnings(), *known, *self._notes])),
            oracle=self._oracle(truth) if self._options.oracle else None,
        )

    def _oracle(self, truth: Truth) -> Oracle:
        steps = [self._answers[name] for name in dict.fromkeys(self._steps) if name != DENSE.id]
        pairs = [
            Pair(mass, self._answers[mass], density, self._answers[density])
            for mass, density in self._equal_macs.items()
        ]
        return oracle_of(truth, sorted(steps, key=lambda one: int(one.kept[0])), pairs)

    def _all_groupings(self) -> list[Grouping]:
        labels, found = self._request.dataset.labels, list(self._request.groupings)
        if labels is not None:
            own = self._source.model.labels if self._classes is None else self._classes.labels
            classes = by_class(labels, self._request.dataset.classes or own)
            if len(classes.groups) <= _MOST_CLASSES:
                found.append(classes)
            else:
                self._notes.append(Note(f"{len(classes.groups)} classes are too many to list each by itself"))
        quarters = [by_kept(self._answers[mass.id].kept, mass.label) for mass in self._request.masses]
        return found + [grouping for grouping in quarters if grouping is not None]

    def _warnings(self) -> list[Note]:
        """Returns what a reader must know of the weights and the images."""
        found = []
        if self._source.weights.source is WeightsSource.RANDOM:
            text = "the weights are random: nothing here says how accurate a trained model is"
            found.append(Note(text, Severity.WARNING))
        if self._embeds:
            found += embedding_notes(self._request.dataset, self._classes)
        if self._of_classes and self._request.dataset.labels is None:
            source = self._request.dataset.source
            found.append(Note(f"the images have no labels ({source}): answers are compared with dense's"))
        return found


def _described(options: EvaluateOptions) -> dict[str, str]:
    """Returns how it was run, name to value."""
    found = {"batch": str(options.batch)}
    if options.bench_report is not None:
        found["benchmark"] = options.bench_report.name
    if options.limit is not None:
        found["images at most"] = str(options.limit)
    if options.class_embeddings is not None:
        found["class embeddings"] = options.class_embeddings.name
    return found
