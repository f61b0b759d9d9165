"""What features of composites have right: which cut-out, which group of them, and neighbours of the same cut-out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_folds import Fold
from benchmarks.selection_parts import Floats, by_clusters
from sait_deploy.evaluation.stats import paired_difference

LEAST_IN_GROUP: Final = 8
"""Cut-outs of a group that is told from others; a third of them is held out."""
C: Final = 100.0
"""Inverse strength of the probes' penalty, on features of unit length."""
NEIGHBOURS: Final = (1, 5)


@dataclass(frozen=True, slots=True)
class Answered:
    """What one way of answering has right, of all composites that were asked about.

    Attributes:
        measures: by name, whether each answer is right, bool [n].
        cutout: the number of the cut-out of each answer, by the same name, int64 [n].
        kept: patch tokens kept, int32 [n].
        macs: mean multiply-accumulates.
    """

    measures: dict[str, NDArray[np.bool_]]
    cutout: dict[str, NDArray[np.int64]]
    kept: NDArray[np.int32]
    macs: float


class Judge:
    """Probes and a gallery made of dense features of the folds that one fold is not in.

    Args:
        folds: all folds.
        dense: each fold's dense features, [n, D] of unit length.
        groups: of each cut-out.
        fold: number of the fold that is asked about.
    """

    def __init__(self, folds: Sequence[Fold], dense: Sequence[Floats], groups: Sequence[str], fold: int) -> None:
        from sklearn.linear_model import LogisticRegression

        others = [one for one in folds if one.number != fold]
        self._gallery = np.concatenate([dense[one.number] for one in others])
        self._instance = np.concatenate([one.instance for one in others])
        self._own = folds[fold].instance
        known = sorted(group for group in set(groups) if groups.count(group) >= LEAST_IN_GROUP)
        self._group = np.array([known.index(name) if name in known else -1 for name in groups])
        self._held_out = np.arange(len(groups)) % len(folds) == fold
        learned = (self._group[self._instance] >= 0) & ~self._held_out[self._instance]
        probe = LogisticRegression(C=C, max_iter=300)
        self._probe = probe.fit(self._gallery, self._instance)
        groups_of = self._group[self._instance][learned]
        self._group_probe = LogisticRegression(C=C, max_iter=300).fit(self._gallery[learned], groups_of)

    def right(self, features: Floats, asked: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
        """Returns for each measure whether the answers to these composites of the fold are right."""
        wanted = self._own[asked]
        nearest = np.argsort(-features @ self._gallery.T, axis=1, kind="stable")[:, : max(NEIGHBOURS)]
        hits = self._instance[nearest] == wanted[:, None]
        grouped = self.grouped(asked)
        found = {"instance": self._probe.predict(features) == wanted}
        found["group"] = self._group_probe.predict(features[grouped]) == self._group[wanted[grouped]]
        return found | {f"recall@{k}": hits[:, :k].any(axis=1) for k in NEIGHBOURS}

    def grouped(self, asked: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Returns which of these composites show held-out cut-outs of the groups told apart."""
        wanted = self._own[asked]
        chosen: NDArray[np.bool_] = (self._group[wanted] >= 0) & self._held_out[wanted]
        return chosen


def joined(parts: Sequence[Answered]) -> Answered:
    """Returns the answers to all folds together."""
    measures = {name: np.concatenate([one.measures[name] for one in parts]) for name in parts[0].measures}
    cutout = {name: np.concatenate([one.cutout[name] for one in parts]) for name in parts[0].cutout}
    return Answered(
        measures, cutout, np.concatenate([one.kept for one in parts]), float(np.mean([one.macs for one in parts]))
    )


def differences(one: Answered, other: Answered) -> dict[str, Any]:
    """Returns for each measure what the first gains over the second, points: by answer, and by cut-out.

    Composites of one cut-out resemble each other, so the interval over cut-outs is the one to believe.
    """
    return {
        name: {
            "by_answer": dataclasses.asdict(paired_difference(right, other.measures[name])),
            "by_cutout": dataclasses.asdict(by_clusters(right, other.measures[name], one.cutout[name])),
        }
        for name, right in one.measures.items()
    }
