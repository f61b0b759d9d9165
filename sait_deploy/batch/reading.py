"""A shard's images, read and decoded ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.batch.listing import Shard
from sait_deploy.batch.place import Place
from sait_deploy.errors import ImageError, first_line
from sait_deploy.images.preprocess import Preprocessing, open_image, preprocess
from sait_deploy.images.received import open_received

_ROWS: Final = 32
"""Rows of Parquet held at once."""

_MOST_PIXELS: Final = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)
"""Where Pillow refuses files, too."""

Read = NDArray[np.float32] | ImageError


def read_images(
    source: Place, shard: Shard, preprocessing: Preprocessing, executor: Executor, ahead: int
) -> Iterator[Read]:
    """Yields a shard's images in order, float32 [C, H, W], or what is wrong with one.

    Args:
        source: the input.
        shard: which of its images.
        preprocessing: the model's.
        executor: reads and decodes.
        ahead: images to be read and not yet taken.

    Raises:
        ImageError: the shard's Parquet file cannot be read.
    """
    loads = _loads(source, shard, preprocessing.channels)
    waiting: deque[Future[Read]] = deque()
    for load in islice(loads, ahead):
        waiting.append(executor.submit(_prepared, load, preprocessing))
    while waiting:
        yield waiting.popleft().result()
        for load in islice(loads, 1):
            waiting.append(executor.submit(_prepared, load, preprocessing))


def _prepared(load: Callable[[], Image.Image], preprocessing: Preprocessing) -> Read:
    try:
        image: NDArray[np.float32] = preprocess(load(), preprocessing)[0]
        return image
    except ImageError as error:
        return error


def _loads(source: Place, shard: Shard, channels: int) -> Iterator[Callable[[], Image.Image]]:
    """Yields for each image what opens it."""
    if shard.column is not None:
        for data in _cells(source, shard):
            yield partial(open_received, data or b"", _MOST_PIXELS, channels)
    elif source.is_local:
        for name in shard.files:
            yield partial(open_image, source.path(name), channels)
    else:
        for name in shard.files:
            yield partial(_open_remote, source, name, channels)


def _open_remote(source: Place, name: str, channels: int) -> Image.Image:
    try:
        data = source.read(name)
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"{name} of {source.text} cannot be read: {first_line(error)}") from None
    return open_received(data, _MOST_PIXELS, channels)


def _cells(source: Place, shard: Shard) -> Iterator[Any]:
    """Yields the bytes of each row, None where there are none."""
    from pyarrow import ArrowException, compute, parquet, types

    assert shard.column is not None
    try:
        with source.open(shard.files[0]) as file:
            groups = list(range(*shard.row_groups))
            for rows in parquet.ParquetFile(file).iter_batches(_ROWS, groups, [shard.column]):
                column = rows.column(0)
                bytes_of = compute.struct_field(column, "bytes") if types.is_struct(column.type) else column
                yield from (cell.as_py() for cell in bytes_of)
    except (ArrowException, OSError, ValueError) as error:
        what = f"{shard.files[0]} of {source.text} cannot be read: {first_line(error)}"
        raise ImageError(what, "write it again") from None
