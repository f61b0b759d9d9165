"""The JSON form of a report: written from the dataclasses, and checked against them and itself when read."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections import Counter
from enum import StrEnum
from typing import Any

import numpy as np

from sait_deploy.bench.results import SCHEMA_VERSION, Report, Row, Variant
from sait_deploy.errors import ArtifactError

_DECIMALS = 7
_HINT = "measure again, or take the file as the benchmark wrote it"


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
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the benchmark report is not JSON: {error}", _HINT) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ArtifactError(
            f"the benchmark report has schema_version {_shown(version)}, not {SCHEMA_VERSION}",
            "read it with the version of sait-deploy that wrote it",
        )
    report: Report = _decode(Report, data, "report")
    _check(report)
    return report


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _wrong(where: str, value: object, wanted: str) -> ArtifactError:
    return ArtifactError(f"the benchmark report's {where} is {_shown(value)}, not {wanted}", _HINT)


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Turns parsed JSON into a value of an annotated type; ``where`` names the field in errors."""
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if value is None else _decode(inner, value, where)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, where)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if type(value) is not list:
            raise _wrong(where, value, "a list")
        return tuple(_decode(parts[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if type(value) is not dict:
            raise _wrong(where, value, "an object")
        return {key: _decode(parts[1], item, f"{where}[{_shown(key)}]") for key, item in value.items()}
    return _decode_scalar(kind, value, where)


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if issubclass(kind, StrEnum):
        if value not in tuple(kind):
            raise _wrong(where, value, "one of " + ", ".join(kind))
        return kind(value)
    if kind is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif type(value) is kind:
        return value
    raise _wrong(where, value, {float: "a finite number", int: "an integer", bool: "true or false"}.get(kind, "text"))


def _decode_fields(kind: Any, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise _wrong(where, value, "an object")
    hints = typing.get_type_hints(kind)
    for problem, names in (("lacks", hints.keys() - value.keys()), ("has the unknown", value.keys() - hints.keys())):
        if names:
            raise ArtifactError(f"the benchmark report's {where} {problem} field {min(names)!r}", _HINT)
    prefix = "" if kind is Report else f"{where}."
    return kind(**{name: _decode(hint, value[name], prefix + name) for name, hint in hints.items()})


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ArtifactError(f"the benchmark report contradicts itself: {what}", _HINT)


def _check(report: Report) -> None:
    """Checks what the types cannot say."""
    for index, variant in enumerate(report.variants):
        _check_variant(variant, f"variants[{index}]")
    repeated = [name for name, times in Counter(variant.id for variant in report.variants).items() if times > 1]
    _require(not repeated, f"variant ids {_shown(repeated)} are repeated")
    baselines = [variant.id for variant in report.variants if variant.baseline]
    _require(len(baselines) == 1, f"{len(baselines)} variants are the baseline, and one has to be")
    known = {variant.id for variant in report.variants}
    for index, row in enumerate(report.rows):
        where = f"rows[{index}]"
        _require(row.variant in known, f"{where}.variant {_shown(row.variant)} is not among the variants")
        _check_row(row, row.variant == baselines[0], where)
    _check_pairs(report.rows, baselines[0])


def _check_variant(variant: Variant, where: str) -> None:
    _require(variant.macs >= 1, f"{where}.macs is {variant.macs}")
    if variant.accuracy is not None:
        _require(variant.accuracy.images >= 1, f"{where}.accuracy.images is {variant.accuracy.images}")
        for percent in (variant.accuracy.top1_percent, variant.accuracy.agreement_percent):
            _require(percent is None or 0 <= percent <= 100, f"{where}.accuracy holds {percent} percent")


def _check_row(row: Row, baseline: bool, where: str) -> None:
    _require(row.batch >= 1, f"{where}.batch is {row.batch}")
    _require(len(row.seconds) > 0 and min(row.seconds) > 0, f"{where}.seconds is empty or holds no duration")
    # The samples were rounded after the median was taken of them.
    off = abs(float(np.median(row.seconds)) - row.p50_ms / 1e3)
    _require(off <= 10**-_DECIMALS, f"{where}.p50_ms {row.p50_ms} is not the median of its samples")
    _require(row.p99_ms >= row.p50_ms, f"{where}.p99_ms {row.p99_ms} is below its p50_ms")
    _require(row.images_per_second > 0, f"{where}.images_per_second is {row.images_per_second}")
    _require(
        0 <= row.kept_mean <= row.kept_max and 0 <= row.kept_p95 <= row.kept_max, f"{where}.kept_max is no maximum"
    )
    _require(row.mac_ratio > 0, f"{where}.mac_ratio is {row.mac_ratio}")
    _require((row.speedup is None) == baseline, f"{where}.speedup belongs to all but the baseline")
    _require((row.share is None) == baseline, f"{where}.share belongs to all but the baseline")
    if row.speedup is not None:
        ordered = 0 < row.speedup.low <= row.speedup.median <= row.speedup.high
        _require(ordered, f"{where}.speedup is not in ascending order")


def _check_pairs(rows: tuple[Row, ...], baseline: str) -> None:
    _require(len(rows) > 0, "it has no rows")
    rounds: dict[int, int] = {row.batch: len(row.seconds) for row in rows if row.variant == baseline}
    seen = set()
    for index, row in enumerate(rows):
        where = f"rows[{index}]"
        _require(row.batch in rounds, f"{where} has no baseline beside it at batch {row.batch}")
        _require(
            len(row.seconds) == rounds[row.batch],
            f"{where}.seconds holds {len(row.seconds)} samples, the baseline of batch {row.batch} {rounds[row.batch]}",
        )
        _require((row.batch, row.variant) not in seen, f"{where} repeats batch {row.batch} of {_shown(row.variant)}")
        seen.add((row.batch, row.variant))
