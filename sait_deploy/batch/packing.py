"""Any number of images through a model in batches made of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sait_deploy.errors import SaitError
from sait_deploy.serving.batching import Stage, TokenBatcher
from sait_deploy.serving.stages import ImageAnswer, Prepared, Stages


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Item:
    number: int
    prepared: Prepared


def packed_answers(
    stages: Stages, images: Iterator[tuple[int, Prepared]], batch: int, budget: int
) -> Iterator[tuple[int, ImageAnswer | SaitError]]:
    """Computes images, each with a number by which it is known, and yields their answers as batches are done.

    Stems run on ``batch`` images, trunks on images whose kept tokens add up to ``budget`` at most; only the last
    batches have fewer.

    Raises:
        SaitError: the runtime cannot run a batch.
    """
    batcher: TokenBatcher[_Item] = TokenBatcher(budget, batch, stages.most_images)
    while True:
        while batcher.waiting < batch and (taken := next(images, None)) is not None:
            batcher.add(_Item(*taken))
        due = batcher.take()
        if due is None:
            return
        prepared = [item.prepared for item in due.items]
        if due.stage is Stage.STEM:
            for item, cut in zip(due.items, stages.stem(prepared), strict=True):
                batcher.add_cut(_Item(item.number, cut), stages.tokens(cut))
        else:
            yield from zip((item.number for item in due.items), stages.trunk(prepared), strict=True)
