"""The server under load, over loopback, in parts that run one by one and stop by themselves.

    python -m benchmarks.serving costs
    python -m benchmarks.serving overhead
    python -m benchmarks.serving load
    python -m benchmarks.serving steady --minutes 10
    python -m benchmarks.serving killed --minutes 2
    python -m benchmarks.serving simulate

DeiT-S in int8 with random weights, exported into the workspace unless it is there. Arrivals are Poisson and open loop:
latency counts from the planned time. Requests to the adaptive artifact keep 105 ± 25 of 196 patch tokens, each its own
number; density keeps 105; the load-aware server chooses among three fixed numbers. The client runs on the same
processors as the server, and its share of them stands beside every figure. ``costs`` comes first: the target latency is
so many dense batches of eight, and the simulation computes with it. ``simulate`` needs ``load`` too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import RESULTS, THREADS, environment, read_result, write
from benchmarks.serving_artifacts import MODEL, artifacts_in
from benchmarks.serving_client import warm
from benchmarks.serving_costs import measured_costs
from benchmarks.serving_endurance import killed, steady
from benchmarks.serving_load import Kind, LoadOptions, measured_loads
from benchmarks.serving_overhead import overheads
from benchmarks.serving_process import Running, serving
from benchmarks.serving_scale import REPLICAS, autoscaled, checked, scaled
from benchmarks.serving_setup import BATCH, QUEUE, Bench, settings_of
from benchmarks.serving_simulation import Autoscaling

NAME: Final = "serving"
TARGET_BATCHES: Final = 4
"""The target latency in dense batches of eight."""

ACCURACY: Final = "0.28"
"""Density of the demonstration model whose change of top-1 stands for that of the cheapest point of the load."""

FOLLOWING: Final = 100
"""Replicas at most where their number follows the load."""

PHASE_SECONDS: Final = 90.0
"""Of each load that they follow."""

_WARM_SECONDS: Final = 3.0


def say(step: str) -> None:
    """Prints what is done or found."""
    click.echo(step, err=True)


def progress(step: str, share: float | None = None) -> None:
    """Prints a step of a stage when it begins."""
    if share is None:
        say(step)


def opened(workspace: Path, model: str) -> Bench:
    """Makes or opens the artifacts."""
    return Bench.of(artifacts_in(workspace / model, model, progress))


@contextlib.contextmanager
def server(bench: Bench, *options: object) -> Iterator[Running]:
    """Serves all three artifacts, the adaptive one first."""
    artifacts = (bench.artifacts.adaptive, bench.artifacts.dense, bench.artifacts.density)
    paths = [artifact.path for artifact in artifacts]
    say(f"starting a server {' '.join(map(str, options))}")
    with serving(*paths, "--queue", QUEUE, *options) as running:
        yield running


def result_name(model: str) -> str:
    """Returns the name of a model's result file."""
    return NAME if model == MODEL else f"{NAME}_{model}"


def parts(model: str) -> dict[str, Any]:
    """Returns the parts that were measured."""
    name = result_name(model)
    found: dict[str, Any] = read_result(name)["parts"] if (RESULTS / f"{name}.json").is_file() else {}
    return found


def part(name: str, model: str) -> dict[str, Any]:
    """Returns a part that must have been measured.

    Raises:
        click.ClickException: it was not.
    """
    found = parts(model)
    if name not in found:
        raise click.ClickException(f"{name} was not measured: python -m benchmarks.serving {name}")
    measured: dict[str, Any] = found[name]
    return measured


def keep(name: str, command: str, found: dict[str, Any], model: str) -> None:
    """Writes a part into the result file, beside the others."""
    machine: dict[str, str] = click.get_current_context().obj
    document = {"command": f"python -m benchmarks.serving {command}", "environment": machine, **found}
    known = {"model": model, "parts": parts(model) | {name: document}}
    click.echo(write(result_name(model), "python -m benchmarks.serving PART", known, machine))


_WORKSPACE: Final = click.option(
    "--workspace", type=click.Path(path_type=Path), default=Path("build/serving"), show_default=True
)
_MODEL: Final = click.option("--model", default=MODEL, show_default=True)


@click.group()
@click.pass_context
def main(context: click.Context) -> None:
    """Measure one part and write it into results/serving.json."""
    context.obj = environment("onnxruntime", "ray", "aiohttp")


@main.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="For all batches.")
@_WORKSPACE
@_MODEL
def costs(seconds: float, workspace: Path, model: str) -> None:
    """Measure what batches cost in process, and derive the target latency."""
    bench = opened(workspace, model)
    measured = measured_costs(bench.measured, bench.images, THREADS, seconds)
    for name, cost in measured.items():
        say(f"{name}: {cost}")
    found = {name: dataclasses.asdict(cost) for name, cost in measured.items()}
    tokens = bench.artifacts.dense.manifest.model.geometry.tokens
    unit = measured[Kind.DENSE.value].trunk.seconds(BATCH, BATCH * tokens)
    target = {"target_dense_batches": TARGET_BATCHES, "target_seconds": TARGET_BATCHES * unit}
    keep("costs", f"costs --seconds {seconds:g}", {"costs_seconds": found, **target}, model)


