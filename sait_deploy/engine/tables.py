"""Tables of engines: what was built, and what an artifact's engines are."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.engine.folder import Engine
from sait_deploy.engine.inspect import EngineInspection, LoadedInfo
from sait_deploy.engine.manifest import EngineManifest, PartInfo
from sait_deploy.exporters.names import AttentionForm, EnginePrecision
from sait_deploy.reports.table import Note, Severity, Table, figures, words


def built_table(engines: Sequence[Engine]) -> Table:
    """Returns a table of engines that were built, with what a user should know before trusting one."""
    columns = [
        *(words("artifact"), words("engine"), words("part"), figures("MiB"), figures("seconds"), figures("layers")),
        *(figures("fused attention"), words("products in")),
    ]
    rows = [
        (
            engine.artifact.path.name,
            engine.manifest.name,
            part.name,
            f"{part.size_bytes / 2**20:.1f}",
            f"{part.build_seconds:.1f}",
            str(part.network.layers),
            str(part.network.attention_fused),
            ", ".join(engine.manifest.precisions_got),
        )
        for engine in engines
        for part in engine.manifest.parts
    ]
    return Table.of("", columns, rows, [note for engine in engines for note in _warnings(engine)])


def _warnings(engine: Engine) -> list[Note]:
    manifest, texts = engine.manifest, list(engine.manifest.messages)
    if manifest.attention.form is AttentionForm.DECOMPOSED:
        why = "fp32 has no fused attention" if manifest.precision is EnginePrecision.FP32 else "--allow-unfused"
        texts.insert(0, f"attention is matrix products and softmax ({why})")
    return [Note(f"{engine.artifact.path.name}: {text}", Severity.WARNING) for text in texts]


def engines_table(engines: Sequence[EngineInspection]) -> Table:
    """Returns a table of an artifact's engines, with notes on those that are damaged or do not run here."""
    columns = [
        *(words("engine"), words("part"), figures("MiB"), figures("batch"), figures("profiles")),
        *(figures("layers built from"), words("of them by type"), figures("fused attention")),
        *(figures("layers here"), figures("activations MiB")),
    ]
    rows = [
        _row(found.engine.manifest, part, found.loaded if isinstance(found.loaded, str) else found.loaded[index])
        for found in engines
        if found.engine is not None
        for index, part in enumerate(found.engine.manifest.parts)
    ]
    reasons = dict.fromkeys(f.loaded for f in engines if f.engine is not None and isinstance(f.loaded, str))
    notes = [Note(f"layers and activations on this machine are {reason}") for reason in reasons]
    notes += [Note(f"{f.folder.name} cannot be used: {f.damage.message}") for f in engines if f.damage is not None]
    return Table.of("", columns, rows, notes)


def _row(manifest: EngineManifest, part: PartInfo, loaded: LoadedInfo | str) -> tuple[str, ...]:
    return (
        manifest.name,
        part.name,
        f"{part.size_bytes / 2**20:.1f}",
        str(manifest.batch),
        str(len(part.profiles)),
        str(part.network.layers),
        ", ".join(f"{count} {name}" for name, count in part.network.precisions.items()),
        str(part.network.attention_fused),
        "–" if isinstance(loaded, str) else str(len(loaded.layers)),
        "–" if isinstance(loaded, str) else f"{loaded.memory_bytes / 2**20:.1f}",
    )
