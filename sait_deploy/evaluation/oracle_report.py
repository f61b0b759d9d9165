"""The tokens that images need, and what choosing them image by image could gain, as tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_results import Best, MassInBound, Oracle
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.reports.clouds import Cloud, cloud_plot
from sait_deploy.reports.drawing import Names
from sait_deploy.reports.table import Column, Fold, Row, Table, figures, words
from sait_deploy.reports.wording import NOTHING, signed

EXPLAINED: Final = (
    "An image needs the fewest tokens, among the numbers listed, from which on its answer stays dense's. Best keeps "
    "dense's answer to as many images as the mean cost allows, be it right or wrong; best by label keeps as many "
    "right, and those right by chance with the fewest tokens. Both look at the answers first, so they bound what a "
    "rule can reach."
)
_MOST_CLOUDS: Final = 3
_BY_LABEL: Final = figures("best by label gains [95 %]", fold=Fold.PHRASES)


def oracle_tables(evaluation: Evaluation) -> list[Table]:
    """Returns what images need and the best choices at each number of tokens, then the masses beside them."""
    oracle = evaluation.oracle
    if oracle is None:
        return []
    return [_steps(evaluation, oracle), *([_masses(evaluation, oracle)] if oracle.masses else [])]


def needed_plot(evaluation: Evaluation) -> str:
    """Draws for up to three masses how many tokens images need and how many they keep.

    Returns:
        An SVG file's text, with its own style for light and dark.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    assert evaluation.oracle is not None
    labels = {row.id: row.label for row in evaluation.rows}
    shown = _spread(evaluation.oracle.masses)
    clouds = [Cloud(f"{labels[one.row]}\n{_enough(one)}", one.images) for one in shown]
    title = f"{evaluation.model}: tokens that images need, and keep"
    told = [f"{labels[one.row]}: {_enough(one)}; rank correlation {_correlation(one)}." for one in shown]
    about = "Area: number of images. Below the line an image keeps fewer tokens than it needs."
    ticks = tuple(step.kept for step in evaluation.oracle.steps)
    names = Names("needed", title, " ".join(told))
    return cloud_plot(clouds, names, ticks, "tokens needed for dense's answer", "tokens kept", f"{title}\n{about}")


def _steps(evaluation: Evaluation, oracle: Oracle) -> Table:
    steps, dense = oracle.steps, oracle.steps[-1]
    columns: dict[Column, list[str]] = {
        figures("tokens"): [str(step.kept) for step in steps],
        figures("MAC ratio", "×"): [f"{dense.macs / step.macs:.2f}" for step in steps],
        figures("answer stays dense's", "%", fold=Fold.PHRASES): [f"{step.stays_percent:.1f}" for step in steps],
    }
    if evaluation.labelled:
        stays = [step.stays_right_percent for step in steps]
        columns[figures("stays right", "%")] = [NOTHING if one is None else f"{one:.1f}" for one in stays]
    measure = "top-1" if evaluation.labelled else "agrees"
    columns |= {
        figures(measure, "%"): [f"{step.right_percent:.1f}" for step in steps],
        figures("best gains [95 %]", fold=Fold.PHRASES): [_gain(step.best) for step in steps],
    }
    if evaluation.labelled:
        columns[_BY_LABEL] = [_gain(step.best_by_label) for step in steps]
    title = f"Tokens that images need: {oracle.needed_mean:.1f} on average"
    cells = zip(steps, zip(*columns.values(), strict=True), strict=True)
    return Table.of(title, list(columns), [Row.of(own, reference=step is dense) for step, own in cells])


def _masses(evaluation: Evaluation, oracle: Oracle) -> Table:
    rows, masses = {row.id: row for row in evaluation.rows}, oracle.masses
    columns: dict[Column, list[str]] = {
        words(): [rows[one.row].label for one in masses],
        figures("keeps"): [f"{rows[one.row].kept_mean:.1f}" for one in masses],
        words("density of equal MACs"): [rows[one.density].label for one in masses],
        figures("mass gains [95 %]", fold=Fold.PHRASES): [_estimate(one.gain) for one in masses],
        figures("best gains [95 %]", fold=Fold.PHRASES): [_gain(one.best) for one in masses],
        figures("reached", "%"): [
            NOTHING if one.reached_percent is None else signed(one.reached_percent, 0) for one in masses
        ],
    }
    if evaluation.labelled:
        columns[_BY_LABEL] = [_gain(one.best_by_label) for one in masses]
    columns |= {
        figures("enough", "%"): [f"{one.enough_percent:.1f}" for one in masses],
        figures("rank correlation", fold=Fold.PHRASES): [_correlation(one) for one in masses],
    }
    unit = "points" if evaluation.labelled else "points of agreement"
    title = f"Masses beside the best choice for each image, at equal mean cost: {unit} over a density"
    return Table.of(title, list(columns), list(zip(*columns.values(), strict=True)))


def _spread(masses: Sequence[MassInBound]) -> Sequence[MassInBound]:
    """Returns at most three masses, from the one that keeps most to the one that keeps least."""
    by_kept = sorted(masses, key=lambda one: -sum(kept * images for _, kept, images in one.images))
    if len(by_kept) <= _MOST_CLOUDS:
        return by_kept
    return [by_kept[0], by_kept[len(by_kept) // 2], by_kept[-1]]


def _gain(best: Best | None) -> str:
    return NOTHING if best is None else _estimate(best.gain)


def _estimate(gain: Estimate) -> str:
    return f"{signed(gain.value, 1)} [{signed(gain.low, 1)}, {signed(gain.high, 1)}]"


def _enough(one: MassInBound) -> str:
    return f"enough for {one.enough_percent:.0f} % of images"


def _correlation(one: MassInBound) -> str:
    return NOTHING if one.rank_correlation is None else signed(one.rank_correlation, 2)
