"""Further steps of a day on a GPU: its kernels' times, the tests that want a GPU, and NVIDIA's memory checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu_steps import FIRST, RUNS, Found, Setting, Step, drawn_batch
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.runtime.cuda_graphs import medians

LAUNCHES: Final = 200
"""Of one kernel in one recording, so that what starting a recording takes is in no figure."""

FILES: Final = (
    *(f"tests/plugins/test_{name}.py" for name in ("tensorrt_plugins", "triton_kernels", "column_sums")),
    *(f"tests/runtime/test_{name}.py" for name in ("exact_float32", "cuda", "cuda_graphs", "torch_cuda", "tensorrt")),
    "tests/bench/test_device_rates.py",
)
"""Tests that have cases for a GPU: the plugins' PTX through the driver, the kernels, each runtime against fp32."""

_ROOT: Final = Path(__file__).parents[1]
_CHECKER: Final = "compute-sanitizer"


@torch.no_grad()
def kernels(setting: Setting) -> Found:
    """Times selection and packing beside the smallest piece of work there is, one number added to."""
    launches = LAUNCHES if setting.device.type == "cuda" else 2
    cells: list[dict[str, Any]] = []
    for batch in setting.batches:
        _, mass, limits = drawn_batch(setting, batch)
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
            name: setting.execution.record(lambda call=call: [call() for _ in range(launches)]).replay
            for name, call in calls.items()
        }
        times = {name: 1e6 * taken / launches for name, taken in medians(setting.execution, recorded, RUNS).items()}
        both = times["select"] + times["pack"]
        cells.append(
            {"batch": batch, "patches": patches, "microseconds": times, "both over number": both / times["number"]}
        )
        yield {"launches": launches, "cells": cells}


def tests(setting: Setting) -> Found:
    """Runs the tests that have cases for a GPU, whose absence fails them; on a processor, collects them."""
    on_gpu = setting.device.type == "cuda"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", *([] if on_gpu else ["--collect-only"]), *FILES]
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


SHORT: Final[dict[str, Step]] = {"kernels": Step(60, kernels)}
"""Of every day, after the others."""

LONG: Final[dict[str, Step]] = {"tests": Step(600, tests), "memory": Step(180, memory)}
"""Of a full day."""
