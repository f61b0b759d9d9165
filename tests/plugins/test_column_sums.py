"""Column sums of attention without its weights: the Triton kernel, and the operator's definition, against softmax."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sait_deploy.errors import InvalidArgument
from sait_deploy.plugins.flash_attention import attention_column_sums, flash_packed, flash_uniform
from sait_deploy.plugins.ptx import MOST_SHARED_BYTES
from sait_deploy.plugins.uniform_attention import triton_kernel
from tests.plugins.assembled import assemble
from tests.plugins.interpreted import Interpreter, interpreter
from tests.plugins.test_ptx import SMS

TOLERANCE = 2e-5
"""Relative: products of lower precisions are exact in float32, and only the order of sums differs."""

few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Interpreter]:
    with interpreter() as started:
        yield started


def random_qkv(batch: int, tokens: int, heads: int, size: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(batch * tokens, 3 * heads * size, generator=torch.Generator().manual_seed(seed))


def weights_of(qkv: torch.Tensor, batch: int, heads: int, scale: float) -> torch.Tensor:
    """Attention weights, float64 [B, H, S, S], spelt out."""
    q, k, _ = qkv.double().reshape(batch, -1, 3, heads, qkv.shape[1] // (3 * heads)).permute(2, 0, 3, 1, 4)
    return torch.softmax(scale * (q @ k.transpose(-2, -1)), dim=-1)


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    assert ((found - wanted).abs() <= tolerance * wanted.abs().clamp_min(1e-2)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("batch", "tokens", "heads", "size"), [(1, 197, 2, 64), (1, 1, 1, 8), (2, 64, 2, 32)])
def test_the_kernel_sums_columns_of_softmax(
    interpreted: Interpreter, dtype: torch.dtype, batch: int, tokens: int, heads: int, size: int
) -> None:
    """The interpreter takes bfloat16 for whole numbers in products; values of it are exact in float32 too."""
    qkv, scale = random_qkv(batch, tokens, heads, size).bfloat16().to(dtype), size**-0.5
    _, lse = flash_uniform(qkv, batch, heads, scale)
    wanted = weights_of(qkv, batch, heads, scale).sum(dim=2)
    assert_close(interpreted.column_sums(qkv, lse, scale), wanted)
    assert_close(attention_column_sums(qkv, lse, scale), wanted)


@few
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 130),
    heads=st.integers(1, 3),
    size=st.sampled_from([8, 40, 72]),
    seed=st.integers(0, 99),
)
def test_any_size(interpreted: Interpreter, batch: int, tokens: int, heads: int, size: int, seed: int) -> None:
    """Sizes that fill no block, and heads whose channels are no power of two."""
    qkv, scale = random_qkv(batch, tokens, heads, size, seed).half(), size**-0.5
    _, lse = flash_uniform(qkv, batch, heads, scale)
    assert_close(interpreted.column_sums(qkv, lse, scale), weights_of(qkv, batch, heads, scale).sum(dim=2))


def test_columns_sum_to_the_number_of_rows() -> None:
    qkv = random_qkv(2, 50, 3, 32)
    _, lse = flash_uniform(qkv, 2, 3, 0.2)
    torch.testing.assert_close(attention_column_sums(qkv, lse, 0.2).sum(dim=2), torch.full((2, 3), 50.0))


@pytest.mark.parametrize("sm", [sm for sm in SMS if sm >= 80])  # torch-cuda, which launches it, refuses older GPUs
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_it_is_compiled_without_memory_of_its_own(sm: int, kind: str, tmp_path: Path) -> None:
    constants = {"head_block": 64, "row_block": triton_kernel.ROWS, "column_block": triton_kernel.COLUMNS}
    signature = {**triton_kernel.SIGNATURE, "qkv_ptr": f"*{kind}", **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=triton_kernel.KERNEL, signature=signature, constexprs=constants)
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True
        built = triton.compile(source, target=GPUTarget("cuda", sm, 32), options={"num_warps": triton_kernel.WARPS})
    assert built.metadata.shared <= MOST_SHARED_BYTES
    # Products on the matrix units, sums in float32.
    assert re.search(r"mma\.sync\S*\.f32\.|wgmma\.mma_async\S*\.f32\.|tcgen05\.mma", built.asm["ptx"])
    assembler = triton.knobs.nvidia.ptxas_blackwell if sm >= 100 else triton.knobs.nvidia.ptxas
    assert "0 bytes spill stores, 0 bytes spill loads" in assemble(built.asm["ptx"], assembler, tmp_path)


def test_the_operator_on_a_gpu(gpu: torch.device) -> None:
    qkv, scale = random_qkv(2, 197, 3, 64).bfloat16(), 0.125
    _, lse = flash_uniform(qkv.to(gpu), 2, 3, scale)
    found = attention_column_sums(qkv.to(gpu), lse, scale)
    assert_close(found.cpu(), weights_of(qkv, 2, 3, scale).sum(dim=2), 1e-3)


def test_what_the_kernel_does_not_take() -> None:
    with pytest.raises(InvalidArgument, match="heads of 257 channels"):
        triton_kernel.head_block(257)
    with pytest.raises(InvalidArgument, match=r"qkv \[9, 96\]"):
        triton_kernel.launch(torch.zeros(9, 96), torch.zeros(1, 1, 10), 1.0)
    with pytest.raises(InvalidArgument, match="float64"):
        triton_kernel.launch(torch.zeros(10, 96), torch.zeros(1, 1, 10).double(), 1.0)


@pytest.mark.parametrize("size", [20, 264])
def test_heads_that_fused_attention_does_not_take(size: int) -> None:
    with pytest.raises(InvalidArgument, match=f"heads of {size} channels") as raised:
        flash_uniform(torch.zeros(4, 3 * size), 1, 1, 1.0)
    assert "multiples of 8" in raised.value.hint


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=6), spare=st.integers(0, 7))
def test_packed_attention_ends_with_the_last_image(counts: list[int], spare: int) -> None:
    """Each image alone gives the same rows, and rows behind the last are read by none."""
    total, scale = sum(counts), 0.3
    qkv = random_qkv(1, total + spare, 2, 16)
    qkv[total:] = float("nan")
    ends = torch.tensor([0, *torch.tensor(counts).cumsum(0)], dtype=torch.int32)
    found = flash_packed(qkv, ends, 9, 2, scale)
    alone = [flash_uniform(qkv[first:end], 1, 2, scale)[0] for first, end in itertools.pairwise(ends)]
    torch.testing.assert_close(found[:total], torch.cat(alone))
    assert found[total:].isnan().all()


@pytest.mark.parametrize("name", ["flash_uniform", "flash_packed", "attention_column_sums"])
def test_the_operators_have_a_kernel_of_their_own_on_cuda(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"sait::{name}", "CUDA")


def test_the_fake_kernels_are_right() -> None:
    qkv, ends = random_qkv(2, 5, 2, 8), torch.tensor([0, 4, 7], dtype=torch.int32)
    lse = torch.zeros(2, 2, 5)
    checked = ("test_schema", "test_faketensor")
    torch.library.opcheck(flash_uniform, (qkv, 2, 2, 0.5), test_utils=checked)
    torch.library.opcheck(flash_packed, (qkv.nan_to_num(), ends, 5, 2, 0.5), test_utils=checked)
    torch.library.opcheck(attention_column_sums, (qkv, lse, 0.5), test_utils=checked)
