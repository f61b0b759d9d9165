"""Evaluations at the equal time of a benchmark: of the same weights, whatever they run as, and of no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.bench.jsonform import to_json
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Basis, Evaluation
from sait_deploy.evaluation.rivals import ModelInBench, read_bench_times
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import OperatingPoint
from tests.evaluation.blotches import labelled_by, noise, row_of, small
from tests.evaluation.test_rivals import Times, report_of
from tests.exported import IMAGE_SIZE, TinyExport
from tests.tiny import HALF, randomised, save_weights

PRUNE_AT = 1
OPTIONS = EvaluateOptions(points=(mass_point(0.6),), lower_resolutions=())


def reopened(weights: Path) -> LoadedModel:
    """The exported model, read from a weights file again."""
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, weights), IMAGE_SIZE)


def equal_times(found: Evaluation) -> set[tuple[str, str]]:
    return {(one.first, one.second) for one in found.comparisons if one.basis is Basis.EQUAL_TIME}


def kept_of(found: Evaluation, more: int = 0) -> list[int]:
    """As many tokens as mass 0.6 kept of each image on average, or so many more."""
    total = round(row_of(found, "mass0.6").kept_mean * found.images)
    return [total // found.images + (i < total % found.images) + more for i in range(found.images)]


def test_equal_time_is_told_from_a_benchmark(tmp_path: Path) -> None:
    loaded = small()
    times: Times = {16: 16.0, 8: 9.0, 4: 5.0, OperatingPoint(0.6, 1, 16): 8.0}
    path, dataset = tmp_path / "bench.json", labelled_by(loaded)
    options = dataclasses.replace(OPTIONS, prune_at=PRUNE_AT)
    before = evaluate(loaded, dataset, options)
    options = dataclasses.replace(options, bench_report=path)

    def evaluated(kept: Sequence[int]) -> Evaluation:
        report = report_of(times, weights=loaded.weights.sha256, prune_at=PRUNE_AT, kept=kept)
        path.write_text(to_json(dataclasses.replace(report, model="small")))
        return evaluate(loaded, dataset, options)

    found = evaluated(kept_of(before))

    assert equal_times(found) == {("mass0.6", "kept7")}
    assert row_of(found, "kept7").kept_max == 7
    assert any("bench.json at batch 4 on onnxruntime" in note.text for note in found.notes)
    assert row_of(before, "mass0.6").kept_mean < 8, "a token is a millisecond there"
    assert equal_times(evaluated(kept_of(before, more=1))) == {("mass0.6", "kept6")}
    beyond = evaluated(kept_of(before, more=4))
    assert not equal_times(beyond)
    assert any("every density measured takes longer than mass 0.6 on these" in note.text for note in beyond.notes)
    with pytest.raises(InvalidArgument, match=r"has not measured mass 0\.7 with"):
        evaluate(loaded, noise(2), dataclasses.replace(options, points=(mass_point(0.7),)))
    with pytest.raises(InvalidArgument, match="no mass is evaluated"):
        evaluate(loaded, noise(2), dataclasses.replace(options, points=(), densities=(HALF,)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_benchmark_of_artifacts_has_the_hash_of_the_file_that_they_were_exported_from(
    tiny: TinyExport,
    tiny_fp16: TinyExport,
    tiny_adaptive: Artifact,
    tiny_adaptive_fp16: Artifact,
    tmp_path: Path,
    precision: str,
) -> None:
    whole, adaptive = (tiny, tiny_adaptive) if precision == "fp32" else (tiny_fp16, tiny_adaptive_fp16)
    options = BenchOptions(batches=(1,), threads=1, images=demo.IMAGES / "3", warmup=0, duration=0.02)
    report = bench([whole.dense, whole.half, adaptive], options)
    path = tmp_path / "bench.json"
    path.write_text(to_json(report))

    # Weights in half precision are made of those in the file, which the hash is of.
    model, pruning = reopened(tiny.weights), adaptive.manifest.pruning
    assert pruning is not None
    in_bench = ModelInBench(model.info.name, model.weights.sha256, model.info.geometry, pruning.score, pruning.prune_at)
    times = read_bench_times(path, in_bench, None, None)

    assert {variant.weights_sha256 for variant in report.variants} == {model.weights.sha256}
    assert tuple(times.points) == tuple(adaptive.manifest.operating_points.values())
    assert len(times.densities) == 2


def test_equal_time_is_told_of_the_same_weights_whatever_runs_them_and_of_no_others(
    tiny: TinyExport, tiny_adaptive: Artifact, tiny_adaptive_fp16: Artifact, tmp_path: Path
) -> None:
    pruning, path = tiny_adaptive.manifest.pruning, tmp_path / "bench.json"
    assert pruning is not None
    model, dataset = reopened(tiny.weights), labelled_by(tiny.model, 6)
    times: Times = {36: 36.0, 9: 9.0, OperatingPoint(0.6, 1, 36): 18.0}
    options = dataclasses.replace(OPTIONS, bench_report=path)

    kept = kept_of(evaluate(tiny_adaptive, dataset, OPTIONS))

    def bench_of(weights: str) -> None:
        path.write_text(to_json(dataclasses.replace(report_of(times, weights=weights, kept=kept), model="test_vit")))

    def evaluations() -> list[Evaluation]:
        return [
            evaluate(model, dataset, dataclasses.replace(options, score=pruning.score, prune_at=pruning.prune_at)),
            *(evaluate(one, dataset, options) for one in (tiny_adaptive, tiny_adaptive_fp16)),
        ]

    bench_of(tiny.dense.manifest.weights.sha256)
    assert [equal_times(found) for found in evaluations()] == [{("mass0.6", "kept18")}] * 3
    other = reopened(save_weights(randomised(reopened(tiny.weights).vit, seed=4), tmp_path / "other.safetensors"))
    bench_of(other.weights.sha256)
    said = f"bench.json is a benchmark of weights {other.weights.sha256[:12]}….*, not of {model.weights.sha256[:12]}…"
    with pytest.raises(InvalidArgument, match=said):
        evaluate(model, dataset, dataclasses.replace(options, score=pruning.score, prune_at=pruning.prune_at))
    for artifact in (tiny_adaptive, tiny_adaptive_fp16):
        with pytest.raises(InvalidArgument, match=said):
            evaluate(artifact, dataset, options)
