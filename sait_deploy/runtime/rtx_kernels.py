"""Kernels that TensorRT for RTX compiles for the shapes it meets, kept from one process to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from sait_deploy.errors import StorageError
from sait_deploy.runtime.compiled_files import digest, keep_file, kept_files


class KeptKernels:
    """The kernels of one engine's parts.

    Args:
        folder: where they lie.
        key: what they depend on beside the part, as the beginning of the files' names. TensorRT for RTX itself refuses
            those of another GPU, driver or version.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._caches: dict[str, Any] = {}
        self._kept: dict[str, str] = {}
        self._shapes: set[Hashable] = set()

    def attach(self, config: Any, part: str) -> None:
        """Gives a part's runtime configuration the kernels of earlier processes, and a place for its own."""
        cache = config.create_runtime_cache()
        for data in kept_files(self._folder, f"{self._key}-{part}"):
            if cache.deserialize(data):
                self._kept[part] = digest(data)
                break
        config.set_runtime_cache(cache)
        self._caches[part] = cache

    def keep(self, shapes: Hashable) -> None:
        """Keeps what the first request of some shapes compiled, where that can be.

        Args:
            shapes: what tells the shapes of a request that was answered from those of others.
        """
        if shapes in self._shapes:
            return
        self._shapes.add(shapes)
        for part, cache in self._caches.items():
            data = bytes(cache.serialize())
            if self._kept.get(part) != digest(data):
                self._kept[part] = digest(data)
                with contextlib.suppress(StorageError):
                    keep_file(self._folder, f"{self._key}-{part}", data)
