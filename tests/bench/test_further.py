"""Memory in a process of its own, and what the machine can do: figures that can be, and notes where there are none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.machine_results import PeakMemory
from sait_deploy.bench.machine_tables import memory_table, rates_table, shares_table
from sait_deploy.bench.memory import INPUTS_FILE, MemoryRequest, measure_memory
from sait_deploy.bench.results import Report
from sait_deploy.bench.roofline import memory_rate, product_rate
from sait_deploy.bench.run import Also, BenchOptions, bench
from sait_deploy.bench.variants import NO_SWEEP, Sweep, runnable_variants
from sait_deploy.engine.trust import Consent, EngineTrust, HostCode
from sait_deploy.errors import ArtifactError, RuntimeUnavailable
from sait_deploy.reports.table import Severity, Table
from sait_deploy.runtime import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from tests.exported import TinyExport
from tests.tiny import random_batch

ORT = "onnxruntime"
BOTH = frozenset({Also.MEMORY, Also.ROOFLINE})
QUICK = BenchOptions(batches=(1, 2), threads=1, images=demo.IMAGES / "3", warmup=0, duration=0.01, also=BOTH)


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Products and copies run as seldom as can be, and little is copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sait_deploy.bench.roofline._SECONDS", 0.0)
        patch.setattr("sait_deploy.bench.roofline._LEAST_BYTES", 1 << 22)
        yield


@pytest.fixture(scope="module")
def report(tiny: TinyExport) -> Report:
    return bench([tiny.dense, tiny.half], QUICK)


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_every_variant_has_its_peak_at_the_largest_batch(report: Report) -> None:
    assert report.memory is not None
    assert [(one.variant, one.batch) for one in report.memory] == [(variant.id, 2) for variant in report.variants]
    for one in report.memory:
        assert 20e6 < one.imported_bytes < one.peak_bytes < 2e9
        assert one.own_bytes == one.peak_bytes - one.imported_bytes > 0
    dense, half = texts(memory_table(report))
    assert (dense[0], dense[1], dense[-1]) == ("dense", "2", "–") and float(half[-1]) > 0


def test_a_larger_batch_takes_more_memory(tiny_adaptive: Artifact, tiny: TinyExport) -> None:
    """At a named point and with numbers of tokens that are forced, which travel with the images."""
    plan = GroupPlan(ORT, RunPrecision.FP32, (tiny.dense, tiny_adaptive))
    sweep = Sweep(points=("fast",), kept=(KeptDistribution(12, 5),))
    _, fast, forced = runnable_variants([tiny.dense, tiny_adaptive], sweep)
    small, large = (measure_memory(plan, fast, random_batch((n, 3, 96, 96)), 1) for n in (1, 256))
    assert large.own_bytes > small.own_bytes + 10e6
    assert measure_memory(plan, forced, random_batch((3, 3, 96, 96)), 1).batch == 3


def test_a_process_that_fails_says_why(tiny: TinyExport) -> None:
    (dense,) = runnable_variants([tiny.dense], NO_SWEEP)
    broken = GroupPlan(ORT, RunPrecision.BF16, (tiny.dense,))
    with pytest.raises(RuntimeUnavailable, match=r"without an answer: .*cannot run test_vit-96px-dense.* in bf16"):
        measure_memory(broken, dense, random_batch((1, 3, 96, 96)), 1)


def test_the_process_whose_memory_is_measured_has_the_consent_of_this_one(tmp_path: Path) -> None:
    consent = Consent(EngineTrust.ANY, HostCode.ALLOWED)
    request = MemoryRequest("here", "torch", 1, None, "cpu", None, dataclasses.asdict(consent))
    request.write(tmp_path)
    np.savez(tmp_path / INPUTS_FILE, images=random_batch((1, 3, 96, 96)))
    assert MemoryRequest.read(tmp_path)[0].running == RunOptions(1, consent=consent)


def test_what_has_no_memory_is_a_warning(tiny: TinyExport, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> PeakMemory:
        raise RuntimeUnavailable("its process ended without an answer: killed")

    monkeypatch.setattr("sait_deploy.bench.further.measure_memory", fail)
    report = bench([tiny.dense], replace(QUICK, also=frozenset({Also.MEMORY})))
    assert (report.memory, report.roofline) == ((), None)
    (note,) = (note for note in report.notes if "memory" in note.text)
    assert note.severity is Severity.WARNING
    assert note.text == "the memory of dense was not measured: its process ended without an answer: killed"


def test_the_rates_are_those_of_what_ran(report: Report, tiny: TinyExport) -> None:
    roofline = report.roofline
    assert roofline is not None
    (rate,) = roofline.rates
    assert (rate.runtime, rate.precision) == (ORT, RunPrecision.FP32)
    assert 1e8 < rate.operations_per_second < 1e14 and 1e8 < roofline.bytes_per_second < 1e13
    assert roofline.parameters == tiny.dense.manifest.model.parameters
    processor = report.environment["processor"]
    products, memory = texts(rates_table(report))
    assert products[:2] == [f"matrix products on {ORT} in fp32", processor]
    assert memory[:2] == ["memory, reading and writing", processor]


def test_a_gpus_rates_are_its_own(report: Report) -> None:
    """Weights are read from the memory of the device that the group ran on, and the table names both devices."""
    assert report.roofline is not None
    there = dataclasses.replace(report.roofline.rates[0], device="NVIDIA Test", by="torch", operations_per_second=1e12)
    known = dataclasses.replace(
        report.roofline, parameters=10**6, rates=(there,), bytes_per_second=4e9, device_bytes_per_second={}
    )
    row = dataclasses.replace(report.rows[0], macs=10**9, images_per_second=100.0)
    for copies, share in (({"NVIDIA Test": 8e9}, "5.0"), ({}, "–")):
        roofline = dataclasses.replace(known, device_bytes_per_second=copies)
        found = dataclasses.replace(report, rows=(row,), roofline=roofline)
        assert texts(shares_table(found)) == [["1", "dense", "fp32", "20", share]]
    found = dataclasses.replace(
        report, roofline=dataclasses.replace(known, device_bytes_per_second={"NVIDIA Test": 8e9})
    )
    assert texts(rates_table(found)) == [
        [f"matrix products on torch in fp32, for {ORT}", "NVIDIA Test", "1000 G operations/s"],
        ["memory, reading and writing", report.environment["processor"], "4.00 GB/s"],
        ["memory, reading and writing", "NVIDIA Test", "8.00 GB/s"],
    ]
    assert from_json(to_json(found)).roofline == found.roofline


def test_a_report_from_before_devices_were_named_is_read(report: Report) -> None:
    data = json.loads(to_json(report))
    del data["roofline"]["device_bytes_per_second"]
    for rate in data["roofline"]["rates"]:
        del rate["device"], rate["by"]
    assert from_json(json.dumps(data)).roofline == report.roofline


def test_shares_are_of_the_rates(report: Report) -> None:
    assert report.roofline is not None
    row, rate = report.rows[0], dataclasses.replace(report.roofline.rates[0], operations_per_second=1e12)
    row = dataclasses.replace(row, macs=10**9, images_per_second=100.0)
    known = dataclasses.replace(report.roofline, parameters=10**6, rates=(rate,), bytes_per_second=4e9)
    table = shares_table(dataclasses.replace(report, rows=(row,), roofline=known))
    assert texts(table) == [["1", "dense", "fp32", "20", "10.0"]]
    assert [note.severity for note in table.notes] == [Severity.INFO]
    slow = dataclasses.replace(known, rates=(dataclasses.replace(rate, operations_per_second=1e11),))
    table = shares_table(dataclasses.replace(report, rows=(row,), roofline=slow))
    assert texts(table)[0][3] == "200" and table.notes[-1].severity is Severity.WARNING
    none = dataclasses.replace(known, rates=())
    assert texts(shares_table(dataclasses.replace(report, rows=(row,), roofline=none)))[0][3] == "–"


def test_a_report_with_both_is_read_as_it_was_written(report: Report) -> None:
    back = from_json(to_json(report))
    assert (back.memory, back.roofline) == (report.memory, report.roofline)
    assert report.memory is not None and report.roofline is not None
    small = dataclasses.replace(report.memory[0], peak_bytes=1)
    none = dataclasses.replace(report.roofline, bytes_per_second=0.0)
    stopped = dataclasses.replace(report.roofline, device_bytes_per_second={"NVIDIA Test": 0.0})
    for wrong in ({"memory": (small,)}, {"roofline": none}, {"roofline": stopped}):
        with pytest.raises(ArtifactError, match="contradicts itself"):
            from_json(to_json(dataclasses.replace(report, **wrong)))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", [RunPrecision.FP32, RunPrecision.INT8])
def test_products_run_in_the_precision_asked_for(tiny: TinyExport, precision: RunPrecision) -> None:
    for runtime in (ORT, "openvino"):
        if runtime == "openvino":
            pytest.importorskip("openvino")
        try:
            rate = product_rate(tiny.dense.manifest, GroupPlan(runtime, None, ()), precision, 1)
        except RuntimeUnavailable as error:  # a processor without it says so
            assert precision in error.message
            continue
        assert np.isfinite(rate.operations_per_second) and rate.operations_per_second > 1e8


def test_memory_is_copied_by_as_many_threads_as_are_asked_for() -> None:
    assert memory_rate(1) > 1e8 and memory_rate(3) > 1e8
