"""A report with known samples, built by the code that builds real ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sait_deploy.bench.results import SCHEMA_VERSION, Accuracy, Report, Row, Timing, Variant
from sait_deploy.bench.stats import WARNING, make_row

PATCHES = 196
BATCHES = (1, 8, 32)
MEDIANS_MS = {"dense": (42.0, 283.0, 1237.0), "d0.6": (32.0, 202.0, 862.0), "d0.5": (27.0, 180.0, 760.0)}


def make_variant(identity: str, label: str, macs: int, accuracy: Accuracy | None = None) -> Variant:
    """Makes a variant; the one whose id is "dense" is the baseline."""
    return Variant(identity, label, identity == "dense", macs, f"{len(identity):064x}", False, accuracy)


def make_variants() -> tuple[Variant, ...]:
    """Makes DeiT-S, dense and at two densities; the baseline does not come first."""
    return (
        make_variant("d0.6", "density 0.6", 3_210_000_000, Accuracy(5000, 79.42, 96.0)),
        make_variant("dense", "dense", 4_610_000_000, Accuracy(5000, 79.82, 100.0)),
        make_variant("d0.5", "density 0.5", 2_860_000_000, Accuracy(5000, None, 98.04)),
    )


def make_rows(variants: Sequence[Variant], rounds: int = 20) -> tuple[Row, ...]:
    """Makes rows in descending batch order, with drift that every variant of a round shares."""
    noise = np.random.default_rng(7)
    dense_macs = next(variant.macs for variant in variants if variant.baseline)
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
                    macs=variant.macs,
                    dense_macs=dense_macs,
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
        runtime="ONNX Runtime 1.23.0",
        timing=Timing.END_TO_END,
        environment={"processor": "two cores"},
        options={"rounds": "20"},
        variants=variants,
        rows=make_rows(variants),
        notes=("density 0.6 is faster from batch 1", f"{WARNING}it ran on another provider"),
    )
