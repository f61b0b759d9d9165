"""Parquet files that batch jobs are given: a right one, and others that hold what is no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.hostile.pictures import png_bomb

PARQUET: Final = "parquet"
"""Folder of the world's Parquet files."""


def write_parquet(folder: Path) -> None:
    """Writes the world's Parquet files, where pyarrow is installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        return
    image = (folder / "image.png").read_bytes()
    (folder / PARQUET).mkdir()
    tables: dict[str, dict[str, Any]] = {
        "right": {"image": [image, b"no image", None]},
        "largest-row-group": {"image": pa.nulls(1 << 26, pa.binary())},
        "cell-bomb": {"image": pa.array([bytes(300 << 20)], pa.large_binary())},
        "image-bomb": {"image": [png_bomb()] * 3},
        "no-images": {"image": ["text"] * 3, "\x1b[31m\n": [1, 2, 3]},
        "names": {"\x1b[31m\nevil": [image]},
        "nested": {"image": [{"bytes": {"bytes": {"bytes": image}}}]},
        "columns": {f"c{number}": pa.nulls(1) for number in range(5000)},
        "dictionary": {"image": [image] * 100},
    }
    for name, columns in tables.items():
        parquet.write_table(
            pa.table(columns), folder / PARQUET / f"{name}.parquet", compression="zstd", row_group_size=1 << 26
        )
