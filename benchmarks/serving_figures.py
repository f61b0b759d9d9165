"""The figures of the server: goodput under load, overhead over the runner, endurance, and more replicas on paper."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.common import read_result
from benchmarks.serving_load import Kind

_WORDS: Final = {
    Kind.DENSE: "dense",
    Kind.DENSITY: "density, 105 tokens",
    Kind.BY_COUNT: "adaptive, batches by count",
    Kind.BY_TOKENS: "adaptive, batches by tokens",
    Kind.LOAD_AWARE: "load-aware points",
}


def serving() -> list[str]:
    """Returns the section on the server."""
    parts = read_result("serving")["parts"]
    return [
        "### The server under load",
        "",
        "DeiT-S in int8 on ONNX Runtime, random weights, adaptive requests at 105 ± 25 of 196 patch tokens, over",
        "loopback on 2 cores which the client shares. Goodput is the highest rate of Poisson arrivals at which 99 % of",
        f"the requests are answered within {parts['costs']['target_dense_batches']} dense batches of eight.",
        "",
        *_load(parts["load"]),
        *_overhead(parts["overhead"]),
        *_endurance(parts["steady"], parts["killed"]),
        *_simulated(parts["simulate"]),
        *_missed(
            {**{name: parts[name] for name in ("load", "steady", "killed")}, "simulate": parts["simulate"]["check"]}
        ),
    ]


def _load(part: dict[str, Any]) -> list[str]:
    lines = ["| requests | capacity over dense's | goodput over dense's |", "| --- | ---: | ---: |"]
    for kind, words in _WORDS.items():
        capacity, goodput = part["capacity_over_dense"][kind], part["goodput_over_dense"][kind]
        lines.append(f"| {words} | {capacity:.2f} × | {'none' if goodput is None else f'{goodput:.2f} ×'} |")
    share = max(row["client_share"] for row in part["rows"])
    return [
        *lines,
        "",
        f"The client takes at most {share:.0%} of the processors. The cheapest of the load's points costs the",
        f"demonstration model {-part['change_of_top1_points']:.1f} points of top-1 at the same share of tokens.",
        "",
    ]


def _overhead(part: dict[str, Any]) -> list[str]:
    found = ", ".join(
        f"{row['throughput_over_runner']:.2f} ({row['artifact']}, {row['images_per_request']} in a request)"
        for row in part["rows"]
    )
    reached = sum(row["reached"] for row in part["rows"])
    return [
        f"Throughput through HTTP over the runner's own at batch {part['batch']}:",
        f"{found}. The target is {1 - part['most_overhead']:.2f}; {reached} of {len(part['rows'])} reach it.",
        "",
    ]


def _endurance(steady: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    minutes = f"{steady['seconds'] / 60:.0f} minutes at {steady['share_of_capacity']:.1f} of capacity"
    kills = f"{killed['seconds'] / 60:.0f} minutes with {killed['kills']} kills of a replica"
    return [
        f"{minutes}: {_answered(steady)}, memory {steady['memory_growth']:+.1%}.",
        f"{kills}: {_answered(killed)}.",
        "",
    ]


def _answered(part: dict[str, Any]) -> str:
    found = f"{part['requests']:,} requests, {part['answered']:,} answered, {part['refused']:,} got 503"
    return f"{found}, {part['unanswered']:,} no answer"


def _simulated(part: dict[str, Any]) -> list[str]:
    check = part["check"]["goodput_over_measured"]
    checked = ", ".join(
        f"{_WORDS[Kind(kind)]} {'none' if ratio is None else f'{ratio:.2f}'}" for kind, ratio in check.items()
    )
    rows = part["scale"]
    counts = sorted({row["replicas"] for row in rows})
    lines = [
        "A simulation from the costs of batches alone, its goodput over the measured:",
        f"{checked}.",
        "Goodput of more replicas, simulated, as a share of all their capacity:",
        "",
        "| requests | " + " | ".join(f"{count:,}" for count in counts) + " |",
        "| --- |" + " ---: |" * len(counts),
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        shares = [row["goodput_over_capacity"] for row in rows if row["kind"] == kind]
        lines.append(f"| {_WORDS[Kind(kind)]} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return [*lines, ""]


def _missed(parts: dict[str, Any]) -> list[str]:
    missed = [
        f"{target} ({name})"
        for name, part in parts.items()
        for target, reached in part["targets"].items()
        if not reached
    ]
    return [f"Targets missed beside that: {', '.join(missed)}.", ""] if missed else []
