"""The benchmark of the demonstration: of the points that are evaluated, by a command as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import demo_bench
from benchmarks.common import RESULTS, THREADS
from benchmarks.demo_runs import load
from benchmarks.demo_training import DENSITIES, MASSES
from sait_deploy import demo
from sait_deploy.cli.bench import command
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.models.registry import LoadedModel
from tests.tiny import save_weights

Begun = tuple[list[tuple[LoadedModel, ExportOptions]], list[list[str]]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """Exports and commands that were asked for: to run them takes minutes."""
    exports: list[tuple[LoadedModel, ExportOptions]] = []
    commands: list[list[str]] = []

    def export(model: LoadedModel, options: ExportOptions, _: object) -> None:
        exports.append((model, options))

    def run(arguments: list[str], check: bool) -> None:
        assert check
        commands.append(arguments)

    monkeypatch.setattr(demo_bench, "export_model", export)
    monkeypatch.setattr(subprocess, "run", run)
    return exports, commands


def test_what_is_evaluated_is_exported_and_measured(
    begun: Begun,
) -> None:
    result = CliRunner().invoke(demo_bench.main, [])
    assert result.exit_code == 0, result.output
    ((model, options),), ((python, *arguments),) = begun
    assert model.weights.sha256 == load(demo.WEIGHTS).weights.sha256
    assert set(DENSITIES) < set(options.densities)
    assert options.points == MASSES
    assert len(plan_exports(model, options)) == len(options.densities) + 2
    assert (python, arguments[:3]) == (sys.executable, ["-m", "sait_deploy", "bench"])
    given = command.make_context("bench", arguments[3:]).params
    assert (given["workspace"], given["batches"], given["threads"]) == (options.output, str(demo_bench.BATCH), THREADS)
    assert RESULTS / "demo_bench.json" in given.values()


def test_a_density_of_equal_time_lies_between_measured_ones() -> None:
    """What a mass keeps at least is more than what the least density measured keeps."""
    least = 144 * min(demo_bench.LOWEST)
    assert min(demo_bench.LOWEST) < min(DENSITIES)
    assert all(least < point.min_keep for point in MASSES if point.min_keep > 1)


def test_other_weights_can_be_measured(begun: Begun, tmp_path: Path) -> None:
    weights = save_weights(load(None).vit, tmp_path / "other.safetensors")
    result = CliRunner().invoke(demo_bench.main, ["--weights", str(weights)])
    assert result.exit_code == 0, result.output
    ((model, _),), _ = begun
    assert model.weights.sha256 == load(weights).weights.sha256 != load(demo.WEIGHTS).weights.sha256
