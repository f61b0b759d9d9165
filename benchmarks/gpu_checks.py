"""Further steps of a day on a GPU: float32, a million rows, the kernels' times, tests, and NVIDIA's memory checker."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.gpu_steps import (
    FIRST,
    RUNS,
    Found,
    Setting,
    compare_with_reference,
    drawn_batch,
    model_of,
    pruning_of,
)
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.models.flash_vit import FlashViT
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.runtime.cuda_graphs import medians
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.torch import ModelInMemory, TorchRunner

MASS: Final = 0.5
LAUNCHES: Final = 200
"""Of one kernel in one recording, so that what starting a recording takes is in no figure."""

MODEL_BATCH, MOST_OF_MODEL = 8, 0.01
"""From this batch size on both kernels are to take less than this share of the dense model's time."""

LARGEST_FLOAT32_ERROR: Final = 1e-4
"""Of logits in float32 on a GPU, relative to the largest on the processor."""

MILLION, CHUNK, MODEL_PATCHES = 1_000_000, 20_000, 196

KERNEL_FILES: Final = tuple(
    f"tests/plugins/test_{name}.py" for name in ("tensorrt_plugins", "triton_kernels", "column_sums")
)
"""Files with tests of kernels on a GPU, the plugins' PTX through the driver among them."""

RUNTIME_FILES: Final = (
    *(f"tests/runtime/test_{name}.py" for name in ("cuda_graphs", "exact_float32", "torch_cuda", "cuda")),
    "tests/bench/test_device_rates.py",
)
"""Files with tests of runtimes on a GPU: each against float32, and what the GPU can do."""

_ENGINES: Final = "tests/runtime/test_tensorrt.py"
_TENSORRTS: Final = {"tensorrt": "gpu-tensorrt and not rtx", "tensorrt_rtx": "gpu-tensorrt-rtx"}
"""Package to which of the tests of engines are its."""

_ROOT: Final = Path(__file__).parents[1]
_CHECKER: Final = "compute-sanitizer"


def float32(setting: Setting) -> Found:
    """Compares logits of the torch runtime in float32 with the processor's, where the process has TF32 switched on."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    errors: dict[str, float] = {}
    try:
        for name in setting.models:
            errors[name] = _float32_error(setting, name)
            if not errors[name] <= LARGEST_FLOAT32_ERROR:
                raise SystemExit(f"{name}: logits in float32 differ by {errors[name]:.1e} from the processor's")
            yield {"relative errors": errors}
    finally:
        torch.set_float32_matmul_precision(before)


def _float32_error(setting: Setting, name: str) -> float:
    """Returns the largest difference of logits on the tokens that the processor keeps, relative to the largest."""
    loaded = load_model(name, WeightsRequest(WeightsSource.RANDOM), setting.image_size)
    model = ModelInMemory(loaded, pruning_of(loaded.vit))
    images = drawn_batch(setting, MODEL_BATCH)[0].cpu().numpy()
    wanted = TorchRunner(model, RunOptions()).select(images, mass=MASS)
    there = TorchRunner(model, RunOptions(device=setting.device.type))
    return float(
        np.abs(there.run_keeping(images, wanted.keep).logits - wanted.logits).max() / np.abs(wanted.logits).max()
    )


def million(setting: Setting) -> Found:
    """Compares kept tokens and rows of a million images with the reference."""
    draw, rows = np.random.default_rng(1), 0
    on_gpu = setting.device.type == "cuda"
    for _ in range(MILLION // CHUNK if on_gpu else 2):
        batch = CHUNK if on_gpu else 50
        compare_with_reference(setting, draw, batch, MODEL_PATCHES)
        rows += batch
        yield {"rows equal to the reference": rows}


@torch.no_grad()
def kernels(setting: Setting) -> Found:
    """Times selection and packing beside one number added to, and beside the smaller model, dense and compiled."""
    launches = LAUNCHES if setting.device.type == "cuda" else 2
    name, cells = setting.models[0], list[dict[str, Any]]()
    dense = setting.execution.compiled(FlashViT(model_of(setting, name), None, torch.bfloat16).plain)
    for batch in (MODEL_BATCH, *setting.batches):
        images, mass, limits = drawn_batch(setting, batch)
        patches = (setting.image_size // 16) ** 2
        scores = torch.rand(batch, patches, generator=torch.Generator().manual_seed(0)).square()
        importance = (scores / scores.sum(dim=1, keepdim=True)).to(setting.device)
        keep, counts = mass_token_select(importance, mass, limits, 1)
        number = torch.zeros(1, device=setting.device)
        calls: dict[str, Callable[[], Any]] = {
            "number": lambda number=number: number.add_(1),
            "select": lambda given=(importance, mass, limits): mass_token_select(*given, 1),
            "pack": lambda given=(keep, counts): pack_rows(*given),
        }
        recorded = {
            one: setting.execution.record(lambda call=call: [call() for _ in range(launches)]).replay
            for one, call in calls.items()
        }
        times = {one: 1e6 * taken / launches for one, taken in medians(setting.execution, recorded, RUNS).items()}
        both, over = times["select"] + times["pack"], times["number"]
        forward = setting.execution.record(functools.partial(dense, images)).replay
        times[name] = 1e6 * medians(setting.execution, {name: forward}, RUNS)[name]
        share = both / times[name]
        cell = {"batch": batch, "patches": patches, "microseconds": times, "both over number": both / over}
        aim = {"aim": MOST_OF_MODEL, "reached": share < MOST_OF_MODEL} if batch >= MODEL_BATCH else {}
        cells.append(cell | {"share of the model": share} | aim)
        yield {"launches": launches, "cells": cells}


def engines(setting: Setting, package: str) -> Found:
    """Builds engines of the small model with a TensorRT, in every form, and runs them, where it is installed."""
    if importlib.util.find_spec(package) is None:
        yield {"left out": f"{package} is not installed"}
    else:
        yield from tests(setting, (_ENGINES, "-k", _TENSORRTS[package]))


def tests(setting: Setting, files: Sequence[str]) -> Found:
    """Runs tests on a GPU, whose absence fails them; on a processor, collects them."""
    on_gpu = setting.device.type == "cuda"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", *([] if on_gpu else ["--collect-only"]), *files]
    environment = {**os.environ, **({"SAIT_DEPLOY_TESTS_NEED_GPU": "1"} if on_gpu else {})}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or ["pytest said nothing"]
    yield {"pytest": lines[-1], "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))]}
    if done.returncode != 0:
        raise SystemExit(f"{lines[-1]}\n{done.stderr.strip()}")


def memory(setting: Setting) -> Found:
    """Runs the comparison of kept tokens and rows under NVIDIA's memory checker; on a processor, without it."""
    on_gpu = setting.device.type == "cuda"
    checker = shutil.which(_CHECKER) or ""
    if on_gpu and not checker:
        raise SystemExit(f"{_CHECKER} is not installed, so that no kernel's memory was checked")
    checked = [checker, "--tool", "memcheck", "--error-exitcode", "9"] if on_gpu else []
    with tempfile.TemporaryDirectory() as folder:
        command = [*checked, sys.executable, "-m", "benchmarks.gpu_day", "--step", FIRST]
        command += ["--output", f"{folder}/found.json", *([] if on_gpu else ["--dry-run"])]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit((done.stdout + done.stderr).strip())
    yield {"checked with": _CHECKER if on_gpu else "nothing: there is no GPU"}
