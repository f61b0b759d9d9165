"""Inputs and folders of batch jobs: Parquet files that are none, or hold what is no image, and records of no job.

Cases compute their shards in the command's own process, as starting Ray would take longer than all else.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Change, Door
from tests.hostile.documents import NUMBERS, TEXTS, changed
from tests.hostile.files import CHANGES, removed
from tests.hostile.parquet_files import PARQUET
from tests.hostile.world import ADAPTIVE

KIND: Final = "batch"
_RIGHT: Final = f"{PARQUET}/right.parquet"
_RECORD: Final = "job/_job/record.json"
_OUT: Final = ("-o", "job", "--artifact", ADAPTIVE, "--threads", "1")
_FILE: Final = Door("parquet", ("batch", _RIGHT, *_OUT), _RIGHT)
_FOLDER: Final = Door("images", ("batch", "images", *_OUT), "images")
_GOES_ON: Final = Door("record", ("batch", "images", *_OUT), _RECORD)
_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "schema_version": (0, 99, "1"),
    "artifact": (*TEXTS, 1),
    "point": ([], [1], ["1", 1, 1], [10**400, 1, 1], {}, None),
    "runtime": (*TEXTS, 1, None),
    "top": NUMBERS,
    "source": (*TEXTS, 1),
    "shard": NUMBERS,
    "images": NUMBERS,
    "shards": NUMBERS,
    "listing": (*TEXTS, 1),
    "more": (1,),
}
_MADE: Final = ("largest-row-group", "cell-bomb", "image-bomb", "no-images", "names", "nested", "columns", "dictionary")
_ANSWERED: Final = frozenset({"names", "dictionary"})
"""Files in which an image is found."""


def without_ray() -> None:
    """Lets jobs of this process compute here what Ray's processes would."""
    from sait_deploy.batch import job
    from sait_deploy.batch.worker import ShardActor, counts_in

    class Column(list[int]):
        def tolist(self) -> list[int]:
            return list(self)

    def compute(options: Any, begun: Any, counts: Any, progress: Any) -> Any:
        actor = ShardActor(options, begun.record.artifact)
        for number, place in begun.pending:
            found = actor({"number": Column([number]), "place": Column([place])})
            if "please report it" in found["failure"][0]:
                raise AssertionError(found["failure"][0])
            counts = counts + counts_in({name: values[0] for name, values in found.items()})
        return counts

    job._compute = compute


def _bytes(function: Callable[[bytes], bytes]) -> Change:
    def change(folder: Path) -> None:
        file = folder / _RIGHT
        if file.exists():
            file.write_bytes(function(file.read_bytes()))

    return change


def _flipped(seed: int) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        chosen, made = random.Random(seed), bytearray(data)
        for _ in range(3):
            # Most of a Parquet file is the image; its footer, which says what is where, is at the end.
            made[chosen.randrange(max(0, len(made) - 700), len(made))] = chosen.randrange(256)
        return bytes(made)

    return flip


_BYTES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "half": lambda data: data[: len(data) // 2],
    "no-end": lambda data: data[:-4],
    "magic": lambda _: b"PAR1PAR1",
    "encrypted": lambda data: b"PARE" + data[4:-4] + b"PARE",
    "footer-none": lambda data: data[:-8] + struct.pack("<I", 0) + b"PAR1",
    "footer-longer": lambda data: data[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
    "footer-zeros": lambda data: data[:-700] + bytes(692) + data[-8:],
    "pages-zeros": lambda data: data[:4] + bytes(len(data) - 1004) + data[-1000:],
}


def _begun(folder: Path) -> Path:
    """Puts a job's record into its folder."""
    record = {
        **{"schema_version": 1, "artifact": "x", "point": [0.5, 1, 36], "runtime": "onnxruntime", "precision": None},
        **{"top": 3, "source": str(folder / "images"), "shard": 1000, "image_column": None},
        **{"images": 5, "shards": 1, "listing": "0" * 64},
    }
    file = folder / _RECORD
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record), encoding="utf-8")
    return file


def cases() -> Iterator[Case]:
    """Yields every file, folder and record."""
    for door in (_FILE, _FOLDER):
        yield Case(f"right/batch/{door.name}", "right", door, lambda _: None, True)
    for door in (_FILE, _FOLDER, _GOES_ON):
        for name, change in CHANGES.items():

            def apply(folder: Path, door: Door = door, change: Callable[[Path], None] = change) -> None:
                removed(folder / door.file)
                change(folder / door.file)

            # A link to itself is no record: a job begins, and its record takes the link's place.
            yield Case(f"batch/{door.name}/{name}", KIND, door, apply, (door, name) == (_GOES_ON, "loop"))
    for name, function in _BYTES.items():
        yield Case(f"batch/bytes/{name}", KIND, _FILE, _bytes(function))
    for seed in range(40):
        # What a file holds may be damaged and still be read: rows are images or errors.
        yield Case(f"batch/flipped/{seed}", KIND, _FILE, _bytes(_flipped(seed)), True)
    for name in _MADE:
        door = Door(name, ("batch", f"{PARQUET}/{name}.parquet", *_OUT), "")
        yield Case(f"batch/made/{name}", KIND, door, lambda _: None, name in _ANSWERED)
    for path, values in _FIELDS.items():
        for number, value in enumerate(values):

            def edit(folder: Path, path: str = path, value: Any = value) -> None:
                changed(_begun(folder), path, value)

            yield Case(f"batch/{path}/{number}", KIND, _GOES_ON, edit)
