"""What ONNX Runtime's CUDA provider makes of the graphs that it is given, on a machine with no GPU."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.exporters.lower_cuda import PACKED, UNIFORM, lower_attention
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.tokens import Score
from tests.exporters.graphs import ADAPTIVE, finished
from tests.own_folder import NotMade
from tests.paper.environment import driver_folder, folder

ROOT = Path(__file__).parents[2]
IMAGES = 4
KEPT = 40
SHAPE_ARITHMETIC = {"Cast", "Concat", "Mul", "Squeeze"}
"""What ONNX Runtime itself moves to the processor: numbers of rows and columns, which are there."""


@dataclass(frozen=True)
class OnPaper:
    """What a run did.

    Attributes:
        counts: launches, copies and waits of a run.
        placed: nodes by provider and operator.
        kernels: attention nodes by operator and kernel.
        outputs: of the graph.
        settings: the provider's.
    """

    counts: dict[str, int]
    placed: Counter[tuple[str, str]]
    kernels: Counter[tuple[str, str]]
    outputs: int
    settings: dict[str, str]

    def of(self, provider: str) -> Counter[str]:
        """How many nodes of each operator run on a provider."""
        name = f"{provider}ExecutionProvider"
        return Counter({kind: count for (where, kind), count in self.placed.items() if where == name})


@pytest.fixture(scope="module")
def place() -> Path:
    try:
        return folder()
    except NotMade as reason:
        pytest.skip(f"no environment on paper: {reason}")


@pytest.fixture(scope="module")
def on_paper(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("paper")

    @functools.cache
    def run(form: str, precision: Precision, model: str = "small") -> OnPaper:
        pruning = {"dense": None, "density": DENSITY, "adaptive": PRUNING[model], "threshold": THRESHOLD}[form]
        graph = finished(model, pruning, precision=precision)
        file = made / f"{model}-{form}-{precision}.onnx"
        onnx.save(lower_attention(graph), str(file))
        # The loader finds the driver. Nothing leads to CUDA's libraries but where NVIDIA's packages put them.
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(driver_folder(place)),
            "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)]),
            "PAPER_READS": f"4:{KEPT}",
            "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1",
        }
        command = [sys.executable, "-m", "tests.paper.run", str(file), str(IMAGES)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout.splitlines()[-1])
        placed = Counter({(where, kind): count for where, kind, count in found["placed"]})
        lines = re.findall(r"Operator=(\w+) .*SdpaKernel=(\w+)", done.stdout)
        return OnPaper(found["counts"], placed, Counter(lines), found["outputs"], found["settings"])

    return run


PRUNING = {"small": ADAPTIVE, "deep": AdaptivePruning(Score.MEAN, 3)}
DENSITY = FixedPruning(Score.MEAN, 3, 6)
THRESHOLD = dataclasses.replace(ADAPTIVE, threshold=1.5)
FORMS = ("dense", "adaptive")
PRECISIONS = (Precision.FP16, Precision.FP32)
every_form = pytest.mark.parametrize("form", FORMS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@every_form
@every_precision
def test_it_starts_with_what_pip_installs_alone(on_paper: Any, form: str, precision: Precision) -> None:
    ran = on_paper(form, precision)
    assert ran.counts["launches"] > 0
    assert ran.settings["use_tf32"] == "0"


@pytest.mark.parametrize("form", [*FORMS, "threshold"])
@every_precision
def test_nothing_but_arithmetic_of_shapes_runs_on_the_processor(on_paper: Any, form: str, precision: Precision) -> None:
    ran = on_paper(form, precision)
    assert set(ran.of("CPU")) <= SHAPE_ARITHMETIC
    assert ran.of("CPU").total() <= 12


@every_precision
def test_the_host_reads_one_number_and_the_answers(on_paper: Any, precision: Precision) -> None:
    dense, adaptive = (on_paper(form, precision) for form in FORMS)
    assert dense.counts["to host"] == dense.outputs == 1
    assert adaptive.counts["to host"] == 1 + adaptive.outputs == 3
    assert adaptive.of("CUDA")["MemcpyToHost"] == 0, "NonZero reads how many it lists"


@pytest.mark.parametrize(
    ("precision", "kernel"), [(Precision.FP16, "FLASH_ATTENTION"), (Precision.FP32, "EFFICIENT_ATTENTION")]
)
def test_dense_and_pruned_attend_by_one_kernel_and_a_fused_one(
    on_paper: Any, precision: Precision, kernel: str
) -> None:
    for form, operators in (("dense", {UNIFORM}), ("adaptive", {UNIFORM, PACKED})):
        assert set(on_paper(form, precision).kernels) == {(operator, kernel) for operator in operators}


@every_form
def test_norms_of_half_precision_are_one_node_each(on_paper: Any, form: str) -> None:
    """Casts that are left: two around a dense graph's ends, and those of scoring and selection."""
    half, full = on_paper(form, Precision.FP16), on_paper(form, Precision.FP32)
    assert half.of("CUDA")["LayerNormalization"] == 11
    more = half.of("CUDA")["Cast"] - full.of("CUDA")["Cast"]
    assert 0 <= more <= 4


def test_launches_of_twelve_blocks_are_those_that_the_docs_name(on_paper: Any) -> None:
    """A change of the lowering, or of onnxruntime-gpu's version, that changes them changes docs/gpu.md too."""
    dense, density, adaptive = (
        on_paper(form, Precision.FP16, "deep").counts["launches"] for form in ("dense", "density", "adaptive")
    )
    assert (dense, density, adaptive) == (142, 192, 183)
    assert adaptive <= 1.3 * dense
    said = " ".join((ROOT / "docs/gpu.md").read_text(encoding="utf-8").split())
    assert f"{dense} launches and an adaptive one {adaptive}, {adaptive / dense:.2f} times as many" in said
    assert f"one of density {density}" in said
