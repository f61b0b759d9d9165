"""Runs the GPU kernels through Triton's interpreter, on the CPU.

Triton decides when a kernel is defined whether it will be interpreted, so that it happens in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tests.plugins.cases import Batch
from tests.plugins.forms import Ints


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The kernels, each as a function of arrays or tensors."""

    process: ProcessPoolExecutor

    def select(self, batch: Batch) -> tuple[Ints, Ints]:
        return self.process.submit(_select, batch).result()

    def column_sums(self, qkv: torch.Tensor, lse: torch.Tensor, scale: float) -> torch.Tensor:
        """Sums over rows of the attention weights of qkv [B*S, 3*H*Dh] with log-sum-exp [B, H, S]."""
        # Tensors cross to the process as float32, which holds every value of the lower precisions.
        return self.process.submit(_column_sums, qkv.float(), qkv.dtype, lse, scale).result()

    def pack(self, keep: Ints, counts: Ints) -> tuple[Ints, Ints]:
        return self.process.submit(_pack, keep, counts).result()

    def select_between(self, batch: Batch, fence: int) -> Ints:
        """``keep`` in the middle of an array that holds ``fence`` everywhere before the kernel runs."""
        return self.process.submit(_select_between, batch, fence).result()

    def pack_between(self, keep: Ints, counts: Ints, fence: int) -> Ints:
        """``rows`` in the middle of an array that holds ``fence`` everywhere before the kernel runs."""
        return self.process.submit(_pack_between, keep, counts, fence).result()


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """Starts the process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin) as process:
        yield Interpreter(process)


def _begin() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


def _select(batch: Batch) -> tuple[Ints, Ints]:
    from sait_deploy.plugins.mass_token_select.triton_kernel import launch

    importance, mass = torch.from_numpy(batch.importance), torch.from_numpy(batch.mass)
    keep, counts = launch(importance, mass, torch.from_numpy(batch.keep_limits), batch.prefix)
    return keep.numpy(), counts.numpy()


def _column_sums(qkv: torch.Tensor, dtype: torch.dtype, lse: torch.Tensor, scale: float) -> torch.Tensor:
    from sait_deploy.plugins.uniform_attention.triton_kernel import launch

    return launch(qkv.to(dtype), lse, scale)


def _pack(keep: Ints, counts: Ints) -> tuple[Ints, Ints]:
    from sait_deploy.plugins.pack_rows.triton_kernel import launch

    rows, cu_seqlens = launch(torch.from_numpy(keep), torch.from_numpy(counts))
    return rows.numpy(), cu_seqlens.numpy()


def _select_between(batch: Batch, fence: int) -> Ints:
    from sait_deploy.plugins.mass_token_select.triton_kernel import KERNEL, block_size

    images, patches = batch.importance.shape
    size = images * (batch.prefix + patches)
    everything = torch.full((9 * size,), fence, dtype=torch.int32)
    keep, counts = everything[4 * size : 5 * size], torch.empty(images, dtype=torch.int32)
    taken = (torch.from_numpy(array) for array in (batch.importance, batch.mass, batch.keep_limits))
    KERNEL[(images,)](*taken, patches, batch.prefix + patches, keep, counts, block=block_size(patches))
    return np.asarray(everything.numpy())


def _pack_between(keep: Ints, counts: Ints, fence: int) -> Ints:
    from sait_deploy.plugins.pack_rows.triton_kernel import KERNEL, block_size

    batch, tokens = keep.shape
    everything = torch.full((9 * keep.size,), fence, dtype=torch.int32)
    rows = everything[4 * keep.size : 5 * keep.size]
    plan = torch.empty(batch + 1, dtype=torch.int32)
    arguments = (torch.from_numpy(keep), torch.from_numpy(counts), batch, tokens, rows, plan)
    KERNEL[(batch,)](*arguments, block=block_size(tokens))
    return np.asarray(everything.numpy())
