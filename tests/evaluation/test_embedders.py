"""Whole evaluations of models that embed: every figure against embeddings had in another way."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Task, WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.evaluation import report
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.results import Basis, Evaluation, Kind, from_json, to_json
from sait_deploy.evaluation.retrieval import RetrievalTruth
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.embedder import for_task
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning
from sait_deploy.models.registry import LoadedModel, WeightsRequest, describe, load_model
from sait_deploy.reports.table import Severity
from sait_deploy.runtime.embeddings import nearest
from sait_deploy.tokens import Score
from tests.evaluation.blotches import noise, row_of, small
from tests.evaluation.tunings import draw
from tests.exported import IMAGE_SIZE, TinyExport
from tests.tiny import HALF, small_vit

IMAGES = 40
PLAIN = EvaluateOptions(lower_resolutions=(), prune_at=1)
EMBED = dataclasses.replace(PLAIN, task=Task.EMBED)


def embedded(loaded: LoadedModel, dataset: Dataset, pruning: Pruning | None, mass: float = 1.0) -> NDArray[np.float32]:
    """Embeddings by torch, all images at once."""
    images = torch.from_numpy(preprocess(list(dataset.images), loaded.preprocessing))
    further = ()
    if isinstance(pruning, AdaptivePruning):
        limits = torch.tensor([[1, 16]] * len(images), dtype=torch.int32)
        further = torch.full((len(images),), mass), limits  # type: ignore[assignment]
    with torch.inference_mode():
        found = PrunableViT(loaded.vit, pruning, task=Task.EMBED).trace(images, *further).logits
    return found.numpy()  # type: ignore[no-any-return]


def texts(evaluation: Evaluation) -> str:
    return "\n".join(note.text for note in evaluation.notes)


@pytest.mark.parametrize("labelled", [False, True])
def test_figures_are_those_of_the_embeddings(labelled: bool) -> None:
    loaded, dataset = small(), noise(IMAGES, classes=4)
    dataset = dataset if labelled else dataclasses.replace(dataset, labels=None)
    options = dataclasses.replace(EMBED, densities=(HALF,), points=(mass_point(0.6),))

    found = evaluate(loaded, dataset, options)

    model = for_task(loaded, Task.EMBED)
    dense = nearest(embedded(model, dataset, None))
    truth = RetrievalTruth(dense, dataset.labels)
    for name, pruning in (
        ("density0.5", FixedPruning(Score.MEAN, 1, 8)),
        ("mass0.6", AdaptivePruning(Score.MEAN, 1)),
    ):
        row, embeddings = row_of(found, name), embedded(model, dataset, pruning, 0.6)
        assert row.retrieval == truth.row(nearest(embeddings))
        cosine = (embeddings * embedded(model, dataset, None)).sum(axis=1)
        assert row.cosine_mean == pytest.approx(float(cosine.mean()), abs=1e-5)
    assert found.rows[0].retrieval == truth.row(dense)
    assert {(row.top1_percent, row.agreement_percent) for row in found.rows} == {(None, None)}
    assert found.labelled is labelled
    assert found.measure == ("10-NN accuracy" if labelled else "recall@1")
    assert any(stratum.grouping == "class" for stratum in found.strata) is labelled
    assert from_json(to_json(found)) == found


def test_random_tokens_stand_beside_every_point_and_are_compared_with_it() -> None:
    options = dataclasses.replace(EMBED, densities=(HALF,), points=(mass_point(0.6),))

    found = evaluate(small(), noise(IMAGES), options)

    controls = {row.id: row for row in found.rows if row.kind is Kind.RANDOM}
    compared = {one.first: one.second for one in found.comparisons if one.second in controls}
    assert compared.keys() == {"density0.5", "mass0.6"}
    assert compared["density0.5"] == "random0.5"
    assert all(one.basis is Basis.EQUAL_MACS for one in found.comparisons)
    by_id = {row.id: row for row in found.rows}
    for one in found.comparisons:
        first, second = by_id[one.first].retrieval, by_id[one.second].retrieval
        assert first is not None and second is not None
        assert one.difference.value == pytest.approx(first.main.percent - second.main.percent)
    assert controls["random0.5"].kept_mean == row_of(found, "density0.5").kept_mean
    assert "cosine alone misleads" in texts(found)
    none = evaluate(small(), noise(IMAGES), dataclasses.replace(options, controls=()))
    assert not [row for row in none.rows if row.kind is Kind.RANDOM]
    asked = evaluate(small(), noise(IMAGES), dataclasses.replace(options, controls=(Decimal("0.25"),)))
    assert {row.id for row in asked.rows if row.kind in (Kind.RANDOM, Kind.LEAST_IMPORTANT)} == {
        "random0.25",
        "least-important0.25",
    }


def test_a_classifier_has_no_controls_of_its_own() -> None:
    found = evaluate(small(), noise(12), dataclasses.replace(PLAIN, densities=(HALF,)))
    assert not [row for row in found.rows if row.kind is Kind.RANDOM or row.retrieval is not None]
    assert "retrieval" not in to_json(found)


def class_file(path: Path, model: LoadedModel, dataset: Dataset, labels: list[str]) -> Path:
    """Class embeddings: those of the first image of each class."""
    assert dataset.labels is not None
    found = embedded(model, dataset, None)
    firsts = [int(np.flatnonzero(dataset.labels == number)[0]) for number in range(len(labels))]
    np.savez(path, embeddings=3 * found[firsts], labels=np.array(labels))
    return path


def test_class_embeddings_classify_by_the_nearest(tmp_path: Path) -> None:
    loaded, dataset, names = small(), noise(IMAGES, classes=6), list("abcdef")
    model = for_task(loaded, Task.EMBED)
    file = class_file(tmp_path / "c.npz", model, dataset, names)

    found = evaluate(loaded, dataset, dataclasses.replace(EMBED, densities=(HALF,), class_embeddings=file))

    assert dataset.labels is not None
    classes = np.load(file)["embeddings"]
    scores = [embedded(model, dataset, p) @ (classes / 3).T for p in (None, FixedPruning(Score.MEAN, 1, 8))]
    dense, half = (one.argmax(axis=1) for one in scores)
    first, row = found.rows[0], row_of(found, "density0.5")
    assert first.top1_percent == pytest.approx(100 * np.mean(dense == dataset.labels))
    assert first.top1_percent >= 100 * 6 / IMAGES
    assert row.top1_percent == pytest.approx(100 * np.mean(half == dataset.labels))
    assert row.agreement_percent == pytest.approx(100 * np.mean(half == dense))
    five = np.argsort(-scores[1], axis=1)[:, :5]
    assert row.top5_percent == pytest.approx(100 * np.mean((five == dataset.labels[:, None]).any(axis=1)))
    assert row.retrieval is not None and row.retrieval.knn is not None
    assert found.measure == "top-1"
    assert {stratum.name for stratum in found.strata if stratum.grouping == "class"} == set(names)
    assert "6 embeddings in c.npz, brought from lengths 3 to 3 to unit length" in texts(found)
    assert found.options["class embeddings"] == "c.npz"


@pytest.mark.parametrize("write", [report.to_markdown, report.to_html, accuracy_plot])
def test_reports_of_embedders_say_what_they_measure(write: Any) -> None:
    options = dataclasses.replace(EMBED, densities=(HALF,))
    for dataset, measure in ((noise(IMAGES, classes=3), "10-NN accuracy"), (noise(7), "recall@1")):
        text = write(evaluate(small(), dataset, options))
        assert measure in text
        assert "top-1" not in text


def test_too_few_images_are_said_and_never_measured() -> None:
    options = dataclasses.replace(EMBED, densities=(HALF,))
    found = evaluate(small(), noise(6, classes=2), options)
    (warning,) = [note for note in found.notes if note.severity is Severity.WARNING]
    assert warning.text.startswith("6 images are too few for recall@5, recall@10, 10-NN accuracy: give 12 or more")
    assert found.rows[0].retrieval is not None and len(found.rows[0].retrieval.against_dense) == 1
    two = evaluate(small(), noise(2), options)
    assert (two.comparisons, two.strata, two.rows[0].retrieval) == ((), (), None)
    assert "cosine" in report.to_markdown(two) and accuracy_plot(two)


def test_images_alone_in_their_class_are_said() -> None:
    dataset = dataclasses.replace(noise(14), labels=np.array([0] * 6 + [1] * 7 + [2]))
    assert "1 image is alone in its class" in texts(evaluate(small(), dataset, EMBED))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images in two subfolders that are no classes of the model."""
    for number, name in enumerate(("cups", "trees")):
        draw(tmp_path / "images" / name, 7, number)
    return tmp_path / "images"


