"""Whole evaluations of small models: every figure against answers had in another way."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import numpy as np
import pytest
import torch

from sait_deploy.artifacts.manifest import Task, WeightsSource
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Basis, Kind, from_json, to_json
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.reports.table import Severity
from sait_deploy.tokens import Score, dense_macs, pruned_macs
from tests.evaluation.blotches import IMAGES, grouped, labelled_by, noise, row_of, small
from tests.tiny import HALF

PRUNE_AT = 1
QUARTER, EIGHTH = Decimal("0.25"), Decimal("0.125")
NO_RIVAL = EvaluateOptions(lower_resolutions=(), prune_at=PRUNE_AT)


def test_figures_of_a_point_are_those_of_its_answers() -> None:
    loaded = small()
    dataset, request = labelled_by(loaded), mass_point(0.6)

    found = evaluate(loaded, dataset, EvaluateOptions(points=(request,), batch=7, prune_at=PRUNE_AT))

    images = torch.from_numpy(preprocess(list(dataset.images), loaded.preprocessing))
    model = PrunableViT(loaded.vit, AdaptivePruning(Score.MEAN, PRUNE_AT))
    with torch.inference_mode():
        traced = model.trace(images, torch.full((IMAGES,), 0.6), torch.tensor([[1, 16]] * IMAGES, dtype=torch.int32))
        dense = loaded.vit(images)
    assert traced.counts is not None and dataset.labels is not None
    kept, geometry = (traced.counts - 1).numpy(), loaded.info.geometry
    labels = torch.from_numpy(dataset.labels)
    right, dense_right = (logits.argmax(1) == labels for logits in (traced.logits, dense))
    row, first = row_of(found, "mass0.6"), found.rows[0]
    assert (first.id, first.kind, first.top1_percent, first.mac_ratio) == ("dense", Kind.DENSE, 75.0, 1.0)
    assert (first.top1_change, first.lost_percent, first.agreement_percent) == (None, None, 100.0)
    assert (row.label, row.kind, row.point) == ("mass 0.6", Kind.MASS, request.resolve(16))
    assert row.top1_percent == pytest.approx(100 * float(right.float().mean()))
    five = (traced.logits.topk(5).indices == labels[:, None]).any(1)
    assert row.top5_percent == pytest.approx(100 * float(five.float().mean()))
    assert row.top1_change == paired_difference(right.numpy(), dense_right.numpy())
    assert row.lost_percent == pytest.approx(100 * float((dense_right & ~right).float().mean()))
    assert row.gained_percent == pytest.approx(100 * float((right & ~dense_right).float().mean()))
    agreement = (traced.logits.argmax(1) == dense.argmax(1)).float().mean()
    assert row.agreement_percent == pytest.approx(100 * float(agreement))
    cosine = torch.nn.functional.cosine_similarity(traced.logits, dense)
    assert row.cosine_mean == pytest.approx(float(cosine.mean()), abs=1e-4)
    assert row.cosine_p5 == pytest.approx(float(cosine.quantile(0.05)), abs=1e-3)
    assert row.kept_mean == pytest.approx(kept.mean())
    assert row.kept_max == kept.max()
    assert row.kept_p95 == pytest.approx(np.quantile(kept, 0.95))
    macs = np.mean([pruned_macs(geometry, PRUNE_AT, int(count)) for count in kept])
    assert row.macs == round(macs)
    assert row.mac_ratio == pytest.approx(dense_macs(geometry) / macs)
    assert row.images_per_second > 0


def test_whole_report() -> None:
    loaded = small()
    dataset = labelled_by(loaded)
    options = EvaluateOptions(
        densities=(HALF,), points=(mass_point(0.6), PointRequest("both", 1.0, 3, 5)), controls=(QUARTER,)
    )
    sizes = grouped("size", ["small", "large"] * (IMAGES // 2))
    steps: list[str] = []

    found = evaluate(
        loaded,
        dataset,
        dataclasses.replace(options, prune_at=PRUNE_AT),
        lambda step, share=None, /: steps.append(step),
        groupings=[sizes],
    )

    assert from_json(to_json(found)) == found
    assert (found.model, found.score, found.prune_at, found.runtime) == ("small", "mean", PRUNE_AT, "torch")
    assert (found.images, found.image_source, found.labelled) == (IMAGES, dataset.source, True)
    assert found.weights_sha256 == loaded.weights.sha256
    assert found.environment["torch"] == torch.__version__
    assert "answering 40 images" in steps[-1]
    kinds = [row.kind for row in found.rows]
    assert kinds == sorted(kinds, key=list(Kind).index)
    assert {row.id for row in found.rows} >= {"dense", "density0.5", "density0.25", "mass0.6", "both"}
    assert {row.id for row in found.rows} >= {"random0.25", "least-important0.25"}
    both, mass = row_of(found, "both"), row_of(found, "mass0.6")
    assert (both.kind, both.kept_mean, both.kept_max) == (Kind.DENSITY, 5.0, 5)
    groupings = {stratum.grouping for stratum in found.strata}
    assert groupings == {"size", "class", "kept at mass 0.6"}
    for name in ("mass0.6", "density0.5", "both"):
        own = [stratum for stratum in found.strata if stratum.row == name and stratum.grouping == "size"]
        assert [(stratum.name, stratum.images) for stratum in own] == [("large", 20), ("small", 20)]
        row = row_of(found, name)
        assert row.top1_change is not None
        assert np.mean([stratum.top1_change.value for stratum in own]) == pytest.approx(row.top1_change.value)
        assert np.mean([stratum.kept_mean for stratum in own]) == pytest.approx(row.kept_mean)
    quarters = [s for s in found.strata if s.row == "mass0.6" and s.grouping == "kept at mass 0.6"]
    assert sum(stratum.images * stratum.kept_mean for stratum in quarters) == pytest.approx(IMAGES * mass.kept_mean)


def test_everything_is_compared_with_what_costs_as_much() -> None:
    loaded = small(depth=6)
    geometry = loaded.info.geometry
    options = EvaluateOptions(densities=(QUARTER, EIGHTH), points=(mass_point(0.6),), controls=(QUARTER,))

    found = evaluate(loaded, labelled_by(loaded), dataclasses.replace(options, prune_at=0))

    rows = {row.id: row for row in found.rows}
    pairs = {(one.first, one.second) for one in found.comparisons}
    assert {one.basis for one in found.comparisons} == {Basis.EQUAL_MACS}
    assert pairs >= {("density0.25", "random0.25"), ("density0.25", "least-important0.25")}
    rivals = {first: rows[second] for first, second in pairs if rows[second].kind is Kind.LOWER_RESOLUTION}
    assert set(rivals) == {"density0.25", "density0.125", "mass0.6"}
    assert {rival.id for rival in rivals.values()} == {"16px", "24px"}
    for first, rival in rivals.items():
        assert rival.macs >= rows[first].macs
        assert rival.kept_max == rival.image_size[0] * rival.image_size[1] // 64
    (matched,) = [second for first, second in pairs if first == "mass0.6" and rows[second].kind is Kind.DENSITY]
    kept = rows[matched].kept_max
    assert pruned_macs(geometry, 0, kept) >= rows["mass0.6"].macs > pruned_macs(geometry, 0, kept - 1)
    for one in found.comparisons:
        mine, other = rows[one.first].top1_percent, rows[one.second].top1_percent
        assert mine is not None and other is not None
        assert one.difference.value == pytest.approx(mine - other)
        assert one.difference.low < one.difference.value < one.difference.high


def test_controls_answer_otherwise_and_keep_as_many() -> None:
    loaded = small()

    found = evaluate(loaded, labelled_by(loaded), EvaluateOptions(controls=(EIGHTH,), prune_at=PRUNE_AT))

    names = ("density0.125", "random0.125", "least-important0.125")
    assert len({row_of(found, name).cosine_mean for name in names}) == 3
    assert {row_of(found, name).kept_mean for name in names} == {2.0}
    assert {row_of(found, name).macs for name in names} == {pruned_macs(loaded.info.geometry, PRUNE_AT, 2)}


def test_the_same_evaluation_twice_gives_the_same_figures() -> None:
    loaded = small()
    options = EvaluateOptions(densities=(HALF,), points=(mass_point(0.6),), controls=(EIGHTH,))

    found = [
        evaluate(loaded, labelled_by(loaded), dataclasses.replace(options, batch=batch, prune_at=PRUNE_AT))
        for batch in (8, 8, 5)
    ]

    first, second, other = (
        [dataclasses.replace(row, images_per_second=1.0) for row in one.rows] for one in found
    )  # fmt: skip
    assert first == second
    assert [(row.id, row.top1_percent, row.kept_mean) for row in first] == [
        (row.id, row.top1_percent, row.kept_mean) for row in other
    ]


@pytest.mark.parametrize(("heights", "wanted"), [((), set()), ((8, 24), {"8px", "24px"}), (None, {"16px"})])
def test_lower_resolutions_are_those_asked_for(heights: tuple[int, ...] | None, wanted: set[str]) -> None:
    loaded = small(depth=6)
    options = EvaluateOptions(densities=(EIGHTH,), lower_resolutions=heights)

    found = evaluate(loaded, labelled_by(loaded), dataclasses.replace(options, prune_at=0))

    assert {row.id for row in found.rows if row.kind is Kind.LOWER_RESOLUTION} == wanted
    second = [one.second for one in found.comparisons]
    assert second == ([] if heights == () else ["24px"] if heights else ["16px"])


def test_a_note_says_where_no_lower_resolution_costs_as_much() -> None:
    loaded = small()

    found = evaluate(loaded, labelled_by(loaded), EvaluateOptions(densities=(Decimal("0.9"),), prune_at=2))

    assert [row.kind for row in found.rows] == [Kind.DENSE, Kind.DENSITY]
    assert any("no lower resolution has as many" in note.text and "density 0.9" in note.text for note in found.notes)


def test_without_labels_answers_are_held_against_denses() -> None:
    loaded = small()
    dataset = dataclasses.replace(labelled_by(loaded), labels=None)
    options = EvaluateOptions(densities=(EIGHTH,), points=(mass_point(0.6),), controls=(EIGHTH,))

    found = evaluate(loaded, dataset, dataclasses.replace(options, prune_at=PRUNE_AT))

    assert not found.labelled
    assert {(r.top1_percent, r.top5_percent, r.top1_change, r.lost_percent, r.gained_percent) for r in found.rows} == {
        (None,) * 5
    }
    rows = {row.id: row for row in found.rows}
    for one in found.comparisons:
        first, second = rows[one.first].agreement_percent, rows[one.second].agreement_percent
        assert first is not None and second is not None
        assert one.difference.value == pytest.approx(first - second)
    assert {stratum.dense_top1_percent for stratum in found.strata} == {100.0}
    assert any("no labels" in note.text for note in found.notes)


def test_features_of_a_headless_model_are_judged_as_its_embeddings_are() -> None:
    loaded = small(num_classes=0)
    options = EvaluateOptions(points=(mass_point(0.6),), prune_at=PRUNE_AT)

    features, embeddings = (
        evaluate(loaded, noise(14), dataclasses.replace(options, task=task)) for task in (Task.FEATURES, Task.EMBED)
    )

    for row, other in zip(features.rows, embeddings.rows, strict=True):
        assert (row.top1_percent, row.agreement_percent) == (None, None)
        assert row.retrieval == other.retrieval is not None
        assert row.cosine_mean == pytest.approx(other.cosine_mean, abs=1e-6)
    assert features.rows[0].cosine_mean == 1.0
    assert 0 < row_of(features, "mass0.6").cosine_mean < 1


def test_five_classes_have_no_top5() -> None:
    loaded = small(num_classes=5)

    found = evaluate(loaded, labelled_by(loaded), EvaluateOptions(densities=(HALF,), prune_at=PRUNE_AT))

    assert {row.top5_percent for row in found.rows} == {None}
    assert found.rows[0].top1_percent == 75.0


def test_random_weights_come_with_a_warning() -> None:
    loaded = small()
    loaded = dataclasses.replace(loaded, weights=dataclasses.replace(loaded.weights, source=WeightsSource.RANDOM))

    found = evaluate(loaded, noise(4), NO_RIVAL)

    assert any(note.severity is Severity.WARNING and "random" in note.text for note in found.notes)


def test_a_model_that_reads_four_channels_is_evaluated_on_what_is_shipped() -> None:
    loaded = load_model("test_vit", WeightsRequest(WeightsSource.RANDOM, in_chans=4))

    found = evaluate(loaded, options=dataclasses.replace(NO_RIVAL, densities=(HALF,)))

    assert found.images == 6 and "fourth channel" in found.image_source


def test_a_model_is_evaluated_at_densities_and_masses_where_none_are_named() -> None:
    found = evaluate(small(), noise(4), dataclasses.replace(NO_RIVAL, controls=(EIGHTH,)))

    densities = {f"density{share}" for share in (0.7, 0.5, 0.3, 0.2, 0.125)}
    assert {row.id for row in found.rows} >= {"dense", *densities, "mass0.9", "mass0.8", "random0.125"}
    named = evaluate(small(), noise(4), dataclasses.replace(NO_RIVAL, points=(mass_point(0.6),)))
    assert {row.id for row in named.rows if not row.id.startswith("kept")} == {"dense", "mass0.6"}


def test_a_limit_takes_images_labels_and_groups_alike() -> None:
    loaded = small()
    dataset = labelled_by(loaded)
    assert dataset.labels is not None
    chosen = [round(i * 39 / 9) for i in range(10)]
    groups = grouped("number", [f"{i:02}" for i in range(IMAGES)])
    options = EvaluateOptions(points=(mass_point(0.6),), limit=10, lower_resolutions=())

    found = evaluate(loaded, dataset, dataclasses.replace(options, prune_at=PRUNE_AT), groupings=[groups])

    part = Dataset([dataset.images[i] for i in chosen], dataset.labels[chosen], dataset.source)
    wanted = evaluate(loaded, part, dataclasses.replace(options, limit=None, prune_at=PRUNE_AT))
    assert found.images == 10
    assert row_of(found, "mass0.6").top1_percent == row_of(wanted, "mass0.6").top1_percent
    own = [s for s in found.strata if s.grouping == "number" and s.row == "mass0.6"]
    assert [s.name for s in own] == [f"{i:02}" for i in chosen]
    assert [s.dense_top1_percent for s in own] == [100.0 if i % 4 else 0.0 for i in chosen]
    assert any("10 of 40 images" in note.text for note in found.notes)
    assert not any("of 40" in note.text for note in wanted.notes)


def test_a_point_named_like_a_row_is_told_from_it() -> None:
    loaded = small()
    options = EvaluateOptions(densities=(HALF,), points=(PointRequest("density0.5", 0.4), PointRequest("dense", 0.9)))

    found = evaluate(loaded, noise(6), dataclasses.replace(options, prune_at=PRUNE_AT))

    names = [row.id for row in found.rows]
    assert len(set(names)) == len(names)
    assert {"dense", "density0.5", "point-density0.5", "point-dense"} <= set(names)
    assert row_of(found, "density0.5").kept_mean == 8
