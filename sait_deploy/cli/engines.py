"""How commands show engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sait_deploy.cli.render import table
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.layers import LoadedInfo, inspect_layers
from sait_deploy.engine.manifest import EngineManifest, PartInfo
from sait_deploy.engine.trtexec import trtexec_commands
from sait_deploy.errors import SaitError

_HEADINGS = (
    "engine",
    "part",
    "MiB",
    "batch",
    "profiles",
    "layers built from",
    "of them by type",
    "fused attention",
    "layers here",
    "activations MiB",
)
_WORDS = ("part", "of them by type", "layers here", "activations MiB")


def layers_of(engine: Engine) -> tuple[LoadedInfo, ...] | str:
    """Returns what TensorRT made of an engine on this machine, or why that is not known."""
    try:
        return inspect_layers(engine)
    except SaitError as error:
        return f"unknown: {error.message}"


def engines_table(engines: Sequence[tuple[Engine, tuple[LoadedInfo, ...] | str]]) -> tuple[Any, ...]:
    """Returns a table of an artifact's engines, and below it why any of them could not be loaded."""
    rows = [
        _row(engine.manifest, part, loaded if isinstance(loaded, str) else loaded[index])
        for engine, loaded in engines
        for index, part in enumerate(engine.manifest.parts)
    ]
    reasons = dict.fromkeys(loaded for _, loaded in engines if isinstance(loaded, str))
    notes = [f"layers and activations on this machine are {reason}" for reason in reasons]
    return table(None, _HEADINGS, rows, words=_WORDS), *notes


def _row(manifest: EngineManifest, part: PartInfo, loaded: LoadedInfo | str) -> tuple[str, ...]:
    types = ", ".join(f"{count} {name}" for name, count in part.network.precisions.items())
    return (
        manifest.name,
        part.name,
        f"{part.size_bytes / 2**20:.1f}",
        str(manifest.batch),
        str(len(part.profiles)),
        str(part.network.layers),
        types,
        str(part.network.attention_fused),
        "–" if isinstance(loaded, str) else str(len(loaded.layers)),
        "–" if isinstance(loaded, str) else f"{loaded.memory_bytes / 2**20:.1f}",
    )


def engine_as_dict(engine: Engine, loaded: tuple[LoadedInfo, ...] | str) -> dict[str, object]:
    """Returns an engine as plain data: its manifest, its layers on this machine, and how trtexec loads it."""
    return {
        "path": str(engine.path),
        "manifest": dataclasses.asdict(engine.manifest),
        "loaded": loaded if isinstance(loaded, str) else [dataclasses.asdict(info) for info in loaded],
        "trtexec": trtexec_commands(engine),
    }
