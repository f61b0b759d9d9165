"""The figures of time and memory over image size and batch."""

from __future__ import annotations

from typing import Any

from benchmarks.common import read_result


def cost_curve() -> list[str]:
    """Returns the section on larger images."""
    found = read_result("cost_curve")
    lines = [
        "### Larger images",
        "",
        "DeiT-S from 224 to 1,024 px (196 to 4,096 patch tokens), random weights,",
        f"{found['threads']} threads: how many times as fast as dense density {found['density']} and",
        "the adaptive form at the same mean count are, at each batch size;",
        "in brackets the peak memory over dense's. Cells over 60 s a run or 12 GB are left out.",
        "",
    ]
    for setting in found["settings"]:
        lines += _of_setting(setting)
    return lines


def _of_setting(setting: dict[str, Any]) -> list[str]:
    cells = {(one["form"], one["size"], one["batch"]): one for one in setting["against_dense"]}
    batches = sorted({batch for _, _, batch in cells})
    lines = [
        f"{setting['setting'].replace('-', ', ')}:",
        "",
        "| form | px | MAC ratio | " + " | ".join(f"batch {batch}" for batch in batches) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(batches),
    ]
    for form, size in dict.fromkeys((form, size) for form, size, _ in sorted(cells)):
        row = [cells.get((form, size, batch)) for batch in batches]
        ratio = next(one["mac_ratio"] for one in row if one)
        shown = " | ".join(f"{one['speedup']:.2f} × ({one['memory_over_dense']:.2f})" if one else "–" for one in row)
        lines.append(f"| {form} | {size} | {ratio:.2f} × | {shown} |")
    grown = ", ".join(
        f"{one['form']} {one['seconds']:.2f} (memory {one['peak_memory']:.2f})"
        for one in setting["exponents"]
        if one["batch"] == 1
    )
    starts: dict[tuple[str, int | None], list[str]] = {}
    for one in setting["pays_from"]:
        starts.setdefault((one["form"], one["size"]), []).append(str(one["batch"]))
    pays = "; ".join(
        f"{form} {'nowhere' if size is None else f'from {size} px'} at batch {', '.join(batches)}"
        for (form, size), batches in starts.items()
    )
    return [
        *lines,
        "",
        f"Time of one image grows with the tokens to the power of: {grown}.",
        f"Faster than dense in every round: {pays}.",
        "",
    ]
