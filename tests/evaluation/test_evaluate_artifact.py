"""Evaluations of artifacts: as the model itself answers, with what has to be left out said."""

from __future__ import annotations

import dataclasses
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import torch

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.points import mass_point
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Kind
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.reports.table import Severity
from sait_deploy.runtime import load
from tests.evaluation.blotches import labelled_by, noise, row_of
from tests.exported import TinyExport
from tests.test_imports import BLOCKED, python
from tests.tiny import HALF, exactly

EIGHTH = Decimal("0.125")
NO_RIVAL = EvaluateOptions(lower_resolutions=())


def artifact_images(tiny: TinyExport) -> Dataset:
    """Images for the exported model, labelled by its dense form but for every fourth."""
    return labelled_by(tiny.model, 24)


def test_an_adaptive_artifact_answers_as_the_model_does(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    dataset = artifact_images(tiny)
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    options = EvaluateOptions(densities=(HALF,), points=(mass_point(0.6), mass_point(0.8)), controls=(HALF,), batch=9)

    found = evaluate(tiny_adaptive, dataset, options)

    wanted = evaluate(tiny.model, dataset, dataclasses.replace(options, score=pruning.score, prune_at=pruning.prune_at))
    assert (found.runtime, found.model, found.prune_at) == ("onnxruntime", "test_vit", pruning.prune_at)
    assert [row.id for row in found.rows] == [row.id for row in wanted.rows]
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert (row.top1_percent, row.label, row.image_size) == (other.top1_percent, other.label, other.image_size)
        assert (row.kept_mean, row.macs) == pytest.approx((other.kept_mean, other.macs), rel=0.02)
        assert row.cosine_mean == pytest.approx(other.cosine_mean, abs=2e-3)
    pairs = [(one.first, one.second, one.basis) for one in found.comparisons]
    assert pairs == [(one.first, one.second, one.basis) for one in wanted.comparisons]
    assert any("in torch, in float32" in note.text for note in found.notes)


def test_an_adaptive_artifact_runs_at_its_own_points_where_none_is_asked_for(
    tiny: TinyExport, tiny_adaptive: Artifact
) -> None:
    found = evaluate(tiny_adaptive, artifact_images(tiny), NO_RIVAL)

    rows = {row.id: row for row in found.rows}
    assert {"dense", "mass0.6", "fast", "wide"} <= set(rows)
    assert rows["fast"].kept_max <= 8 and rows["wide"].kept_mean >= 12
    assert not any("torch" in note.text for note in found.notes)


def test_an_adaptive_artifact_without_its_baseline_is_its_own(
    tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    alone = tmp_path / tiny_adaptive.path.name
    shutil.copytree(tiny_adaptive.path, alone)

    found = evaluate(open_artifact(alone), artifact_images(tiny), NO_RIVAL)

    wanted = evaluate(tiny_adaptive, artifact_images(tiny), NO_RIVAL)
    assert any("dense is the adaptive artifact with all tokens" in note.text for note in found.notes)
    assert not any("at mass 1" in note.text for note in wanted.notes)
    assert (found.rows[0].id, found.rows[0].kept_mean, found.rows[0].mac_ratio) == ("dense", 36.0, 1.0)
    assert [row.top1_percent for row in found.rows] == [row.top1_percent for row in wanted.rows]


def test_a_density_artifact_stands_beside_its_dense_baseline(tiny: TinyExport) -> None:
    dataset = artifact_images(tiny)

    found = evaluate(tiny.half, dataset, EvaluateOptions(controls=(HALF,)))

    images = preprocess(list(dataset.images), tiny.half.manifest.preprocessing)
    answers = [load(a).run(images).logits.argmax(1) for a in (tiny.dense, tiny.half)]
    shown = [row_of(found, name).top1_percent for name in ("dense", "density0.5")]
    assert shown == pytest.approx([100 * float((answer == dataset.labels).mean()) for answer in answers])
    assert {row.kind for row in found.rows} == set(Kind) - {Kind.MASS}


def test_a_density_artifact_without_its_baseline_is_refused(tiny: TinyExport, tmp_path: Path) -> None:
    alone = tmp_path / tiny.half.path.name
    shutil.copytree(tiny.half.path, alone)

    with pytest.raises(ArtifactError, match="is not beside it"):
        evaluate(open_artifact(alone), noise(2, 96, 5))


def test_a_dense_artifact_answers_itself_alone(tiny: TinyExport) -> None:
    found = evaluate(tiny.dense, artifact_images(tiny))

    assert [row.id for row in found.rows] == ["dense"]
    assert (found.score, found.prune_at) == ("none", 0)
    assert found.rows[0].top1_percent == 75.0


@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize(
    "options",
    [EvaluateOptions(densities=(EIGHTH,)), EvaluateOptions(points=(mass_point(0.5),))],
    ids=["density", "mass"],
)
def test_what_a_fixed_artifact_cannot_be_asked_is_refused(
    tiny: TinyExport, form: str, options: EvaluateOptions
) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot be asked|no densities"):
        evaluate(getattr(tiny, form), noise(2, 96, 5), options)


def test_what_needs_weights_that_are_gone_is_left_out_with_a_warning(
    tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    dataset = artifact_images(tiny)
    options = EvaluateOptions(densities=(HALF,), controls=(HALF,))
    missing = tmp_path / "missing.safetensors"

    found = evaluate(tiny_adaptive, dataset, dataclasses.replace(options, weights=missing))

    assert [row.id for row in found.rows] == ["dense", "density0.5"]
    (note,) = [note for note in found.notes if note.severity is Severity.WARNING]
    assert "controls and lower resolutions are left out" in note.text and "missing.safetensors" in note.text
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny.weights, moved)
    again = evaluate(tiny_adaptive, dataset, dataclasses.replace(options, weights=moved))
    assert "random0.5" in {row.id for row in again.rows}


def test_an_unknown_runtime_is_refused(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match="unknown runtime 'abacus'"):
        evaluate(tiny.dense, noise(2, 96, 5), EvaluateOptions(runtime="abacus"))


def test_an_artifact_is_evaluated_without_torch(tiny_adaptive: Artifact) -> None:
    """Where only a runtime is installed: what needs torch is left out, and said."""
    code = f"""{BLOCKED}
from decimal import Decimal
import numpy as np
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.images.dataset import Dataset
from sait_deploy.evaluation.evaluate import EvaluateOptions, evaluate
from sait_deploy.artifacts.points import mass_point

images = list(np.random.default_rng(0).integers(0, 255, (6, 96, 96, 3), np.uint8))
options = EvaluateOptions(points=(mass_point(0.6),), densities=(Decimal("0.5"),), controls=(Decimal("0.5"),))
found = evaluate(open_artifact(sys.argv[1]), Dataset(images, None, "noise"), options)
print(",".join(row.id for row in found.rows))
print(*(note.text for note in found.notes), sep="\\n")
"""
    done = python(code, tiny_adaptive.path)

    assert done.returncode == 0, done.stderr
    rows, *notes = done.stdout.splitlines()
    assert rows.startswith("dense,") and "mass0.6" in rows and "random" not in rows and "px" not in rows
    assert any("controls and lower resolutions are left out" in note and "torch" in note for note in notes)


def test_a_forced_number_of_tokens_is_the_density_of_the_adaptive_form(
    tiny: TinyExport, tiny_adaptive: Artifact
) -> None:
    """A density of an adaptive artifact keeps what the model does at exactly as many tokens."""
    dataset, pruning = artifact_images(tiny), tiny_adaptive.manifest.pruning
    assert pruning is not None and dataset.labels is not None

    options = EvaluateOptions(densities=(Decimal("0.3"),), lower_resolutions=())
    found = evaluate(tiny_adaptive, dataset, options)

    images = torch.from_numpy(preprocess(list(dataset.images), tiny.model.preprocessing))
    model = PrunableViT(tiny.model.vit, AdaptivePruning(pruning.score, pruning.prune_at))
    with torch.inference_mode():
        logits = model(images, torch.ones(24), exactly([11] * 24))[0]
    right = logits.argmax(1).numpy() == dataset.labels
    row = row_of(found, "density0.3")
    assert row.top1_percent == pytest.approx(100 * right.mean())
    assert row.kept_mean == 11.0
