"""What a reader must know of an evaluation of embeddings."""

from __future__ import annotations

from typing import Final

import numpy as np

from sait_deploy.evaluation.class_embeddings import ClassEmbeddings
from sait_deploy.evaluation.retrieval import RECALL_AT, VOTERS, least_images
from sait_deploy.images.dataset import Dataset
from sait_deploy.reports.table import Note, Severity

_MEASURED: Final = (
    "each image is a query and all others are its gallery, both embedded by the row's own model: recall@k counts the "
    "images whose nearest by dense is among their k nearest"
)
_MISLEADS: Final = (
    "cosine alone misleads: tokens kept at random come close to dense too; compare recall, and the rows of random "
    "tokens"
)


def embedding_notes(dataset: Dataset, classes: ClassEmbeddings | None) -> list[Note]:
    """Returns how embeddings are judged, and what cannot be measured on these images and why."""
    images, labels = len(dataset.images), dataset.labels
    notes = [Note(_MISLEADS), Note(_MEASURED)]
    if classes is not None:
        notes.append(Note(classes.note))
    short = [k for k in RECALL_AT if images < least_images(k)]
    few = [f"recall@{k}" for k in short] + [f"{VOTERS}-NN accuracy"] * (labels is not None and VOTERS in short)
    if few:
        least = least_images(max(short))
        text = f"{images} images are too few for {', '.join(few)}: give {least} or more with --images"
        notes.append(Note(text, Severity.WARNING))
    if labels is None:
        way = "give a folder with a subfolder for each class for recall between classes"
        return [*notes, Note(f"the images have no labels ({dataset.source}): {way}")]
    alone = int((np.unique(labels, return_counts=True)[1] == 1).sum())
    if alone:
        those = "1 image is alone in its class and" if alone == 1 else f"{alone} images are alone in their classes and"
        notes.append(Note(f"{those} cannot be right between classes"))
    return notes
