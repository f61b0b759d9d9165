"""What to compute next: stems in batches of images, trunks in batches of tokens, both in the order of arrival."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Stage(StrEnum):
    """A half of the model."""

    STEM = "stem"
    TRUNK = "trunk"


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """Images to compute together.

    Attributes:
        stage: what to compute.
        items: in the order of arrival, at least one.
        tokens: that a trunk's batch has in all; 0 of a stem's, whose images have all of theirs.
    """

    stage: Stage
    items: tuple[Item, ...]
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        tokens: of a trunk's batch at most.
        images: of a batch at most; None for as many as the tokens allow.
    """

    tokens: int
    images: int | None = None

    def within(self, images: int) -> int:
        """Returns how many images a batch may have where something else allows so many."""
        return images if self.images is None else min(images, self.images)


class TokenBatcher(Generic[Item]):
    """Two queues: images before the stem, and images before the trunk with the tokens that each keeps.

    Nothing waits for company: whoever asks for work gets what is there. Under load the stems run ahead until a trunk's
    batch is full, so that batches grow by themselves.

    Args:
        budget: tokens of a trunk's batch at most; an image with more runs alone.
        stem_images: images of a stem's batch at most, wished for.
        most_images: images of any batch at most, as some runtimes take no more.
    """

    def __init__(self, budget: int, stem_images: int, most_images: int) -> None:
        self._budget, self._stem_images, self._most_images = budget, min(stem_images, most_images), most_images
        self._waiting: deque[Item] = deque()
        self._cut: deque[tuple[Item, int]] = deque()
        self._cut_tokens = 0

    @property
    def waiting(self) -> int:
        """Images before the stem."""
        return len(self._waiting)

    @property
    def cut(self) -> int:
        """Images between stem and trunk."""
        return len(self._cut)

    @property
    def oldest(self) -> Item | None:
        """The image that has waited longest."""
        return self._cut[0][0] if self._cut else self._waiting[0] if self._waiting else None

    def add(self, item: Item) -> None:
        """Queues an image before the stem."""
        self._waiting.append(item)

    def add_cut(self, item: Item, tokens: int) -> None:
        """Queues an image that keeps so many tokens before the trunk."""
        self._cut.append((item, tokens))
        self._cut_tokens += tokens

    def discard(self, item: Item) -> None:
        """Forgets an image, wherever it is queued."""
        if item in self._waiting:
            self._waiting.remove(item)
        for queued in [one for one in self._cut if one[0] == item]:
            self._cut.remove(queued)
            self._cut_tokens -= queued[1]

    def take(self) -> Batch[Item] | None:
        """Returns what to compute next and takes it out of its queue; None where nothing waits."""
        full = self._cut_tokens >= self._budget or len(self._cut) >= self._most_images
        if self._waiting and not full:
            taken = [self._waiting.popleft() for _ in range(min(self._stem_images, len(self._waiting)))]
            return Batch(Stage.STEM, tuple(taken))
        return self._take_cut() if self._cut else None

    def _take_cut(self) -> Batch[Item]:
        items: list[Item] = []
        tokens = 0
        while self._cut and len(items) < self._most_images:
            item, more = self._cut[0]
            if items and tokens + more > self._budget:
                break
            self._cut.popleft()
            items.append(item)
            tokens += more
        self._cut_tokens -= tokens
        return Batch(Stage.TRUNK, tuple(items), tokens)