@main.command()
@click.option("--seconds", type=float, default=6.0, show_default=True, help="Of each turn.")
@click.option("--rounds", type=int, default=3, show_default=True)
@_WORKSPACE
@_MODEL
def overhead(seconds: float, rounds: int, workspace: Path, model: str) -> None:
    """Measure the server's throughput against the runner's at batch 8."""
    bench = opened(workspace, model)
    artifacts = {"dense": bench.artifacts.dense, "adaptive": bench.artifacts.adaptive}
    with server(bench, "--threads", THREADS) as running:
        kept = bench.points["quality"]
        found = overheads(running, artifacts, bench.images, kept, THREADS, seconds, rounds, say)
    keep("overhead", f"overhead --seconds {seconds:g} --rounds {rounds}", found, model)


@main.command()
@click.option("--seconds", type=float, default=12.0, show_default=True, help="Of each load.")
@click.option("--capacity-seconds", type=float, default=8.0, show_default=True)
@_WORKSPACE
@_MODEL
def load(seconds: float, capacity_seconds: float, workspace: Path, model: str) -> None:
    """Measure goodput at loads from 0.3 to 1.5 of each kind's capacity."""
    target = float(part("costs", model)["target_seconds"])
    bench = opened(workspace, model)
    ladder = ("--points", ",".join(bench.points), "--degrade", "--target-p99", f"{1000 * target:.0f}")
    threads = ("--threads", THREADS)
    with (
        server(bench, *threads) as plain,
        server(bench, *threads, "--batch", BATCH) as by_count,
        server(bench, *threads, *ladder) as load_aware,
    ):
        of_kind = {Kind.BY_COUNT: by_count, Kind.LOAD_AWARE: load_aware}
        clients = {kind: bench.client(of_kind.get(kind, plain).address, kind) for kind in Kind}
        warm(list(clients.values()), _WARM_SECONDS, say)
        found = measured_loads(clients, LoadOptions(seconds, capacity_seconds, target), say)
    command = f"load --seconds {seconds:g} --capacity-seconds {capacity_seconds:g}"
    students = read_result("demo_training")["summary"]["change_mean"][ACCURACY]["students"]["mean"]
    found |= {"seconds": seconds, "change_of_top1_points": students, "targets": _load_targets(found, students)}
    keep("load", command, found, model)


def _load_targets(found: dict[str, Any], change: float) -> dict[str, bool]:
    goodputs = found["goodput_over_dense"]
    gain, tokens, count = (goodputs[kind.value] or 0 for kind in (Kind.LOAD_AWARE, Kind.BY_TOKENS, Kind.BY_COUNT))
    return {
        "load-aware at least 1.6 of dense": gain >= 1.6,
        "its points cost the demonstration model's top-1 at most 0.5 points": change >= -0.5,
        "adaptive by tokens at least by count": tokens >= count,
    }


@main.command(name="steady")
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--capacity-seconds", type=float, default=8.0, show_default=True)
@_WORKSPACE
@_MODEL
def steady_command(minutes: float, capacity_seconds: float, workspace: Path, model: str) -> None:
    """Ask at 0.8 of capacity for some minutes: errors and memory."""
    bench = opened(workspace, model)
    with server(bench, "--threads", THREADS) as running:
        client = bench.client(running.address, Kind.BY_TOKENS)
        warm([client], _WARM_SECONDS, say)
        found = steady(running, client, 60 * minutes, capacity_seconds)
    say(str(found))
    keep("steady", f"steady --minutes {minutes:g}", found, model)


@main.command(name="killed")
@click.option("--minutes", type=float, default=2.0, show_default=True)
@click.option("--every", type=float, default=20.0, show_default=True, help="Seconds between kills.")
@click.option("--capacity-seconds", type=float, default=8.0, show_default=True)
@_WORKSPACE
@_MODEL
def killed_command(minutes: float, every: float, capacity_seconds: float, workspace: Path, model: str) -> None:
    """Ask while one of two replicas is killed every so often."""
    bench = opened(workspace, model)
    with server(bench, "--threads", 1, "--replicas", 2) as running:
        client = bench.client(running.address, Kind.BY_TOKENS)
        warm([client], _WARM_SECONDS, say)
        found = killed(running, client, 60 * minutes, capacity_seconds, every)
    say(str(found))
    keep("killed", f"killed --minutes {minutes:g} --every {every:g}", found, model)


@main.command()
@click.option("--replicas", type=int, multiple=True, default=REPLICAS, show_default=True)
@click.option("--seconds", type=float, default=6.0, show_default=True, help="Of each load at least, simulated.")
@_WORKSPACE
@_MODEL
def simulate(replicas: tuple[int, ...], seconds: float, workspace: Path, model: str) -> None:
    """Simulate the loads that were measured, and then more replicas."""
    measured_costs, measured = part("costs", model), part("load", model)
    bench = opened(workspace, model)
    settings = settings_of(bench, measured_costs, measured, bench.points)
    check = checked(settings, measured["rows"], measured["dense_capacity_per_second"], measured["seconds"])
    say(f"goodput over measured: {check['goodput_over_measured']}")
    kinds = {kind: settings[kind] for kind in (Kind.DENSE, Kind.BY_TOKENS)}
    rows = scaled(kinds, replicas, seconds)
    policy = Autoscaling(ongoing=BATCH, least=FOLLOWING // 10, most=FOLLOWING)
    follows = [autoscaled(settings[kind], kind, PHASE_SECONDS, policy) for kind in kinds]
    found = {"check": check, "scale": rows, "autoscaling": follows, "policy": dataclasses.asdict(policy)}
    keep("simulate", f"simulate --seconds {seconds:g}", found, model)


if __name__ == "__main__":
    main()
