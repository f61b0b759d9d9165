"""The GPU kernels: the reference's bits, through Triton's interpreter, and on a CUDA device where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from sait_deploy.errors import InvalidArgument
from sait_deploy.plugins.mass_token_select import torch_op as select_op
from sait_deploy.plugins.mass_token_select import triton_kernel as select_kernel
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.plugins.pack_rows import torch_op as pack_op
from sait_deploy.plugins.pack_rows import triton_kernel as pack_kernel
from sait_deploy.plugins.pack_rows.reference import pack_rows
from tests.plugins.cases import Batch, large_batches, small_batches
from tests.plugins.forms import Ints, assert_same_bits
from tests.plugins.interpreted import Interpreter, interpreter

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Sorting is what the interpreter is slow at: a second per image from a few hundred tokens on.
QUICK_PATCHES = 200


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Interpreter]:
    with interpreter() as started:
        yield started


def one_image(batch: Batch, row: int) -> Batch:
    here = slice(row, row + 1)
    return Batch(batch.importance[here], batch.mass[here], batch.keep_limits[here], batch.prefix)


def assert_selects_and_packs(interpreted: Interpreter, batch: Batch) -> None:
    where = f"prefix {batch.prefix}, importance {batch.importance.shape}"
    want = mass_token_select(batch.importance, batch.mass, batch.keep_limits, batch.prefix)
    for name, got, wanted in zip(("keep", "counts"), interpreted.select(batch), want, strict=True):
        assert_same_bits(f"{name}, {where}", got, wanted)
    assert_packs(interpreted, want[0])


def assert_packs(interpreted: Interpreter, keep: Ints) -> None:
    counts = keep.sum(axis=1, dtype=np.int32)
    got, want = interpreted.pack(keep, counts), pack_rows(keep, counts)
    for name, one, other in zip(("rows", "cu_seqlens"), got, want, strict=True):
        assert_same_bits(f"{name}, keep {keep.shape}", one, other)


@few
@given(batch=small_batches(max_patches=40))
def test_small_batches(interpreted: Interpreter, batch: Batch) -> None:
    assert_selects_and_packs(interpreted, batch)


def test_images_of_every_kind_and_prefix(interpreted: Interpreter) -> None:
    """Neighbouring rows of a large batch are of different kinds: each batch gives another one."""
    prefixes, sizes = set(), set()
    for number, (batch, _, _) in enumerate(large_batches()):
        if batch.importance.shape[1] < QUICK_PATCHES:
            assert_selects_and_packs(interpreted, one_image(batch, number % len(batch.mass)))
            prefixes.add(batch.prefix)
            sizes.add(batch.importance.shape[1])
    assert prefixes == {0, 1, 2, 3, 4, 5}
    assert {1, 2, 10, 100, 196} <= sizes


@pytest.mark.slow
def test_the_most_tokens_there_are(interpreted: Interpreter) -> None:
    patches = 4096
    importance = np.random.default_rng(patches).exponential(size=(1, patches)).round(1)
    importance = (importance / importance.sum()).astype(np.float32)
    mass, limits = np.array([0.7], dtype=np.float32), np.array([[1, patches]], dtype=np.int32)
    assert_selects_and_packs(interpreted, Batch(importance, mass, limits, 1))


@pytest.mark.slow
@pytest.mark.parametrize("patches", [1024, 1025])
def test_the_highest_score_there_is(interpreted: Interpreter, patches: int) -> None:
    """All the importance on one token, among as many as a key of 32 bits has room for, and among one more."""
    importance = np.zeros((1, patches), dtype=np.float32)
    importance[0, 3] = 1
    mass, limits = np.array([0.5], dtype=np.float32), np.array([[0, patches]], dtype=np.int32)
    assert_selects_and_packs(interpreted, Batch(importance, mass, limits, 1))


@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4101), (7, 197), (40, 3)])
def test_plans_of_any_density(interpreted: Interpreter, shape: tuple[int, int], density: float) -> None:
    assert_packs(interpreted, (np.random.default_rng(5).random(shape) < density).astype(np.int32))


@pytest.mark.parametrize("images", [256, 257])
def test_plans_of_more_images_than_are_counted_at_a_time(interpreted: Interpreter, images: int) -> None:
    keep = (np.random.default_rng(images).random((images, 2)) < 0.5).astype(np.int32)
    assert_packs(interpreted, keep)


@pytest.mark.parametrize("score", [-1.0, 100.0])
def test_scores_that_should_not_be_write_nothing_outside(interpreted: Interpreter, score: float) -> None:
    """They rank padding among the real tokens."""
    importance = np.full((3, 9), score, dtype=np.float32)
    limits = np.tile(np.array([[9, 9]], dtype=np.int32), (3, 1))
    everything = interpreted.select_between(Batch(importance, np.ones(3, dtype=np.float32), limits, 1), fence=-7)
    assert (everything[: 4 * 30] == -7).all()
    assert (everything[5 * 30 :] == -7).all()


@pytest.mark.parametrize("wrong", [-3, 9, 40])
def test_counts_that_are_not_those_of_keep_write_nothing_outside(interpreted: Interpreter, wrong: int) -> None:
    keep = (np.random.default_rng(6).random((3, 11)) < 0.5).astype(np.int32)
    counts = np.full(3, wrong, dtype=np.int32)
    everything = interpreted.pack_between(keep, counts, fence=-7)
    before, after = everything[: 4 * keep.size], everything[5 * keep.size :]
    assert (before == -7).all()
    assert (after == -7).all()


@pytest.mark.parametrize(
    ("importance", "limits", "says"),
    [
        pytest.param(torch.zeros(1, 4097), torch.zeros(1, 2, dtype=torch.int32), "4097 patch tokens", id="too many"),
        pytest.param(torch.zeros(1, 0), torch.zeros(1, 2, dtype=torch.int32), "0 patch tokens", id="none"),
        pytest.param(torch.zeros(1, 9).half(), torch.zeros(1, 2, dtype=torch.int32), "float16", id="half"),
        pytest.param(torch.zeros(1, 9), torch.zeros(1, 2, dtype=torch.int64), "int64", id="long"),
    ],
)
def test_what_the_selection_kernel_does_not_take(importance: torch.Tensor, limits: torch.Tensor, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as raised:
        select_kernel.launch(importance, torch.ones(1), limits, 1)
    assert raised.value.hint


def test_what_the_packing_kernel_does_not_take() -> None:
    counts = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(InvalidArgument, match="8193 tokens"):
        pack_kernel.launch(torch.zeros(1, 8193, dtype=torch.int32), counts)
    with pytest.raises(InvalidArgument, match="int64"):
        pack_kernel.launch(torch.zeros(1, 5, dtype=torch.int64), counts)
    with pytest.raises(InvalidArgument, match="262144, 8192") as raised:
        pack_kernel.launch(torch.zeros(1, 1, dtype=torch.int32).expand(2**18, 8192), counts)
    assert "2^31" in raised.value.hint


@pytest.mark.parametrize("name", ["sait::mass_token_select", "sait::pack_rows"])
def test_the_torch_operators_have_a_kernel_of_their_own_on_cuda(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")


def test_without_triton_the_kernels_say_what_to_install() -> None:
    code = """
import sys
sys.modules["triton"] = None
import sait_deploy.plugins.mass_token_select.torch_op, sait_deploy.plugins.pack_rows.torch_op
from sait_deploy.errors import MissingDependency
for name in ("mass_token_select", "pack_rows"):
    try:
        __import__(f"sait_deploy.plugins.{name}.triton_kernel")
    except MissingDependency as error:
        print(error.message, "/", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("needs triton, which is not installed / pip install 'sait-deploy[tensorrt]'") == 2


def test_the_torch_operators_on_cuda(gpu: torch.device) -> None:
    for batch, keep, counts in large_batches():
        inputs = [torch.from_numpy(array).to(gpu) for array in (batch.importance, batch.mass, batch.keep_limits)]
        selected = select_op.mass_token_select(*inputs, batch.prefix)
        packed = pack_op.pack_rows(*selected)
        wanted: tuple[Ints, ...] = (keep, counts, *pack_rows(keep, counts))
        for name, got, want in zip(("keep", "counts", "rows", "cu_seqlens"), (*selected, *packed), wanted, strict=True):
            assert_same_bits(f"{name}, keep {keep.shape}", got.cpu().numpy(), want)
