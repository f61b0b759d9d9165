"""Retrieval by embeddings: which images are nearest to each image of a set, and how right that is.

Each image is a query in turn and all others are the gallery, both embedded by the model that is judged, as an index
that is deployed would be. Nearness is the cosine. Three measures, each one true or false per image:

- recall@k against dense: the image that is nearest by dense is among the k nearest. It is the recall@R of Jégou, Douze
  and Schmid (Product quantization for nearest neighbor search, PAMI 2011), with dense in place of the exact distance.
- recall@k between classes: an image of the query's class is among the k nearest, as in Oh Song et al. (CVPR 2016).
- k-NN accuracy, leave-one-out: most of the k nearest are of the query's class; of classes with as many, the one whose
  first image is nearest counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.evaluation.results import Recall, Retrieval
from sait_deploy.evaluation.stats import paired_difference

RECALL_AT: Final = (1, 5, 10)
VOTERS: Final = 10
"""k of k-NN accuracy."""


def least_images(neighbours: int) -> int:
    """Returns from how many images on recall among so many neighbours says something: all others would always do."""
    return neighbours + 2


def recalled(wanted: NDArray[np.int32], found: NDArray[np.int32], neighbours: int) -> NDArray[np.bool_]:
    """Returns for each image whether the nearest by one is among so many nearest by another, bool [n].

    Args:
        wanted: int32 [n, k], what is nearest by dense.
        found: int32 [n, k], what is nearest by the other.
        neighbours: of the other.
    """
    hits: NDArray[np.bool_] = (found[:, :neighbours] == wanted[:, :1]).any(axis=1)
    return hits


class RetrievalTruth:
    """What retrieval is judged by: dense's nearest images, and classes where they are known.

    Args:
        dense: int32 [n, k], as :func:`nearest` returns it.
        labels: int64 [n], the images' classes; None where unknown.
    """

    def __init__(self, dense: NDArray[np.int32], labels: NDArray[np.int64] | None) -> None:
        self._dense, self._labels, images = dense, labels, len(dense)
        self.recall_at = tuple(k for k in RECALL_AT if images >= least_images(k))
        self._is_labelled = labels is not None
        self.has_voters = labels is not None and images >= least_images(VOTERS)

    @property
    def can_judge(self) -> bool:
        """Whether there are images enough for any measure."""
        return bool(self.recall_at)

    def right(self, found: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Returns for each image whether the measure that rows are compared by holds, bool [n].

        It is the class by k-NN where classes are known, else recall@1 against dense.
        """
        return self._voted(found) if self.has_voters else recalled(self._dense, found, 1)

    def row(self, found: NDArray[np.int32]) -> Retrieval:
        """Returns the figures of a row whose nearest images are these; its changes are to dense."""
        return Retrieval(
            against_dense=tuple(
                self._recall(k, found, lambda one, k: recalled(self._dense, one, k)) for k in self.recall_at
            ),
            between_classes=tuple(self._recall(k, found, self._of_class) for k in self.recall_at if self._is_labelled),
            knn=self._recall(VOTERS, found, lambda one, _: self._voted(one)) if self.has_voters else None,
        )

    def _recall(
        self,
        neighbours: int,
        found: NDArray[np.int32],
        judge: Callable[[NDArray[np.int32], int], NDArray[np.bool_]],
    ) -> Recall:
        right = judge(found, neighbours)
        change = None if found is self._dense else paired_difference(right, judge(self._dense, neighbours))
        return Recall(neighbours, 100.0 * float(right.mean()), change)

    def _of_class(self, found: NDArray[np.int32], neighbours: int) -> NDArray[np.bool_]:
        assert self._labels is not None
        hits: NDArray[np.bool_] = (self._labels[found[:, :neighbours]] == self._labels[:, None]).any(axis=1)
        return hits

    def _voted(self, found: NDArray[np.int32]) -> NDArray[np.bool_]:
        assert self._labels is not None
        classes = self._labels[found[:, :VOTERS]]
        votes = (classes[:, :, None] == classes[:, None, :]).sum(axis=2)
        chosen = np.take_along_axis(classes, votes.argmax(axis=1)[:, None], 1)[:, 0]
        right: NDArray[np.bool_] = chosen == self._labels
        return right
