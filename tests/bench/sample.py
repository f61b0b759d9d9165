"""A report with known samples, built by the code that builds real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from sait_deploy.bench.flips import flip_notes
from sait_deploy.bench.group_results import Group
from sait_deploy.bench.results import (
    SCHEMA_VERSION,
    Accuracy,
    AccuracyMeasure,
    BenchRow,
    Flips,
    Pruning,
    Refusal,
    Report,
    Stages,
    Timing,
    Variant,
)
from sait_deploy.bench.stats import make_row
from sait_deploy.reports.table import Note, Severity
from sait_deploy.tokens import OperatingPoint, Score

TOP1 = AccuracyMeasure.TOP1
RUNTIME = "ONNX Runtime 1.23.0"
PATCHES = 196
BATCHES = (1, 8, 32)
WEIGHTS = "ab" * 32
MACS = {"dense": 4_610_000_000, "d0.6": 3_210_000_000, "d0.5": 2_860_000_000}
MEDIANS_MS = {"dense": (42.0, 283.0, 1237.0), "d0.6": (32.0, 202.0, 862.0), "d0.5": (27.0, 180.0, 760.0)}


def make_variant(identity: str, label: str, accuracy: Accuracy | None = None) -> Variant:
    """Makes a variant; the one whose id is "dense" is the baseline."""
    model, baseline = f"{len(identity):064x}", identity == "dense"
    pruning = None if baseline else Pruning("0.6", OperatingPoint(1.0, 118, 118), None, Score.MEAN, 3)
    return Variant(identity, label, RUNTIME, None, identity, baseline, WEIGHTS, model, False, accuracy, pruning, "fp32")


def make_variants() -> tuple[Variant, ...]:
    """Makes DeiT-S, dense and at two densities; the baseline does not come first."""
    return (
        make_variant("d0.6", "density 0.6", Accuracy(TOP1, 5000, 79.42)),
        make_variant("dense", "dense", Accuracy(TOP1, 5000, 79.82)),
        make_variant("d0.5", "density 0.5", Accuracy(TOP1, 5000, 79.24)),
    )


def make_rows(variants: Sequence[Variant], rounds: int = 20) -> tuple[BenchRow, ...]:
    """Makes rows in descending batch order, with drift that every variant of a round shares."""
    noise = np.random.default_rng(7)
    rows = []
    for index in reversed(range(len(BATCHES))):
        drift = 1 + 0.01 * np.arange(rounds) / rounds
        times = {
            name: medians[index] / 1e3 * drift * noise.normal(1, 0.005, rounds) for name, medians in MEDIANS_MS.items()
        }
        for variant in variants:
            kept = PATCHES if variant.baseline else 118
            rows.append(
                make_row(
                    batch=BATCHES[index],
                    variant=variant.id,
                    seconds=times[variant.id].tolist(),
                    dense_seconds=None if variant.baseline else times["dense"].tolist(),
                    kept=[kept] * BATCHES[index],
                    macs=MACS[variant.id],
                    dense_macs=MACS["dense"],
                )
            )
    return tuple(rows)


def make_report() -> Report:
    """Makes a whole report in which neither rows, variants nor notes stand in the order they are shown in."""
    variants = make_variants()
    return Report(
        schema_version=SCHEMA_VERSION,
        created="2026-03-02T10:04:11+00:00",
        model="deit_small_patch16_224",
        timing=Timing.END_TO_END,
        environment={"processor": "two cores"},
        options={"rounds": "20"},
        groups=(Group(RUNTIME, None, {"provider": "its own"}),),
        skipped=(),
        variants=variants,
        rows=make_rows(variants),
        refusals=(),
        together=(),
        over_fastest=(),
        memory=None,
        roofline=None,
        flips=(Flips("d0.6", "batch 1 and 8", 48, 2.0, 0.5),),
        notes=(Note("density 0.6 is faster from batch 1"), Note("it ran on another provider", Severity.WARNING)),
    )


ADAPTIVE: Final = {"dense": "dense", "a@mass 0.95": "mass 0.95", "a@kept 105 ± 25": "kept 105 ± 25"}
"""Ids and labels of the adaptive report's variants."""


def make_adaptive_report() -> Report:
    """Makes a report of an adaptive artifact at a point and with forced counts, whose work differs between batches."""
    noise = np.random.default_rng(11)
    rows = []
    for batch, batches in ((1, 8), (8, 8)):
        dense = (0.04 * batch * noise.normal(1, 0.01, 24)).tolist()
        for index, name in enumerate(ADAPTIVE):
            kept = [PATCHES] if index == 0 else noise.normal(100, 25, batch * batches).round().clip(1, PATCHES).tolist()
            rows.append(
                make_row(
                    batch=batch,
                    variant=name,
                    seconds=[sample / (1 + 0.3 * index) for sample in dense],
                    dense_seconds=dense if index else None,
                    kept=[int(count) for count in kept],
                    macs=round(4.6e9 / (1 + 0.03 * index * batch)),
                    dense_macs=4_600_000_000,
                    batches=batches,
                )
            )
    variants = tuple(
        make_variant(name, label, None if "kept" in name else Accuracy(TOP1, 5000, 79.0))
        for name, label in ADAPTIVE.items()
    )
    flips = (
        Flips("a@mass 0.95", "batch 1 and 8", 48, 2 / 48 * 100, 0.0),
        Flips("a@kept 105 ± 25", "batch 1 and 8", 48, 0.0, 0.0),
    )
    notes = tuple(flip_notes(flips, ADAPTIVE))
    return dataclasses.replace(make_report(), variants=variants, rows=tuple(rows), flips=flips, notes=notes)


ENGINE: Final = "engine"
STAGES: Final = Stages(0.15, 0.2, 4.5, 0.05)
NO_GPU: Final = ("no GPU can be used", "a driver is needed", 7)
TOO_LARGE: Final = ("it takes 1 to 8 images, not 32", "build it with another --batch", 2)


def make_report_of_two() -> Report:
    """Makes the report with a second runtime of stages: density 0.6 does not run there, nor dense at 32."""
    report = make_report()
    variants = tuple(dataclasses.replace(v, id=f"{v.id}@{ENGINE}", runtime=ENGINE) for v in report.variants)
    rows = []
    for row in report.rows:
        other = dataclasses.replace(row, variant=f"{row.variant}@{ENGINE}", stages=STAGES)
        if row.variant == "d0.5" and row.batch == 32:
            other = dataclasses.replace(other, speedup=None, share=None)
        if row.variant != "d0.6" and (row.variant, row.batch) != ("dense", 32):
            rows.append(other)
    return dataclasses.replace(
        report,
        groups=(*report.groups, Group(ENGINE, None, {"GPU": "one of them"})),
        variants=(*report.variants, *variants),
        rows=(*report.rows, *rows),
        refusals=(
            Refusal(f"d0.6@{ENGINE}", BATCHES, *NO_GPU),
            Refusal(f"dense@{ENGINE}", (32,), *TOO_LARGE),
        ),
    )
