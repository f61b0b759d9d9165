"""Which form of a dense model is fastest on a GPU: its library's own or this toolkit's, compiled in several ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from sait_deploy.errors import RuntimeUnavailable, first_line
from sait_deploy.models.flash_vit import FlashViT
from sait_deploy.runtime.cuda_graphs import Execution, Recorded, medians

_RUNS: Final = 15
"""Of each form, in turn: the difference between two is then known to well under 1 % on an idle GPU."""

AUTOTUNED: Final = "max-autotune-no-cudagraphs"
"""torch's mode that tries kernels out; every form is recorded in a graph here."""

Form = Callable[[Tensor], Tensor]
"""From images float32 [B, C, H, W] to logits float32 [B, classes]."""


def dense_forms(vit: FlashViT, execution: Execution) -> dict[str, Form]:
    """Returns the forms that compete for dense, by names for reports."""

    def flat(images: Tensor) -> Tensor:
        return vit.whole(images).logits

    return {
        "timm, compiled": execution.compiled(vit.plain),
        "timm, max-autotune": execution.compiled(vit.plain, AUTOTUNED),
        "flat, compiled": execution.compiled(flat),
        "flat, max-autotune": execution.compiled(flat, AUTOTUNED),
    }


@dataclass(frozen=True, slots=True)
class Fastest:
    """The fastest form for a batch size.

    Attributes:
        name: of the form.
        recorded: its work.
        microseconds: median of every form that ran, by name.
        failed: name to why it did not run, of the others.
    """

    name: str
    recorded: Recorded[Tensor]
    microseconds: Mapping[str, float]
    failed: Mapping[str, str]

    def __str__(self) -> str:
        times = ", ".join(f"{name} {time:.0f} µs" for name, time in self.microseconds.items())
        failures = "".join(f"; {name} did not run: {why}" for name, why in self.failed.items())
        return f"{self.name} of {times}{failures}"


def fastest(forms: Mapping[str, Form], execution: Execution, images: Tensor) -> Fastest:
    """Records every form on a batch, times them in turn, and returns the fastest.

    Args:
        forms: as :func:`dense_forms` returns them.
        execution: where they run.
        images: float32 [B, C, H, W], the memory that recorded work will read.

    Raises:
        RuntimeUnavailable: none of them runs.
    """
    recorded: dict[str, Recorded[Tensor]] = {}
    failed: dict[str, str] = {}
    for name, form in forms.items():
        try:
            recorded[name] = execution.record(lambda form=form: form(images))  # type: ignore[misc]
        except Exception as error:  # compilers raise whatever they meet; the other forms still make a baseline
            failed[name] = first_line(error)
    if not recorded:
        name, why = next(iter(failed.items()))
        raise RuntimeUnavailable(f"no form of the dense model runs: {name}: {why}", "see: sait-deploy doctor")
    seconds = medians(execution, {name: one.replay for name, one in recorded.items()}, _RUNS)
    name = min(seconds, key=seconds.__getitem__)
    return Fastest(name, recorded[name], {name: 1e6 * time for name, time in seconds.items()}, failed)
