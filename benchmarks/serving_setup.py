"""What the parts of the server's benchmark share: artifacts, images, numbers of tokens, and each kind on paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_artifacts import SHARES, Artifacts
from benchmarks.serving_client import Client, Target
from benchmarks.serving_costs import Cost, ModelCost
from benchmarks.serving_load import Kind
from benchmarks.serving_scale import Setting
from benchmarks.serving_simulation import Machine
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.serving.batching import BatchLimits

BATCH: Final = 8
SPREAD: Final = 25 / 196
"""Standard deviation of the numbers of tokens that requests ask to keep, as a share of all patch tokens."""

QUEUE: Final = 64
"""Images that may wait; an image behind as many would miss the target anyway."""

_IMAGES: Final = 16
_COUNTS: Final = 256


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts share.

    Attributes:
        artifacts: what is served.
        images: float32 [n, C, H, W]; their content does not matter, as what they keep is forced.
        counts: int64 [n], patch tokens that requests ask to keep.
    """

    artifacts: Artifacts
    images: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, artifacts: Artifacts) -> Bench:
        """Returns it for artifacts that are there."""
        info = artifacts.dense.manifest.model
        shape = (_IMAGES, artifacts.dense.manifest.preprocessing.channels, *info.image_size)
        patches = info.geometry.patch_tokens
        counts = KeptDistribution(SHARES["quality"] * patches, SPREAD * patches).counts(_COUNTS, patches)
        return cls(artifacts, np.random.default_rng(0).standard_normal(shape, np.float32), counts)

    @property
    def points(self) -> dict[str, int]:
        """The load's points, by the patch tokens that each keeps."""
        points = self.artifacts.adaptive.manifest.operating_points
        return {name: points[name].max_keep for name in SHARES if name in points}

    @property
    def measured(self) -> dict[str, Artifact]:
        """The artifacts by the kind whose costs they have; batches by count cost what those by tokens do."""
        found = {Kind.DENSE: self.artifacts.dense, Kind.DENSITY: self.artifacts.density}
        return {kind.value: artifact for kind, artifact in (found | {Kind.BY_TOKENS: self.artifacts.adaptive}).items()}

    def client(self, address: str, kind: Kind) -> Client:
        """Returns a client of one kind."""
        chosen = {Kind.DENSE: self.artifacts.dense, Kind.DENSITY: self.artifacts.density}
        artifact = chosen.get(kind, self.artifacts.adaptive)
        forced = kind in (Kind.BY_COUNT, Kind.BY_TOKENS)
        return Client(Target(address, artifact.path.name, forced), self.images, self.counts)

    def limits(self, kind: Kind) -> BatchLimits:
        """Returns how large a kind's batches may be: the server's defaults, but by count."""
        tokens = BATCH * self.artifacts.dense.manifest.model.geometry.tokens
        return BatchLimits(tokens, BATCH if kind is Kind.BY_COUNT else None)


def settings_of(
    bench: Bench, measured_costs: Mapping[str, Any], measured: Mapping[str, Any], points: Mapping[str, int]
) -> dict[Kind, Setting]:
    """Returns each kind on paper.

    What a request costs beside its batches is found from dense's capacity alone, and then holds for all kinds.

    Args:
        bench: what was measured.
        measured_costs: of batches, as the part ``costs`` has them.
        measured: the part ``load``.
        points: the load's from dear to cheap, by the patch tokens that each keeps.
    """
    geometry = bench.artifacts.dense.manifest.model.geometry
    density = bench.artifacts.density.manifest.default_point
    assert density is not None
    model_costs = {Kind(name): cost_of(cost) for name, cost in measured_costs["costs_seconds"].items()}
    capacity = measured["dense_capacity_per_second"]
    dense = model_costs[Kind.DENSE].trunk.seconds(BATCH, BATCH * geometry.tokens) / BATCH
    beside = max(0.0, 1 / capacity - dense)
    target, found = float(measured_costs["target_seconds"]), {}
    for kind in Kind:
        fixed = {Kind.DENSE: geometry.patch_tokens, Kind.DENSITY: density.point.max_keep}
        counts = np.array([fixed[kind]]) if kind in fixed else bench.counts
        own_points = points if kind is Kind.LOAD_AWARE else {}
        cost = model_costs.get(kind, model_costs[Kind.BY_TOKENS])
        machine = Machine(cost, beside, bench.limits(kind), QUEUE, geometry.prefix_tokens, own_points, target)
        found[kind] = Setting(machine, counts, target)
    return found


def cost_of(plain: Mapping[str, Any]) -> ModelCost:
    """Reads a cost from a result file."""
    stem = None if plain["stem"] is None else Cost(**plain["stem"])
    return ModelCost(stem, Cost(**plain["trunk"]), plain["error"])
