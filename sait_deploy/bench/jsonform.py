"""The JSON form of a report: written from the dataclasses, and checked against them and itself when read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

import numpy as np

from sait_deploy.bench.results import SCHEMA_VERSION, Flips, Report, Row, Variant
from sait_deploy.errors import ArtifactError
from sait_deploy.jsoncodec import Codec, shown

_DECIMALS = 7
_HINT = "measure again, or take the file as the benchmark wrote it"
_CODEC = Codec("the benchmark report", _HINT, SCHEMA_VERSION)


def to_json(report: Report) -> str:
    """Returns the report as JSON: two spaces of indent, samples on one line each, rounded to 1e-7 s.

    Raises:
        ValueError: a number is not finite.
    """
    data = dataclasses.asdict(report)
    for row in data["rows"]:
        row["seconds"] = [round(sample, _DECIMALS) for sample in row["seconds"]]
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # A line break is never inside a JSON string, so a line that begins like this is the field itself.
    field = re.compile(r'^ {6}"seconds": \[[^\]]*\]', re.MULTILINE)
    return field.sub(lambda found: "      " + " ".join(found.group().split()), text) + "\n"


def from_json(text: str) -> Report:
    """Reads a report and checks that it is whole and agrees with itself.

    Raises:
        ArtifactError: it is no JSON, of another schema version, lacks or misnames a field, holds a value that cannot
            be, or contradicts itself; the message names the field.
    """
    report = _CODEC.read(Report, text)
    _check(report)
    return report


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ArtifactError(f"the benchmark report contradicts itself: {what}", _HINT)


def _check(report: Report) -> None:
    """Checks what the types cannot say."""
    for index, variant in enumerate(report.variants):
        _check_variant(variant, f"variants[{index}]")
    repeated = [name for name, times in Counter(variant.id for variant in report.variants).items() if times > 1]
    _require(not repeated, f"variant ids {shown(repeated)} are repeated")
    baselines = [variant.id for variant in report.variants if variant.baseline]
    _require(len(baselines) == 1, f"{len(baselines)} variants are the baseline, and one has to be")
    known = {variant.id for variant in report.variants}
    for index, row in enumerate(report.rows):
        where = f"rows[{index}]"
        _require(row.variant in known, f"{where}.variant {shown(row.variant)} is not among the variants")
        _check_row(row, row.variant == baselines[0], where)
    _check_pairs(report.rows, baselines[0])
    for index, flips in enumerate(report.flips):
        _check_flips(flips, known, f"flips[{index}]")


def _check_variant(variant: Variant, where: str) -> None:
    if variant.accuracy is not None:
        _require(variant.accuracy.images >= 1, f"{where}.accuracy.images is {variant.accuracy.images}")
        for percent in (variant.accuracy.top1_percent, variant.accuracy.agreement_percent):
            _require(percent is None or 0 <= percent <= 100, f"{where}.accuracy holds {percent} percent")


def _check_flips(flips: Flips, known: set[str], where: str) -> None:
    _require(flips.variant in known, f"{where}.variant {shown(flips.variant)} is not among the variants")
    _require(flips.images >= 1, f"{where}.images is {flips.images}")
    for percent in (flips.kept_sets_percent, flips.answers_percent):
        _require(0 <= percent <= 100, f"{where} holds {percent} percent")


def _check_row(row: Row, baseline: bool, where: str) -> None:
    _require(row.batch >= 1, f"{where}.batch is {row.batch}")
    _require(row.batches >= 1, f"{where}.batches is {row.batches}")
    _require(len(row.seconds) > 0 and min(row.seconds) > 0, f"{where}.seconds is empty or holds no duration")
    # The samples were rounded after the median was taken of them.
    off = abs(float(np.median(row.seconds)) - row.p50_ms / 1e3)
    _require(off <= 10**-_DECIMALS, f"{where}.p50_ms {row.p50_ms} is not the median of its samples")
    _require(row.p99_ms >= row.p50_ms, f"{where}.p99_ms {row.p99_ms} is below its p50_ms")
    _require(row.images_per_second > 0, f"{where}.images_per_second is {row.images_per_second}")
    _require(
        0 <= row.kept_mean <= row.kept_max and 0 <= row.kept_p95 <= row.kept_max, f"{where}.kept_max is no maximum"
    )
    _require(row.macs >= 1, f"{where}.macs is {row.macs}")
    _require(row.mac_ratio > 0, f"{where}.mac_ratio is {row.mac_ratio}")
    _require((row.speedup is None) == baseline, f"{where}.speedup belongs to all but the baseline")
    _require((row.share is None) == baseline, f"{where}.share belongs to all but the baseline")
    if row.speedup is not None:
        ordered = 0 < row.speedup.low <= row.speedup.median <= row.speedup.high
        _require(ordered, f"{where}.speedup is not in ascending order")


def _check_pairs(rows: tuple[Row, ...], baseline: str) -> None:
    _require(len(rows) > 0, "it has no rows")
    rounds: dict[int, int] = {row.batch: len(row.seconds) for row in rows if row.variant == baseline}
    batches = {row.batch: row.batches for row in rows if row.variant == baseline}
    seen = set()
    for index, row in enumerate(rows):
        where = f"rows[{index}]"
        _require(row.batch in rounds, f"{where} has no baseline beside it at batch {row.batch}")
        _require(
            len(row.seconds) == rounds[row.batch],
            f"{where}.seconds holds {len(row.seconds)} samples, the baseline of batch {row.batch} {rounds[row.batch]}",
        )
        _require(row.batches == batches[row.batch], f"{where}.batches is not the baseline's, {batches[row.batch]}")
        _require((row.batch, row.variant) not in seen, f"{where} repeats batch {row.batch} of {shown(row.variant)}")
        seen.add((row.batch, row.variant))
