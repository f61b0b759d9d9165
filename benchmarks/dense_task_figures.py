"""The figures of a linear segmentation head on pruned tokens, from ``results/segmentation.json``."""

from __future__ import annotations

from typing import Any

from benchmarks.common import read_result


def segmentation_table() -> list[str]:
    """Returns mean IoU by head, and with the head of dense features, a row for each backbone; also in docs/."""
    found = read_result("segmentation")
    rows = {(row["backbone"], row["head"]): row for row in found["rows"]}
    heads = list(dict.fromkeys(head for _, head in rows))
    titles = (f"{head}: {what}" for head in heads for what in ("mean IoU", "over dense", "with dense's head"))
    lines = [f"| tokens kept | {' | '.join(titles)} |", f"| --- |{' ---: |' * (3 * len(heads))}"]
    for name in dict.fromkeys(backbone for backbone, _ in rows):
        cells = [cell for head in heads for cell in _cells(rows[name, head])]
        lines.append(f"| {name.replace('density ', '')} | {' | '.join(cells)} |")
    return lines


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    own, gap, put = (row[name] for name in ("mean_iou", "over_dense", "dense_head_mean_iou"))
    if row["backbone"] == "dense":
        return f"{own['mean']:.1f} ± {own['sd']:.1f}", "", ""
    return f"{own['mean']:.1f}", f"{gap['mean']:+.1f} ± {gap['sd']:.1f}", f"{put['mean']:.1f}"


def segmentation() -> list[str]:
    """Returns the section on segmentation."""
    found = read_result("segmentation")
    seeds, trained, judged = len(found["seeds"]), found["trained_on"], found["judged_on"]
    return [
        "### Segmentation",
        "",
        "Mean IoU in percent of a linear head on the demonstration model's tokens, which is not trained for it;",
        f"{found['classes']} classes with the background. Mean ± standard deviation over {seeds} seeds, each with",
        f"{trained} composed images to train a head on and {judged} held-out ones; gaps are paired by seed.",
        "",
        *segmentation_table(),
        "",
    ]
