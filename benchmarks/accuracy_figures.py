"""The figures of what dense/sparse training does, from ``results/demo_training.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from benchmarks.common import read_result

_PRUNED_KINDS: Final = ("density", "mass")
_SHOWN_MASSES: Final = ("mass0.9", "mass0.7")
_RIVALS: Final[tuple[tuple[str, str], ...]] = (
    ("mass", "density"),
    ("density", "lower-resolution"),
    ("density", "random"),
    ("density", "least-important"),
)
_GROUPINGS: Final = ("digit size", "fragments", "background")
_PARTS: Final = {
    "teacher-0": "plain weights, the teacher's",
    "dense-0": "plain weights, trained on as long",
    "no-distillation-0": "dense/sparse, labels alone",
    "densities-0": "dense/sparse, distilled, no step by mass",
    "student-0": "dense/sparse, distilled",
    "epoch-0": "the same, alternating epochs",
    "teacher-0 by cls": "plain weights, the teacher's, `cls`",
    "cls-0": "dense/sparse, distilled, `cls`",
}
_PART_ROWS: Final = ("density0.49", "density0.28", "density0.15", "mass0.9", "mass0.7", "mass0.6")


def _of(values: Iterable[float], form: str = "+.2f") -> str:
    """Returns mean and standard deviation over seeds."""
    found = list(values)
    spread = f" ± {np.std(found, ddof=1):{form.lstrip('+')}}" if len(found) > 1 else ""
    return f"{np.mean(found):{form}}{spread}"


def _mean_of(rows: list[dict[str, Any]], field: str) -> float:
    return float(np.mean([row[field] for row in rows]))


def _students(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [evaluation for name, evaluation in found["evaluations"].items() if name.startswith("student")]


def _row(evaluation: dict[str, Any], row_id: str) -> dict[str, Any] | None:
    return next((row for row in evaluation["rows"] if row["id"] == row_id), None)


def accuracy() -> list[str]:
    """Returns the section on accuracy."""
    found = read_result("demo_training")
    summary = found["summary"]
    dense = summary["dense_top1_mean"]
    top1 = {group: f"{dense[group]['mean']:.2f} ± {dense[group]['sd']:.2f} %" for group in dense}
    seeds, teachers = len(_students(found)), sum(name.startswith("teacher") for name in found["logs"])
    lines = [
        "### Accuracy",
        "",
        f"The demonstration model (96 px, 144 patch tokens, pruned inside block 1 of 6) on {found['images']:,}",
        "held-out compositions: digits of 2 to 6 times their size among clutter, on shades and photographs. From",
        f"{teachers} dense teachers, for each of {seeds} seeds, a student trained dense/sparse with distillation and a",
        "plain model trained dense for as long. All compose their images of the same 360 digits and 4 photographs.",
        f"Dense, the teachers are {top1['teachers']} right, the plain models {top1['dense-only']}, the students",
        f"{top1['students']} (mean and standard deviation over seeds). Change of top-1 in points against the same",
        "weights run dense:",
        "",
        "| density | MACs saved | dense/sparse | plain weights, trained as long | plain weights, the teacher's |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for density, saved in summary["macs_saved_percent"].items():
        change = summary["change_mean"][density]
        texts = {group: f"{one['mean']:+.2f} ± {one['sd']:.2f}" for group, one in change.items()}
        cells = " | ".join(texts[group] for group in ("students", "dense-only", "teachers"))
        lines.append(f"| {density} | {saved:.0f} % | {cells} |")
    return [
        *lines,
        "",
        *_targets(summary),
        *_points(found),
        *_rivals(found),
        *_kept_by(found),
        *_ablation(found),
        *_shift(found),
    ]


def _targets(summary: dict[str, Any]) -> list[str]:
    lines = ["What was to be shown, and what was found:", "", "| target | found | reached |", "| --- | --- | --- |"]
    for one in summary["targets"]:
        lines.append(f"| {one['target']} | {one['found']} | {'yes' if one['reached'] else 'no'} |")
    return [*lines, ""]


def _points(found: dict[str, Any]) -> list[str]:
    students = _students(found)
    lines = [
        "All points of the students, over the seeds. Beside a mass stands what a density would change top-1 by at",
        "exactly its multiply-accumulates, on the line between the densities next to it; – below the cheapest one:",
        "",
        "| | MAC ratio | kept, mean / p95 | change of top-1 | densities there |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for first in students[0]["rows"]:
        if first["kind"] not in _PRUNED_KINDS or first["id"].startswith("kept"):
            continue
        having = [student for student in students if _row(student, first["id"]) is not None]
        rows = [row for row in (_row(student, first["id"]) for student in having) if row is not None]
        change = _of(row["top1_change"]["value"] for row in rows)
        kept = f"{_mean_of(rows, 'kept_mean'):.1f} / {_mean_of(rows, 'kept_p95'):.0f}"
        there = ""
        if first["kind"] == "mass":
            changes = [_density_change_at(student, row["macs"]) for student, row in zip(having, rows, strict=True)]
            known = [change for change in changes if change is not None]
            there = _of(known) if len(known) == len(changes) else "–"
        lines.append(f"| {first['label']} | {_mean_of(rows, 'mac_ratio'):.2f} × | {kept} | {change} | {there} |")
    return [*lines, ""]


def _density_change_at(evaluation: dict[str, Any], macs: float) -> float | None:
    """Returns the change of top-1 of densities at so many multiply-accumulates, straight between those evaluated.

    None where the cheapest of them has more.
    """
    rows = [row for row in evaluation["rows"] if row["kind"] in ("density", "dense")]
    known = sorted((row["macs"], (row["top1_change"] or {"value": 0.0})["value"]) for row in rows)
    at, changes = (np.array(values, dtype=np.float64) for values in zip(*known, strict=True))
    return float(np.interp(macs, at, changes)) if macs >= at[0] else None


def _rivals(found: dict[str, Any]) -> list[str]:
    """Returns what a point gains on its rivals, a column a seed; the rival's own size may differ by seed."""
    students = _students(found)
    lines = [
        "Against what costs the same, or a little more where it cannot be equal: points of top-1 that the first gains",
        "on its rival, a column a seed, paired by image; bold where the 95 % interval leaves zero out. Equal time is",
        "that of the first student, which ships, by `results/demo_bench.json`.",
        "",
        f"| | rival | equal | {' | '.join(f'seed {seed}' for seed in range(len(students)))} |",
        f"| --- | --- | --- | {' | '.join('---:' for _ in students)} |",
    ]
    kinds = [{row["id"]: row["kind"] for row in student["rows"]} for student in students]
    labels = {row["id"]: row["label"] for row in students[0]["rows"]}
    for one in students[0]["comparisons"]:
        pair = kinds[0][one["first"]], kinds[0][one["second"]]
        if pair not in _RIVALS:
            continue
        cells = []
        for student, kind in zip(students, kinds, strict=True):
            same = (
                other["difference"]
                for other in student["comparisons"]
                if (other["first"], other["basis"]) == (one["first"], one["basis"]) and kind[other["second"]] == pair[1]
            )
            cells.append(_gain(next(same, None)))
        rival = labels[one["second"]] if pair[0] == "density" else pair[1]
        basis = one["basis"].removeprefix("equal ")
        lines.append(f"| {labels[one['first']]} | {rival} | {basis} | {' | '.join(cells)} |")
    return [*lines, ""]


