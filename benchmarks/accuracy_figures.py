"""The README's section on what dense/sparse training does, from ``results/demo_training.json``."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.common import read_result

_TOLD_MASS: Final = "mass0.9"
_TOLD_PAIRS: Final = (("mass", "density"), ("density", "lower-resolution"))
_PARTS: Final = {
    "teacher": "plain weights, the teacher's",
    "dense-0": "plain weights, trained on as long",
    "no-distillation-0": "dense/sparse, labels alone",
    "student-0": "dense/sparse, logits and importance",
    "epoch-0": "the same, alternating epochs",
    "teacher by cls": "plain weights, the teacher's, `cls`",
    "cls-0": "dense/sparse, logits and importance, `cls`",
}


def _spread(values: dict[str, float]) -> str:
    return f"{values['mean']:+.2f} ± {values['sd']:.2f}"


def accuracy() -> list[str]:
    """Returns the section on accuracy."""
    found = read_result("demo_training")
    summary = found["summary"]
    dense = summary["dense_top1_mean"]
    students, plain = dense["students"], dense["dense-only"]
    seeds = sum(name.startswith("student") for name in found["evaluations"])
    lines = [
        "### Accuracy",
        "",
        f"The demonstration model (96 px, 144 patch tokens, pruned inside block 1 of 6) on {found['images']:,}",
        "held-out compositions: digits of 2 to 6 times their size among clutter, on shades and photographs. One dense",
        f"teacher; from its weights {seeds} students trained dense/sparse with distillation, and {seeds} plain models",
        "trained dense for as long.",
        f"Dense, the students are {students['mean']:.2f} ± {students['sd']:.2f} % right, the plain models "
        f"{plain['mean']:.2f} ± {plain['sd']:.2f} %",
        "(mean and standard deviation over seeds; the teacher is the same for all, and so are the 360 digits and the",
        "4 photographs that the images are composed of).",
        "Change of top-1 in points against the same weights run dense:",
        "",
        "| density | MACs saved | trained dense/sparse | plain weights |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for density, saved in summary["macs_saved_percent"].items():
        change = summary["change_mean"][density]
        lines.append(f"| {density} | {saved:.0f} % | {_spread(change['students'])} | {_spread(change['dense-only'])} |")
    return [*lines, "", *_first_student(found), *_ablation(summary), *_shift(found)]


def _first_student(found: dict[str, Any]) -> list[str]:
    evaluation = found["evaluations"]["student-0"]
    lines = [
        "The first student, which ships, beside its controls and the dense model on smaller images:",
        "",
        "| | MAC ratio | kept, mean / p95 / most | change of top-1 [95 %] | answers changed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in evaluation["rows"]:
        change = row["top1_change"]
        if change is None or row["id"].startswith("kept"):
            continue
        kept = f"{row['kept_mean']:.1f} / {row['kept_p95']:.0f} / {row['kept_max']}"
        lines.append(
            f"| {row['label']} | {row['mac_ratio']:.2f} × | {kept} | {change['value']:+.1f} "
            f"[{change['low']:+.1f}, {change['high']:+.1f}] | {100 - row['agreement_percent']:.1f} % |"
        )
    return [*lines, "", *_rivals(evaluation), *_kept_by(evaluation)]


def _rivals(evaluation: dict[str, Any]) -> list[str]:
    kinds = {row["id"]: row["kind"] for row in evaluation["rows"]}
    labels = {row["id"]: row["label"] for row in evaluation["rows"]}
    lines = [
        "Against what costs the same, or a little more where it cannot be equal; paired by image, points of top-1:",
        "",
        "| | rival | equal | difference [95 %] |",
        "| --- | --- | --- | ---: |",
    ]
    for one in evaluation["comparisons"]:
        if (kinds[one["first"]], kinds[one["second"]]) in _TOLD_PAIRS:
            difference = one["difference"]
            lines.append(
                f"| {labels[one['first']]} | {labels[one['second']]} | {one['basis'].removeprefix('equal ')} "
                f"| {difference['value']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}] |"
            )
    return [*lines, ""]


def _kept_by(evaluation: dict[str, Any]) -> list[str]:
    lines = []
    for grouping in ("digit size", "fragments", "background"):
        groups = [s for s in evaluation["strata"] if s["grouping"] == grouping and s["row"] == _TOLD_MASS]
        lines.append(f"- by {grouping}: " + ", ".join(f"{s['kept_mean']:.1f} ({s['name']})" for s in groups))
    return [f"Tokens kept at {_TOLD_MASS.replace('mass', 'mass ')}:", "", *lines, ""]


def _ablation(summary: dict[str, Any]) -> list[str]:
    densities = list(summary["change"])
    lines = [
        "What each part does, one seed, by `mean` where `cls` is not named; top-1, and its change at each density:",
        "",
        f"| | dense | {' | '.join(densities)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in densities)} |",
    ]
    for name, words in _PARTS.items():
        if name in summary["dense_top1_percent"]:
            changes = " | ".join(f"{summary['change'][density][name]:+.1f}" for density in densities)
            lines.append(f"| {words} | {summary['dense_top1_percent'][name]:.1f} % | {changes} |")
    return [*lines, ""]


def _shift(found: dict[str, Any]) -> list[str]:
    shift = [one for one in found["shift"].values() if one["mass"] is not None]
    chosen = ", ".join(one["mass"] for one in shift)
    lines = [
        f"Shift: for each seed the cheapest mass that lost at most half a point on light clutter ({chosen}), and",
        "the density that cost as much there, meet other images. Change of top-1, and tokens kept, means over seeds:",
        "",
        "| images | dense | mass | it keeps | density | it keeps |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("light", "heavy", "two objects"):
        rows = [one[name] for one in shift]

        def mean(kind: str, field: str, rows: list[dict[str, Any]] = rows) -> float:
            values = [row[kind]["change"]["value"] if field == "change" else row[kind][field] for row in rows]
            return float(sum(values)) / len(values)

        dense = sum(row["dense_top1_percent"] for row in rows) / len(rows)
        lines.append(
            f"| {name} | {dense:.1f} % | {mean('mass', 'change'):+.2f} | {mean('mass', 'kept_mean'):.1f} "
            f"| {mean('density', 'change'):+.2f} | {mean('density', 'kept_mean'):.1f} |"
        )
    return [*lines, ""]