def test_subfolders_are_classes_whatever_the_models_are(folders: Path) -> None:
    found = evaluate(small(img_size=96), folders, EMBED)
    assert found.labelled
    assert {stratum.name for stratum in found.strata if stratum.grouping == "class"} == {"cups", "trees"}
    flat = evaluate(small(img_size=96), folders / "cups", EMBED)
    assert not flat.labelled
    assert "the images have no labels" in texts(flat) and "give a folder with a subfolder for each class" in texts(flat)


def test_an_artifact_that_embeds_is_evaluated_on_its_runtime(
    tiny: TinyExport, embedders: list[Artifact], folders: Path
) -> None:
    options = EvaluateOptions(densities=(HALF,), lower_resolutions=(), threads=1)
    found = evaluate(embedders[2], folders, options)
    torch_model = load_model("test_vit", WeightsRequest(WeightsSource.FILE, tiny.weights), IMAGE_SIZE)
    other = evaluate(torch_model, folders, dataclasses.replace(EMBED, densities=(HALF,), prune_at=None))
    assert found.runtime == "onnxruntime"
    for name in ("dense", "density0.5", "random0.5"):
        assert row_of(found, name).retrieval == row_of(other, name).retrieval
    assert row_of(found, "dense").kept_mean == 36


@pytest.mark.parametrize(
    ("changes", "message", "kind"),
    [
        ({"class_embeddings": Path("c.npz")}, "10 classes of its own", InvalidArgument),
        ({"task": Task.EMBED, "class_map": Path("m.txt")}, "class map is for classes", InvalidArgument),
        ({"task": Task.EMBED, "class_embeddings": Path("missing.npz")}, "cannot be read", InvalidArgument),
        ({"task": Task.FEATURES}, "without a head", InvalidArgument),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    changes: dict[str, Any], message: str, kind: type[Exception], folders: Path
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(small(), folders, dataclasses.replace(PLAIN, **changes))


def test_class_embeddings_are_of_folders_of_these_names(folders: Path, tmp_path: Path) -> None:
    loaded = describe(small_vit(img_size=96, num_classes=0), "small", WeightsSource.MEMORY, None)
    np.savez(tmp_path / "c.npz", embeddings=np.eye(2, 32), labels=np.array(["trees", "cups"]))
    found = evaluate(loaded, folders, dataclasses.replace(PLAIN, class_embeddings=tmp_path / "c.npz"))
    assert found.labelled and found.rows[0].top1_percent is not None
    with pytest.raises(InvalidArgument, match="need images"):
        evaluate(loaded, None, dataclasses.replace(PLAIN, class_embeddings=tmp_path / "c.npz"))
    with pytest.raises(InvalidArgument, match="not for --task classify"):
        EvaluateOptions(class_embeddings=tmp_path / "c.npz", task=Task.CLASSIFY)
    with pytest.raises(ImageError):
        evaluate(loaded, tmp_path / "nowhere", PLAIN)
