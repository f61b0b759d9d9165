"""The JSON form of a report: written from the dataclasses, and checked against them and itself when read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sait_deploy.artifacts.codec import Codec, shown
from sait_deploy.bench.oldforms import upgraded
from sait_deploy.bench.results import SCHEMA_VERSION, Accuracy, BenchRow, Flips, Interval, Report, Variant
from sait_deploy.errors import ArtifactError

_DECIMALS = 7
_HINT = "measure again, or take the file as the benchmark wrote it"
_CODEC = Codec("the benchmark report", _HINT, SCHEMA_VERSION)


def to_json(report: Report) -> str:
    """Returns the report as JSON: two spaces of indent, samples on one line each, rounded to 1e-7 s.

    Raises:
        ValueError: a number is not finite.
    """
    data = dataclasses.asdict(report)
    for variant in data["variants"]:
        if variant["pruning"] is not None and variant["pruning"]["threshold"] is None:
            del variant["pruning"]["threshold"]
    for row in (*data["rows"], *data["together"]):
        row["seconds"] = [round(sample, _DECIMALS) for sample in row["seconds"]]
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # A line break is never inside a JSON string, so a line that begins like this is the field itself.
    field = re.compile(r'^ {6}"seconds": \[[^\]]*\]', re.MULTILINE)
    return field.sub(lambda found: "      " + " ".join(found.group().split()), text) + "\n"


def from_json(text: str) -> Report:
    """Reads a report and checks that it is whole and agrees with itself.

    Raises:
        ArtifactError: it is no JSON, of a schema version but 3 to 6, lacks or misnames a field, holds a value that
            cannot be, or contradicts itself; the message names the field.
    """
    report = _CODEC.read(Report, upgraded(text))
    _check(report)
    return report


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ArtifactError(f"the benchmark report contradicts itself: {what}", _HINT)


def _check(report: Report) -> None:
    """Checks what the types cannot say."""
    names = [group.name for group in report.groups]
    for what, found in (("groups", names), ("variant ids", [variant.id for variant in report.variants])):
        repeated = [name for name, times in Counter(found).items() if times > 1]
        _require(not repeated, f"{what} {shown(repeated)} are repeated")
    for index, variant in enumerate(report.variants):
        _check_variant(variant, report.variants[0], names, f"variants[{index}]")
    for name in names:
        baselines = [variant for variant in report.variants if variant.baseline and variant.group == name]
        _require(len(baselines) == 1, f"{len(baselines)} variants are the baseline on {shown(name)}, and one has to be")
    variants = {variant.id: variant for variant in report.variants}
    for field in ("rows", "refusals", "together", "over_fastest", "memory", "flips"):
        for index, item in enumerate(getattr(report, field) or ()):
            known = f"{field}[{index}].variant {shown(item.variant)} is not among the variants"
            _require(item.variant in variants, known)
    for index, row in enumerate(report.rows):
        _check_row(row, f"rows[{index}]")
    _check_complete(report)
    for name in names:
        _check_pairs(report, {variant.id for variant in report.variants if variant.group == name})
    for index, flips in enumerate(report.flips):
        _check_flips(flips, f"flips[{index}]")
    _check_across(report, variants)
    _check_machine(report)


def _check_complete(report: Report) -> None:
    """Checks that every variant has a row or a refusal, and not both, at every batch size."""
    found = Counter((row.batch, row.variant) for row in report.rows)
    found.update((batch, refusal.variant) for refusal in report.refusals for batch in refusal.batches)
    _require(bool(found or report.skipped), "it has no rows, no refusals and nothing skipped")
    for batch in sorted({batch for batch, _ in found}):
        for variant in report.variants:
            times = found[batch, variant.id]
            what = f"{shown(variant.id)} has {times} rows and refusals at batch {batch}, and one has to be"
            _require(times == 1, what)


def _check_variant(variant: Variant, first: Variant, groups: Sequence[str], where: str) -> None:
    alike = variant.weights_sha256 == first.weights_sha256
    _require(alike, f"{where}.weights_sha256 {shown(variant.weights_sha256)} is not that of variants[0]")
    _require(variant.group in groups, f"{where}.runtime {shown(variant.group)} is not among the groups")
    if variant.accuracy is not None:
        _require(variant.accuracy.images >= 1, f"{where}.accuracy.images is {variant.accuracy.images}")
        percent = variant.accuracy.percent
        _require(0 <= percent <= 100, f"{where}.accuracy.percent is {percent}")
        _check_discordant(variant.accuracy, f"{where}.accuracy")


def _check_discordant(accuracy: Accuracy, where: str) -> None:
    lost, gained = accuracy.lost, accuracy.gained
    _require((lost is None) == (gained is None), f"{where} says lost or gained alone")
    if lost is not None and gained is not None:
        fits = min(lost, gained) >= 0 and lost + gained <= accuracy.images
        _require(fits, f"{where} has {lost} lost and {gained} gained of {accuracy.images} images")


def _check_flips(flips: Flips, where: str) -> None:
    _require(flips.images >= 1, f"{where}.images is {flips.images}")
    for percent in (flips.kept_sets_percent, flips.answers_percent):
        _require(0 <= percent <= 100, f"{where} holds {percent} percent")


def _check_row(row: BenchRow, where: str) -> None:
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
    if row.speedup is not None:
        _check_ascending(row.speedup, where)
    if row.stages is not None:
        _require(min(dataclasses.astuple(row.stages)) >= 0, f"{where}.stages holds no duration")


def _check_ascending(speedup: Interval, where: str) -> None:
    _require(0 < speedup.low <= speedup.median <= speedup.high, f"{where}.speedup is not in ascending order")


def _check_across(report: Report, variants: Mapping[str, Variant]) -> None:
    """Checks what compares groups: over a baseline, in the same rounds at each batch size."""
    first: dict[int, int] = {}
    for index, times in enumerate(report.together):
        where = f"together[{index}]"
        _require(len(times.seconds) > 0 and min(times.seconds) > 0, f"{where}.seconds is empty or holds no duration")
        rounds = first.setdefault(times.batch, len(times.seconds))
        _require(len(times.seconds) == rounds, f"{where}.seconds holds other rounds than the first of its batch size")
        _require(times.batches >= 1, f"{where}.batches is {times.batches}")
    for index, over in enumerate(report.over_fastest):
        where, fastest = f"over_fastest[{index}]", variants.get(over.fastest)
        is_dense = fastest is not None and fastest.baseline
        _require(is_dense, f"{where}.fastest {shown(over.fastest)} is no baseline")
        _check_ascending(over.speedup, where)


def _check_machine(report: Report) -> None:
    for index, memory in enumerate(report.memory or ()):
        ordered = 0 < memory.imported_bytes <= memory.peak_bytes and memory.batch >= 1
        _require(ordered, f"memory[{index}] has a peak below its start, or no batch")
    if report.roofline is not None:
        rates = [rate.operations_per_second for rate in report.roofline.rates]
        copies = report.roofline.bytes_per_second, *report.roofline.device_bytes_per_second.values()
        positive = min((report.roofline.parameters, *copies, *rates)) > 0
        _require(positive, "roofline holds a rate that is none")


def _check_pairs(report: Report, together: set[str]) -> None:
    """Checks that rows of a group and batch size were taken in the same rounds, and compared with dense if it ran."""
    baseline = next(v.id for v in report.variants if v.baseline and v.id in together)
    numbered = [(f"rows[{index}]", row) for index, row in enumerate(report.rows) if row.variant in together]
    compared = {row.batch for _, row in numbered if row.variant == baseline}
    first: dict[int, tuple[str, BenchRow]] = {}
    for where, row in numbered:
        other, like = first.setdefault(row.batch, (where, row))
        rounds = f"{where}.seconds holds {len(row.seconds)} samples, {other} of the same batch size {len(like.seconds)}"
        _require(len(row.seconds) == len(like.seconds), rounds)
        _require(row.batches == like.batches, f"{where}.batches is not that of {other}, {like.batches}")
        wanted = row.variant != baseline and row.batch in compared
        for name, value in (("speedup", row.speedup), ("share", row.share)):
            _require(
                (value is not None) == wanted, f"{where}.{name} belongs to all that dense ran beside, and no other"
            )
