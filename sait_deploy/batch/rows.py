"""What a job writes: one row for each image, in Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.batch.place import Place
from sait_deploy.batch.record import part_name
from sait_deploy.errors import SaitError, StorageError, first_line
from sait_deploy.runtime.answers import Output, predictions
from sait_deploy.serving.stages import ImageAnswer

Found = ImageAnswer | SaitError


@dataclass(frozen=True, slots=True)
class Counts:
    """What a shard's file holds.

    Attributes:
        images: rows.
        broken: of them, those with an error.
        kept: patch tokens that the others kept, together.
    """

    images: int
    broken: int
    kept: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.images + other.images, self.broken + other.broken, self.kept + other.kept)


def write_rows(
    output: Place, number: int, manifest: Manifest, top: int, names: Sequence[str], found: Mapping[int, Found]
) -> Counts:
    """Writes a shard's file whole.

    Args:
        output: the job's folder.
        number: of the shard.
        manifest: of the artifact that answered.
        top: classes of each image.
        names: what the images are called.
        found: the answer to each image, by its place among the names, or what is wrong with it.

    Raises:
        StorageError: it cannot be written.
    """
    from pyarrow import parquet

    table, counts = _table(manifest, top, names, found)
    about = {"artifact": manifest.id, "broken": str(counts.broken), "kept": str(counts.kept)}
    with output.writing(part_name(number)) as file:
        parquet.write_table(table.replace_schema_metadata(about), file)
    return counts


def read_counts(output: Place, number: int) -> Counts:
    """Returns what a shard's file holds, from its footer.

    Raises:
        StorageError: it is no file that a job wrote.
    """
    from pyarrow import ArrowException, parquet

    name = part_name(number)
    try:
        with output.open(name) as file:
            footer = parquet.ParquetFile(file).metadata
        about: dict[bytes, bytes] = footer.metadata or {}
        return Counts(footer.num_rows, int(about[b"broken"]), int(about[b"kept"]))
    except (ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(
            f"{name} in {output.text} is damaged: {first_line(error)}", "remove it, and it is computed again"
        ) from None


def _table(manifest: Manifest, top: int, names: Sequence[str], found: Mapping[int, Found]) -> tuple[Any, Counts]:
    """Returns the shard's table: columns of classes or of an embedding, the same ones in every shard."""
    import pyarrow as pa

    answers = {place: one for place, one in sorted(found.items()) if isinstance(one, ImageAnswer)}
    errors = {place: _text(one.message) for place, one in found.items() if isinstance(one, SaitError)}
    columns = {
        "image": (pa.string(), dict(enumerate(map(_text, names)))),
        **(_classes(manifest, top, answers) if manifest.model.classes else _embeddings(manifest, answers)),
        "kept": (pa.int32(), {place: one.kept for place, one in answers.items()}),
        "error": (pa.string(), errors),
    }
    table = pa.table(
        {
            name: pa.array([values.get(place) for place in range(len(names))], kind)
            for name, (kind, values) in columns.items()
        }
    )
    return table, Counts(len(names), len(errors), sum(one.kept for one in answers.values()))


def _text(words: str) -> str:
    """Returns words as Parquet takes them: what of a file's name is no UTF-8 is escaped."""
    return words.encode(errors="backslashreplace").decode()


def _classes(manifest: Manifest, top: int, answers: Mapping[int, ImageAnswer]) -> dict[str, tuple[Any, dict[int, Any]]]:
    import pyarrow as pa

    found = predictions(manifest, _output(answers), top) if answers else []
    by_place = dict(zip(answers, found, strict=True))
    return {
        "label": (pa.string(), {place: one.labels[0] for place, one in by_place.items()}),
        "labels": (pa.list_(pa.string()), {place: one.labels for place, one in by_place.items()}),
        "probabilities": (pa.list_(pa.float32()), {place: one.probabilities for place, one in by_place.items()}),
    }


def _embeddings(manifest: Manifest, answers: Mapping[int, ImageAnswer]) -> dict[str, tuple[Any, dict[int, Any]]]:
    import pyarrow as pa

    kind = pa.list_(pa.float32(), manifest.model.answer_width)
    return {"embedding": (kind, {place: one.logits for place, one in answers.items()})}


def _output(answers: Mapping[int, ImageAnswer]) -> Output:
    logits = np.stack([one.logits for one in answers.values()])
    return Output(logits, np.array([one.kept for one in answers.values()], np.int32))
