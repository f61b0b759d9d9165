"""How commands show engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.cli._render import table
from sait_deploy.engine.folder import Engine, engine_folders, open_engine
from sait_deploy.engine.inspect import LoadedInfo, inspect_layers
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


@dataclass(frozen=True, slots=True)
class ShownEngine:
    """An engine folder as it is shown.

    Attributes:
        folder: where it lies.
        engine: what is in it; None where it is damaged.
        loaded: what TensorRT made of it on this machine, or why that is not known.
        damage: why it cannot be used.
    """

    folder: Path
    engine: Engine | None
    loaded: tuple[LoadedInfo, ...] | str
    damage: SaitError | None = None


def shown_engines(artifact: Artifact) -> list[ShownEngine]:
    """Opens an artifact's engines, each by itself, so that a damaged one hides no other."""
    found = []
    for folder in engine_folders(artifact):
        try:
            engine = open_engine(artifact, folder)
        except SaitError as error:
            found.append(ShownEngine(folder, None, "", error))
        else:
            found.append(ShownEngine(folder, engine, _layers_of(engine)))
    return found


def _layers_of(engine: Engine) -> tuple[LoadedInfo, ...] | str:
    try:
        return inspect_layers(engine)
    except SaitError as error:
        return f"unknown: {error.message}"


def engines_table(engines: Sequence[ShownEngine]) -> tuple[Any, ...]:
    """Returns a table of an artifact's engines, and below it why any of them could not be loaded or is damaged."""
    rows = [
        _row(shown.engine.manifest, part, shown.loaded if isinstance(shown.loaded, str) else shown.loaded[index])
        for shown in engines
        if shown.engine is not None
        for index, part in enumerate(shown.engine.manifest.parts)
    ]
    reasons = dict.fromkeys(s.loaded for s in engines if s.engine is not None and isinstance(s.loaded, str))
    notes = [f"layers and activations on this machine are {reason}" for reason in reasons]
    notes += [f"{shown.folder.name} cannot be used: {shown.damage.message}" for shown in engines if shown.damage]
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


def engine_as_dict(shown: ShownEngine) -> dict[str, object]:
    """Returns an engine as plain data: its manifest, its layers on this machine, and how trtexec loads it."""
    if shown.engine is None:
        return {"path": str(shown.folder), "damage": "" if shown.damage is None else shown.damage.message}
    loaded = shown.loaded
    return {
        "path": str(shown.folder),
        "manifest": dataclasses.asdict(shown.engine.manifest),
        "loaded": loaded if isinstance(loaded, str) else [dataclasses.asdict(info) for info in loaded],
        "trtexec": trtexec_commands(shown.engine),
    }
