"""What torch does at most where a group runs: on a processor in a GPU's place, and on a GPU where there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sait_deploy import demo
from sait_deploy.bench import device_rates
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.machine_tables import rates_table
from sait_deploy.bench.roofline import device_memory_rate, product_rate
from sait_deploy.bench.run import Also, BenchOptions, bench
from sait_deploy.errors import InvalidArgument, RuntimeUnavailable
from sait_deploy.runtime.cuda_graphs import Execution, OnHost
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import RUNTIMES
from tests.exported import TinyExport
from tests.runtime import on_host

ON_GPU = [name for name, runtime in RUNTIMES.items() if runtime.on_gpu]
NAME = "NVIDIA Test"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sait_deploy.bench.roofline._SECONDS", 0.0)
    monkeypatch.setattr("sait_deploy.bench.roofline._LEAST_BYTES", 1 << 22)
    monkeypatch.setattr("sait_deploy.bench.device_rates._SIDE_ON_HOST", 64)


@pytest.fixture
def in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that is taken for a GPU."""
    monkeypatch.setattr(device_rates, "execution_of", lambda *_: OnHost())
    monkeypatch.setattr(device_rates, "device_name", lambda _: NAME)
    monkeypatch.setattr("sait_deploy.bench.roofline._LEAST_DEVICE_BYTES", 1 << 22)


def test_runtimes_of_gpus_are_known() -> None:
    assert ON_GPU == ["onnxruntime-cuda", "tensorrt", "tensorrt-rtx", "torch-cuda"]


@pytest.mark.usefixtures("in_its_place")
@pytest.mark.parametrize("runtime", ON_GPU)
def test_a_gpus_products_are_torchs_and_named(tiny: TinyExport, runtime: str) -> None:
    plan = GroupPlan(runtime, None, ())
    rate = product_rate(tiny.dense.manifest, plan, RunPrecision.FP32, 1)
    assert (rate.runtime, rate.device, rate.by) == (runtime, NAME, "torch")
    assert 1e6 < rate.operations_per_second < 1e14
    copied = device_memory_rate(plan)
    assert copied is not None and 1e8 < copied < 1e13


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("runtime", ON_GPU)
def test_without_a_gpu_there_is_no_rate(tiny: TinyExport, runtime: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="finds no NVIDIA GPU"):
        product_rate(tiny.dense.manifest, GroupPlan(runtime, None, ()), RunPrecision.FP32, 1)


def test_torch_is_timed_on_the_device_asked_for(tiny: TinyExport) -> None:
    plan = GroupPlan("torch", None, ())
    rate = product_rate(tiny.dense.manifest, plan, RunPrecision.FP32, 1)
    assert (rate.runtime, rate.device, rate.by) == ("torch", "", "torch")
    assert device_memory_rate(plan) is None, "the processors' memory is the host's"
    assert device_memory_rate(GroupPlan("onnxruntime", None, ())) is None
    with pytest.raises(InvalidArgument, match="not on 'meta'"):
        product_rate(tiny.dense.manifest, dataclasses.replace(plan, device="meta"), RunPrecision.FP32, 1)


class Watched(OnHost):
    """Keeps what was recorded, and counts replays."""

    def __init__(self) -> None:
        self.outputs: Any = None
        self.timings = 0

    def record(self, compute: Callable[[], Any]) -> Any:
        recorded = super().record(compute)
        self.outputs = recorded.outputs
        return recorded

    def timed(self, call: Callable[[], Any]) -> float | None:
        call()
        self.timings += 1
        return 0.5


@pytest.mark.parametrize("precision", list(RunPrecision))
def test_what_is_timed_is_a_product_in_that_precision(precision: RunPrecision) -> None:
    execution = Watched()
    operations, call = device_rates.products(execution, precision)
    kinds = {RunPrecision.FP32: torch.float32, RunPrecision.BF16: torch.bfloat16, RunPrecision.FP16: torch.float16}
    assert execution.outputs.dtype == kinds.get(precision, torch.int32)
    assert execution.outputs.float().std() > 1, "sums of random products, no zeros"
    assert (operations, call(), execution.timings) == (2 * 64**3, 0.5, 1)


def test_what_is_copied_is_all_of_it() -> None:
    execution = Watched()
    copied, call = device_rates.copy(execution, 1 << 20)
    assert (copied, call()) == (2 << 20, 0.5)
    assert execution.outputs.nbytes == 1 << 20
    assert execution.outputs.unique().numel() > 1 << 16


def test_a_device_that_refuses_is_an_error_of_ours() -> None:
    class Full(OnHost):
        def record(self, compute: Callable[[], Any]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto")

    for make in (lambda one: device_rates.copy(one, 8), lambda one: device_rates.products(one, RunPrecision.FP32)):
        with pytest.raises(RuntimeUnavailable, match=r"torch cannot work on cpu: CUDA out of memory\. Tried$"):
            make(Full())


@pytest.fixture
def _registered() -> Iterator[None]:
    RUNTIMES[on_host.NAME] = dataclasses.replace(on_host.ENTRY, on_gpu=True)
    yield
    del RUNTIMES[on_host.NAME]


@pytest.mark.usefixtures("_registered", "in_its_place")
def test_a_benchmark_says_what_the_gpu_it_ran_on_can_do(tiny: TinyExport) -> None:
    also = frozenset({Also.ROOFLINE})
    runtimes = ("onnxruntime", on_host.NAME)
    options = BenchOptions(
        (1,), runtimes=runtimes, threads=1, images=demo.IMAGES / "3", warmup=0, duration=0.01, also=also
    )
    report = bench([tiny.dense, tiny.half], options)
    assert report.roofline is not None
    assert [(rate.runtime, rate.device) for rate in report.roofline.rates] == [
        ("onnxruntime", ""),
        (on_host.NAME, NAME),
    ]
    assert list(report.roofline.device_bytes_per_second) == [NAME]
    processor = report.environment["processor"]
    assert [row.cells[1].text for row in rates_table(report).rows] == [processor, NAME, processor, NAME]
    assert not any("not timed" in note.text for note in report.notes)


def test_the_rates_of_a_gpu(gpu: torch.device, tiny: TinyExport) -> None:
    plan = GroupPlan("torch-cuda", None, ())
    rates = {
        precision: product_rate(tiny.dense.manifest, plan, precision, None).operations_per_second
        for precision in RunPrecision
    }
    assert rates[RunPrecision.BF16] > 2 * rates[RunPrecision.FP32] > 1e12, "fp32 is no TF32"
    assert np.isfinite(list(rates.values())).all()
    copied = device_memory_rate(plan)
    assert copied is not None and copied > 1e11
    execution: Execution = device_rates.execution_of("torch-cuda", "cpu")
    assert device_rates.device_name(execution) == torch.cuda.get_device_name(gpu)
