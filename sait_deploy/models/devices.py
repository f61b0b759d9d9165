"""torch's devices by the names that users give: one that cannot be used is refused in one way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sait_deploy.errors import RuntimeUnavailable, first_line


@contextlib.contextmanager
def using_device(name: str) -> Iterator[torch.device]:
    """Yields the device of that name, which held a number before; for what is put there in the meantime, too.

    Args:
        name: as torch has it, in capitals or not: cpu, cuda, cuda:1.

    Raises:
        RuntimeUnavailable: torch knows no such device, finds none here, or it does not hold what it was to hold.
    """
    try:
        device = torch.device(name.lower())
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.empty(1, device=device)
        yield device
    except (RuntimeError, AssertionError) as error:
        raise RuntimeUnavailable(
            f"torch cannot use device {name!r}: {first_line(error)}", "see: sait-deploy doctor"
        ) from None
