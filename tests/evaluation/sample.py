"""Evaluations with known figures: labelled, without labels, and of a headless model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.results import (
    SCHEMA_VERSION,
    Basis,
    Comparison,
    Evaluation,
    EvaluationRow,
    Kind,
    Stratum,
)
from sait_deploy.reports.table import Note, Severity
from sait_deploy.tokens import Geometry, OperatingPoint, dense_macs, pruned_macs

IMAGES: Final = 2000
DENSE_TOP1: Final = 97.25
PRUNE_AT: Final = 1

DIGITS: Final = Geometry(
    depth=6,
    width=128,
    attention_width=128,
    patch_tokens=144,
    prefix_tokens=1,
    embed_macs=144 * 192 * 128,
    attention_macs_per_token=4 * 128 * 128,
    mlp_macs_per_token=8 * 128 * 128,
    readout_macs=1280,
    readout_macs_per_token=0,
)

_GRID: Final[Mapping[str, tuple[Kind, float, float]]] = {
    "density0.7": (Kind.DENSITY, 101, -0.15),
    "density0.5": (Kind.DENSITY, 72, -0.6),
    "density0.3": (Kind.DENSITY, 44, -2.1),
    "density0.2": (Kind.DENSITY, 29, -4.9),
    "mass0.9": (Kind.MASS, 81.4, 0.05),
    "mass0.8": (Kind.MASS, 58.2, -0.35),
    "random0.5": (Kind.RANDOM, 72, -8.4),
    "random0.3": (Kind.RANDOM, 44, -24.6),
    "least-important0.5": (Kind.LEAST_IMPORTANT, 72, -41.0),
    "least-important0.3": (Kind.LEAST_IMPORTANT, 44, -71.5),
}
"""Kept tokens and points of top-1 over dense, by row."""


def make_dense() -> EvaluationRow:
    """Makes the row that all others are compared with."""
    return EvaluationRow(
        id="dense",
        label="dense",
        kind=Kind.DENSE,
        point=None,
        image_size=(96, 96),
        top1_percent=DENSE_TOP1,
        top5_percent=99.85,
        top1_change=None,
        lost_percent=None,
        gained_percent=None,
        agreement_percent=100.0,
        cosine_mean=1.0,
        cosine_p5=1.0,
        kept_mean=144.0,
        kept_p95=144.0,
        kept_max=144,
        macs=dense_macs(DIGITS),
        mac_ratio=1.0,
        images_per_second=412.0,
    )


def make_row(identity: str, kind: Kind, kept: float, change: float, macs: int | None = None) -> EvaluationRow:
    """Makes a row with an interval that widens with the change."""
    lost = max(0.0, -change) + 0.4
    half = 0.25 + 0.15 * abs(change) ** 0.7
    spread = kind is Kind.MASS
    cost = pruned_macs(DIGITS, PRUNE_AT, round(kept)) if macs is None else macs
    name = kind.value.replace("-", " ")
    number = identity.removeprefix(kind.value).removesuffix("px")
    return EvaluationRow(
        id=identity,
        label=f"{number} px" if kind is Kind.LOWER_RESOLUTION else f"{name} {number}",
        kind=kind,
        point=None if kind is Kind.LOWER_RESOLUTION else OperatingPoint(0.9 if spread else 1.0, 1, round(kept)),
        image_size=(64, 64) if kind is Kind.LOWER_RESOLUTION else (96, 96),
        top1_percent=DENSE_TOP1 + change,
        top5_percent=99.85 + change / 10,
        top1_change=Estimate(change - half, change, change + half),
        lost_percent=lost,
        gained_percent=lost + change,
        agreement_percent=99.5 - abs(change),
        cosine_mean=0.995 - abs(change) / 100,
        cosine_p5=0.96 - abs(change) / 100,
        kept_mean=kept,
        kept_p95=kept * 1.4 if spread else kept,
        kept_max=round(kept * 1.6) if spread else round(kept),
        macs=cost,
        mac_ratio=dense_macs(DIGITS) / cost,
        images_per_second=412.0 * dense_macs(DIGITS) / cost,
    )


def make_rows() -> tuple[EvaluationRow, ...]:
    """Makes a row of every kind."""
    rows = [make_row(identity, kind, kept, change) for identity, (kind, kept, change) in _GRID.items()]
    smaller = make_row("64px", Kind.LOWER_RESOLUTION, 64, -3.4, macs=int(0.42 * dense_macs(DIGITS)))
    return (make_dense(), *rows, smaller)


def make_comparisons() -> tuple[Comparison, ...]:
    """Makes one that is in the first's favour, one that is not, and one that is undecided."""
    return (
        Comparison("mass0.9", "density0.7", Basis.EQUAL_MACS, Estimate(0.2, 0.8, 1.4)),
        Comparison("density0.3", "64px", Basis.EQUAL_TIME, Estimate(-1.9, -1.3, -0.7)),
        Comparison("mass0.8", "density0.5", Basis.EQUAL_MACS, Estimate(-0.1, 0.0, 0.1)),
    )


def make_strata() -> tuple[Stratum, ...]:
    """Makes two rows on three sizes of digit; at the small ones, density 0.3 loses for certain."""
    made = []
    for row, worst in (("density0.3", -6.0), ("mass0.8", -0.5)):
        for index, name in enumerate(("2x to 3x", "3x to 4.5x", "4.5x to 6x")):
            change = worst / (index + 1)
            estimate = Estimate(change - 1, change, change + 1)
            made.append(Stratum(row, "digit size", name, 650 + index, 95.0 + index, estimate, 40.0 + 10 * index))
    return tuple(made)


def make_evaluation() -> Evaluation:
    """Makes a labelled evaluation with everything in it."""
    return Evaluation(
        schema_version=SCHEMA_VERSION,
        created="2026-03-02T10:04:11+00:00",
        model="sait_demo_digits",
        weights_sha256="ab" * 32,
        trained_sparse=True,
        score="mean",
        prune_at=PRUNE_AT,
        runtime="torch",
        precision="fp32",
        images=IMAGES,
        image_source="2000 composed held-out digits",
        labelled=True,
        environment={"processor": "two cores"},
        options={"batch": "64"},
        rows=make_rows(),
        comparisons=make_comparisons(),
        strata=make_strata(),
        notes=(Note("images per second are of one pass"), Note("the images are few", Severity.WARNING)),
    )


def make_unlabelled() -> Evaluation:
    """Makes the same without labels: no row knows what is right."""
    whole = make_evaluation()
    rows = tuple(
        dataclasses.replace(
            row, top1_percent=None, top5_percent=None, top1_change=None, lost_percent=None, gained_percent=None
        )
        for row in whole.rows
    )
    return dataclasses.replace(whole, labelled=False, rows=rows)


def make_headless() -> Evaluation:
    """Makes the same of a model without a head: no row has a likeliest class."""
    whole = make_unlabelled()
    rows = tuple(dataclasses.replace(row, agreement_percent=None) for row in whole.rows)
    return dataclasses.replace(whole, rows=rows, comparisons=(), strata=())
