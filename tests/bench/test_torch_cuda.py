"""bench on the torch-cuda runtime: dense is the fastest of its forms, and the report says which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.bench.results import Timing
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.models.flash_vit import FlashViT
from sait_deploy.runtime.cuda_graphs import OnHost
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import RUNTIMES
from sait_deploy.runtime.torch_cuda_dense import dense_forms, fastest
from tests.exported import TinyExport
from tests.runtime import on_host
from tests.tiny import FAMILIES, family, images_for, relative_difference

BATCHES = (1, 3)


def quick(**chosen: Any) -> BenchOptions:
    """Options of a short run; the runtime has to be registered when they are made."""
    options = {"batches": BATCHES, "runtimes": (on_host.NAME,), "threads": 1, "warmup": 0, "duration": 0.01, **chosen}
    return BenchOptions(images=demo.IMAGES / "3", **options)


@pytest.fixture(autouse=True)
def _on_host() -> Iterator[None]:
    before = dict(RUNTIMES)
    RUNTIMES[on_host.NAME] = on_host.ENTRY
    yield
    RUNTIMES.clear()
    RUNTIMES.update(before)


@pytest.mark.parametrize("timing", list(Timing))
def test_a_report_holds_dense_and_pruned_and_says_which_form_dense_has(
    tiny: TinyExport, tiny_adaptive: Artifact, timing: Timing
) -> None:
    artifacts = [tiny.dense, tiny.half, tiny_adaptive]
    report = bench(artifacts, quick(timing=timing, sweep=Sweep.parse((), ("fast",), ("12:3",))))
    assert report.refusals == ()
    assert [(variant.label, variant.precision) for variant in report.variants] == [
        ("dense", "bf16"),
        ("density 0.5", "bf16"),
        ("fast", "bf16"),
        ("kept 12 ± 3", "bf16"),
    ]
    assert len(report.rows) == 2 * len(report.variants)
    (group,) = report.groups
    assert group.environment["attention"] == "its definition"
    for batch in BATCHES:
        said = group.environment[f"dense, batch {batch}"]
        for form in ("timm, compiled", "timm, max-autotune", "flat, compiled", "flat, max-autotune"):
            assert form in said


def test_without_a_gpu_every_row_says_why(tiny: TinyExport) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    report = bench([tiny.dense, tiny.half], quick(runtimes=("torch-cuda",)))
    assert report.rows == ()
    assert {refusal.reason.partition(",")[0] for refusal in report.refusals} == {"torch-cuda needs an NVIDIA GPU"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_form_of_dense_gives_the_same_answers(name: str) -> None:
    vit, images = FlashViT(family(name), None, torch.float32), images_for(family(name))
    with torch.no_grad():
        first, *others = (form(images) for form in dense_forms(vit, OnHost()).values())
    for other in others:
        assert relative_difference(other, first) < 2e-4


class PresetClock(OnHost):
    """A device whose clock shows what each call is said to take."""

    def __init__(self, *seconds: float) -> None:
        self._seconds, self._turn = seconds, 0

    def timed(self, call: Callable[[], Any]) -> float | None:
        call()
        self._turn += 1
        return self._seconds[(self._turn - 1) % len(self._seconds)]


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_fastest_form_is_dense(best: int) -> None:
    seconds = [3e-3, 3e-3, 3e-3]
    seconds[best] = 2e-3
    forms = {name: (lambda images, number=number: images + number) for number, name in enumerate("abc")}
    found = fastest(forms, PresetClock(*seconds), torch.zeros(2))
    assert found.name == "abc"[best]
    assert found.recorded.outputs.tolist() == [best, best]
    assert found.microseconds[found.name] == pytest.approx(2000)


def test_a_form_that_does_not_run_is_said_to_and_the_others_compete() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such kernel\nand a long trace")

    found = fastest({"a": broken, "b": lambda images: images}, PresetClock(1.0), torch.zeros(2))
    assert (found.name, dict(found.failed)) == ("b", {"a": "no such kernel"})
    assert str(found) == "b of b 1000000 µs; a did not run: no such kernel"
    with pytest.raises(RuntimeUnavailable, match="no form of the dense model runs: a: no such kernel"):
        fastest({"a": broken}, PresetClock(1.0), torch.zeros(2))


def test_precisions_make_groups(tiny: TinyExport) -> None:
    precisions = (RunPrecision.BF16, RunPrecision.FP16, RunPrecision.INT8)
    report = bench([tiny.dense, tiny.half], quick(batches=(2,), precisions=precisions))
    assert [(group.asked, group.runtime) for group in report.groups] == [
        (RunPrecision.BF16, on_host.NAME),
        (RunPrecision.FP16, on_host.NAME),
    ]
    assert [skip.asked for skip in report.skipped] == [RunPrecision.INT8]
