"""The comparison of runtimes and precisions in its short form: a small model and hardly any time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import runtime_figures
from benchmarks.common import OPENVINO_LOWERING, read_result
from benchmarks.precisions_cpu import PRECISIONS, fastest_dense, memory_of, rows_of
from sait_deploy.bench.groups import with_baseline
from sait_deploy.bench.options import AccuracyOf, Also, BenchOptions
from sait_deploy.bench.run import bench
from tests.exported import TinyExport
from tests.siblings import with_int8


@pytest.mark.slow
def test_rows_are_ratios_to_the_own_and_to_the_fastest_dense(tiny: TinyExport, tmp_path: Path) -> None:
    with_int8(tmp_path, tiny.dense, tiny.half)
    artifacts = with_baseline([tmp_path / tiny.half.path.name])
    options = BenchOptions(
        batches=(2,),
        runtimes=("onnxruntime",),
        precisions=PRECISIONS,
        threads=1,
        accuracy=AccuracyOf.NONE,
        warmup=1,
        duration=0.2,
        also=frozenset({Also.MEMORY}),
    )
    report = bench(artifacts, options)
    rows = rows_of(report)
    assert {(row["group"], row["variant"]) for row in rows} == {
        (f"onnxruntime {precision}", variant) for precision in ("fp32", "int8") for variant in ("dense", "density 0.5")
    }
    best = fastest_dense(report)[2]
    by_name = {(row["group"], row["variant"]): row for row in rows}
    assert by_name[best, "dense"]["over_fastest_dense"]["median"] == pytest.approx(1)
    assert by_name["onnxruntime fp32", "dense"]["over_flat_fp32"] == pytest.approx(1)
    half = by_name["onnxruntime fp32", "density 0.5"]
    assert half["share"] == pytest.approx(half["over_own_dense"]["median"] / half["mac_ratio"])
    assert {row["group"] for row in memory_of(report)} == {"onnxruntime fp32", "onnxruntime int8"}
    assert {skip.asked for skip in report.skipped} == set(PRECISIONS) - {"fp32", "int8"}


@pytest.mark.parametrize("name", ["precisions", "peers"])
def test_figures_say_where_graphs_for_openvino_were_other_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = read_result(f"{name}_cpu")["environment"][OPENVINO_LOWERING]
    for lowering, is_said in ((measured, False), (int(measured) + 1, True)):
        monkeypatch.setattr(runtime_figures, "LOWERING", lowering)
        assert (f"graphs of lowering {measured}" in "\n".join(getattr(runtime_figures, name)())) is is_said
