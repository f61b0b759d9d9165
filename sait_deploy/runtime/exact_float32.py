"""float32 as float32 in torch: products and convolutions that no setting of the process rounds to TF32 or bfloat16."""

from __future__ import annotations

import threading
from typing import Any, Final

import torch

_torch: Any = torch.backends  # whose types know half of it
_BACKENDS: Final = (_torch.cuda.matmul, _torch.cudnn.conv, _torch.mkldnn.matmul, _torch.mkldnn.conv)
_HIGHEST, _EXACT = "highest", "ieee"


class _Exact:
    """A context in which float32 stays float32; what was set comes back when the last thread has left it."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: tuple[str | None, list[str]] = (None, [])

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _older_setting(), [backend.fp32_precision for backend in _BACKENDS]
                _set(_HIGHEST if self._before[0] else None, [_EXACT] * len(_BACKENDS))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _set(*self._before)


def _older_setting() -> str | None:
    """Returns torch's older setting of products where it lowers their precision.

    Products read the newer settings, and parts of torch refuse to run where the two contradict each other.
    """
    try:
        found = torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer ones alone were set
        return None
    return None if found == _HIGHEST else found


def _set(older: str | None, precisions: list[str]) -> None:
    if older is not None:
        torch.set_float32_matmul_precision(older)
    for backend, precision in zip(_BACKENDS, precisions, strict=True):
        backend.fp32_precision = precision


EXACT_FLOAT32: Final = _Exact()
"""TF32 has 10 bits of fraction and bfloat16 7: convolutions in TF32, torch's default on GPUs, differ by 1e-3."""