def _gain(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "–"
    clear = difference["low"] > 0 or difference["high"] < 0
    return f"**{difference['value']:+.2f}**" if clear else f"{difference['value']:+.2f}"


def _kept_by(found: dict[str, Any]) -> list[str]:
    students, lines = _students(found), ["Tokens kept, means over seeds:", ""]
    for mass in _SHOWN_MASSES:
        for grouping in _GROUPINGS:
            groups: dict[str, list[float]] = {}
            for stratum in (s for student in students for s in student["strata"]):
                if (stratum["grouping"], stratum["row"]) == (grouping, mass):
                    groups.setdefault(stratum["name"], []).append(stratum["kept_mean"])
            means = ", ".join(f"{np.mean(kept):.1f} ({name})" for name, kept in groups.items())
            if not groups:
                continue
            lines.append(f"- {mass.replace('mass', 'mass ')}, by {grouping}: {means}")
    return [*lines, ""]


def _ablation(found: dict[str, Any]) -> list[str]:
    headings = [row_id.replace("density", "density ").replace("mass", "mass ") for row_id in _PART_ROWS]
    lines = [
        "What each part does, seed 0 alone, by `mean` where `cls` is not named; top-1, and its change at each point,",
        "with half the width of its 95 % interval. At one mass they keep differently many tokens: importance that was",
        "not distilled is less peaked, so that more add up to it:",
        "",
        f"| | dense | {' | '.join(headings)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in headings)} |",
    ]
    for name, words in _PARTS.items():
        evaluation = found["evaluations"][name]
        rows = [_row(evaluation, row_id) for row_id in _PART_ROWS]
        cells = ["–" if row is None else _with_width(row["top1_change"]) for row in rows]
        dense = found["summary"]["dense_top1_percent"][name]
        lines.append(f"| {words} | {dense:.1f} % | {' | '.join(cells)} |")
    return [*lines, ""]


def _with_width(change: dict[str, float]) -> str:
    return f"{change['value']:+.1f} ± {(change['high'] - change['low']) / 2:.1f}"


def _shift(found: dict[str, Any]) -> list[str]:
    shift = list(found["shift"].values())
    chosen = {kind: [one["tuned"][kind].get("share", "none") for one in shift] for kind in _PRUNED_KINDS}
    choices = "; ".join(f"{kind} {', '.join(map(str, shares))}" for kind, shares in chosen.items())
    lines = [
        f"Shift: for each seed `sait-deploy tune --max-drop {shift[0]['limit']:g}` chose a density and a mass on "
        f"{found['images']:,} images of",
        f"light clutter and checked them on as many ({choices}). What it chose meets other images here.",
        "Change of top-1, tokens kept and MAC ratio over the seeds:",
        "",
        "| images | dense | point | seeds | change | it keeps | MAC ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name in ("light", "heavy", "two objects"):
        dense = _mean_of([one[name] for one in shift], "dense_top1_percent")
        for kind in _PRUNED_KINDS:
            points = [one[name][kind] for one in shift if kind in one[name]]
            if len(points) < 2:
                lines.append(f"| {name} | {dense:.1f} % | {kind} | {len(points)} | – | – | – |")
                continue
            change = _of(point["change"]["value"] for point in points)
            kept, ratio = _mean_of(points, "kept_mean"), _mean_of(points, "mac_ratio")
            lines.append(f"| {name} | {dense:.1f} % | {kind} | {len(points)} | {change} | {kept:.1f} | {ratio:.2f} × |")
    return [*lines, ""]
