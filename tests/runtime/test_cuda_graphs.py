"""Compiling for a GPU, up to the code that is generated: what torch compiles anew, and what it may compile for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sait_deploy.runtime.cuda_graphs import OnGpu, compiled_by_size

BATCHES = (1, 2, 3, 5)


class Scaled:
    """A model whose compilation holds a number of its own, as that of a pruned one does its kept tokens."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def run(self, images: Tensor) -> Tensor:
        """Multiplies by the number."""
        return images * self.factor


class Counting:
    """Compiles nothing, and keeps the batch sizes that it was asked to compile for: numbers, or names of unknowns."""

    def __init__(self) -> None:
        self.sizes: list[Any] = []

    def __call__(self, module: Any, inputs: list[Any]) -> Callable[..., Any]:
        self.sizes.append(next(one for one in inputs if isinstance(one, Tensor)).shape[0])
        return module  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_every_model_is_compiled_for_every_batch_size() -> None:
    """More than torch's limit of 8, which it counts over all models; none is compiled for sizes to come."""
    backend = Counting()
    for factor in range(2, 7):
        run = compiled_by_size(Scaled(factor).run, backend=backend)
        for batch in (*BATCHES, *BATCHES):
            assert torch.equal(run(torch.ones(batch, 4)), torch.full((batch, 4), float(factor)))
    assert backend.sizes == [*BATCHES] * 5
    assert all(isinstance(size, int) for size in backend.sizes)


def test_an_axis_that_is_marked_is_compiled_once() -> None:
    backend = Counting()
    run = compiled_by_size(Scaled(2).run, backend=backend)
    for rows in (8, 24, 16):
        given = torch.ones(rows, 4)
        torch._dynamo.mark_dynamic(given, 0)
        assert run(given).shape == (rows, 4)
    assert len(backend.sizes) == 1


def test_a_part_that_cannot_be_compiled_is_an_error() -> None:
    def breaks(images: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return images

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled_by_size(breaks, backend=Counting())(torch.ones(2))


def test_outputs_outlast_their_graph_and_the_next_recording_on_a_gpu(gpu: torch.device) -> None:
    execution, given = OnGpu(gpu), torch.arange(4.0, device=gpu)
    held = execution.record(lambda: given + 1).outputs
    for factor in range(2, 5):
        recorded = execution.record(lambda factor=factor: given * factor)
        recorded.replay()
        assert torch.equal(recorded.outputs, given * factor)
    assert torch.equal(held, given + 1)
