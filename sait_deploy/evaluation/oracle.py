"""How many tokens each image needs, and what choosing them image by image could gain: a bound for every rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sait_deploy.evaluation.answers import Answers
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_results import Best, MassInBound, Oracle, Step
from sait_deploy.evaluation.rows import Truth
from sait_deploy.evaluation.stats import paired_difference, rank_correlation

LEAST_IMAGES: Final = 200
"""Below, intervals are wider than any gain that was found."""


class Pair(NamedTuple):
    """A mass and the density that costs as much, each by the id of its row."""

    mass: str
    mass_answers: Answers
    density: str
    density_answers: Answers


class Ladder:
    """Answers at rising numbers of tokens, the same for all images at each step; the last step is dense.

    Args:
        truth: what answers are compared with.
        steps: answers with as many tokens kept of every image, fewest first.
    """

    def __init__(self, truth: Truth, steps: Sequence[Answers]) -> None:
        self.truth, self.steps = truth, (*steps, truth.dense)
        self.kept = np.array([int(step.kept[0]) for step in self.steps])
        self.macs = np.array([float(step.macs[0]) for step in self.steps])
        self.right = np.stack([truth.right(step) for step in self.steps])
        self.needed_for_dense = _from_where_on(np.stack([truth.agrees(step) for step in self.steps]))
        self.needed_for_right = _from_where_on(self.right)

    def keeping(self, mean_macs: float) -> NDArray[np.bool_]:
        """Returns which images are right where as many as possible keep dense's answer, at that mean cost or less.

        No label is known: an image gets the tokens it needs for dense's answer, be it right or wrong.
        """
        return self._right(self._chosen(self.needed_for_dense, mean_macs))

    def knowing(self, mean_macs: float) -> NDArray[np.bool_]:
        """Returns which images are right where labels say what to give to which, at that mean cost or less.

        It takes chance along: what the first step has right although dense has it wrong stays there.
        """
        return self._right(self._chosen(np.where(self.right[0], 0, self.needed_for_right), mean_macs))

    def _chosen(self, needed: NDArray[np.intp], mean_macs: float) -> NDArray[np.intp]:
        """Returns a step for each image: what it needs, those that need least first, as long as the budget lasts.

        The others get the first step, as do those that no step suffices for.
        """
        chosen = np.zeros(needed.size, dtype=np.intp)
        wanting = np.flatnonzero((needed > 0) & (needed < len(self.steps)))
        extra = self.macs[needed[wanting]] - self.macs[0]
        order = np.argsort(extra, kind="stable")
        served = wanting[order[np.cumsum(extra[order]) <= (mean_macs - self.macs[0]) * needed.size]]
        chosen[served] = needed[served]
        return chosen

    def _right(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.right[chosen, np.arange(chosen.size)]
        return found


def oracle_of(truth: Truth, steps: Sequence[Answers], pairs: Sequence[Pair]) -> Oracle:
    """Returns the bound.

    Args:
        truth: labels, or dense's answers where there are none, and dense's answers.
        steps: answers of fixed numbers of tokens, fewest first, without dense's.
        pairs: masses, and densities of equal cost; masses that cost less than the first step are left out.
    """
    ladder = Ladder(truth, steps)
    needed = ladder.kept[ladder.needed_for_dense]
    affordable = [pair for pair in pairs if pair.mass_answers.macs.mean() >= ladder.macs[0]]
    return Oracle(
        needed_mean=round(float(needed.mean()), 2),
        steps=tuple(_step(ladder, number) for number in range(len(ladder.steps))),
        masses=tuple(_mass(ladder, pair) for pair in affordable),
    )


def _step(ladder: Ladder, number: int) -> Step:
    right, macs = ladder.right[number], float(ladder.macs[number])
    labelled = ladder.truth.labels is not None
    return Step(
        kept=int(ladder.kept[number]),
        macs=round(macs),
        stays_percent=_percent(ladder.needed_for_dense <= number),
        stays_right_percent=_percent(ladder.needed_for_right <= number) if labelled else None,
        right_percent=_percent(right),
        best=_best(ladder.keeping(macs), right),
        best_by_label=_best(ladder.knowing(macs), right) if labelled else None,
    )


def _best(best: NDArray[np.bool_], density: NDArray[np.bool_]) -> Best:
    return Best(_percent(best), paired_difference(best, density))


def _mass(ladder: Ladder, pair: Pair) -> MassInBound:
    answers, truth = pair.mass_answers, ladder.truth
    macs, density = float(answers.macs.mean()), truth.right(pair.density_answers)
    gain, best = paired_difference(truth.right(answers), density), _best(ladder.keeping(macs), density)
    needed = ladder.kept[ladder.needed_for_dense]
    pairs, images = np.unique(np.stack([needed, answers.kept]), axis=1, return_counts=True)
    return MassInBound(
        row=pair.mass,
        density=pair.density,
        gain=gain,
        best=best,
        best_by_label=None if truth.labels is None else _best(ladder.knowing(macs), density),
        reached_percent=_reached(gain, best.gain),
        rank_correlation=rank_correlation(needed, answers.kept),
        enough_percent=_percent(answers.kept >= needed),
        images=tuple((int(a), int(b), int(n)) for (a, b), n in zip(pairs.T, images, strict=True)),
    )


def _reached(gain: Estimate, bound: Estimate) -> float | None:
    """Returns the gain in percent of the bound; None where it is not clear that there is anything to gain."""
    return round(100.0 * gain.value / bound.value, 1) if bound.low > 0 else None


def _from_where_on(true: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns for each column the first row from which on it is true to the end; the number of rows where none is."""
    lasting = np.logical_and.accumulate(true[::-1])
    found: NDArray[np.intp] = len(true) - lasting.sum(axis=0)
    return found


def _percent(true: NDArray[np.bool_]) -> float:
    return 100.0 * float(true.mean())
