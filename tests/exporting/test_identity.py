"""No two exports meet, and what is there is replaced only when asked for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.folder import LAST_EXPORT_FILE, Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ArtifactError, StorageError
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export
from sait_deploy.models.registry import LoadedModel
from sait_deploy.tokens import Score
from tests.exported import TinyExport, fill
from tests.exporting.exports import HALVES, described, names, smallest, to
from tests.tiny import HALF, randomised, small_vit


@functools.cache
def variants() -> list[tuple[str, LoadedModel, ExportOptions]]:
    """Exports that differ in one thing each, and in pairs of things."""
    base = small_vit()
    models: dict[str, VisionTransformer] = {
        "base": base,
        "weights": randomised(small_vit(), seed=1),
        "image size": small_vit(img_size=40),
        "heads": small_vit(num_heads=4),
        "activation": small_vit(act_layer="quick_gelu"),
        "tanh": small_vit(act_layer="gelu_tanh"),
        "epsilon": small_vit(norm_layer=functools.partial(LayerNorm, eps=1e-3)),
        "pooling": small_vit(global_pool="avg", fc_norm=False),
        "pooling with prefix": small_vit(global_pool="avg", fc_norm=False, pool_include_prefix=True),
    }
    for name, vit in models.items():
        if name not in ("base", "weights", "image size"):
            vit.load_state_dict(base.state_dict())
    settings: dict[str, dict[str, Any]] = {
        "score": {"score": Score.CLS},
        "block": {"prune_at": 1},
        "precision": {"precision": Precision.FP16},
        "opset": {"opset": 22},
        "inline": {"operators": OperatorForm.INLINE},
        "density": {"densities": (Decimal("0.51"),)},
    }
    cases = [(name, described(vit), HALVES) for name, vit in models.items()]
    cases.append(("name", described(base, "other"), HALVES))
    for count in (1, 2, 3):
        for chosen in itertools.combinations(settings, count):
            changes = {key: value for name in chosen for key, value in settings[name].items()}
            cases.append(("+".join(chosen), described(base), dataclasses.replace(HALVES, **changes)))
    return cases


def test_different_exports_have_different_ids() -> None:
    seen: dict[str, str] = {}
    for case, model, options in variants():
        plan = plan_exports(model, options)[1]
        assert plan.id not in seen, f"{case} and {seen.get(plan.id)}"
        seen[plan.id] = case
    assert len(seen) > 40


def test_different_exports_have_different_folders(tmp_path: Path, tiny: TinyExport) -> None:
    workspace, places = Workspace(tmp_path), dict[Path, str]()
    for case, model, options in variants():
        plan = plan_exports(model, options)[1]
        place = workspace.place_for(plan.name, plan.id)
        assert place not in places, f"{case} and {places.get(place)}"
        places[place] = case
        with workspace.writing(place) as folder:
            fill(folder, dataclasses.replace(tiny.half.manifest, id=plan.id, name=plan.name))


@pytest.mark.parametrize("case", ["weights", "image size", "heads", "pooling", "epsilon", "precision", "opset"])
def test_exports_that_compute_something_else_share_no_baseline(case: str) -> None:
    cases = {name: (model, options) for name, model, options in variants()}
    assert plan_exports(*cases[case])[0].id != plan_exports(*cases["base"])[0].id


@pytest.mark.parametrize("case", ["score", "block", "density"])
def test_the_baseline_does_not_depend_on_how_tokens_are_chosen(case: str) -> None:
    cases = {name: (model, options) for name, model, options in variants()}
    assert plan_exports(*cases[case])[0].id == plan_exports(*cases["base"])[0].id


def test_the_same_export_has_the_same_id() -> None:
    first, second = (plan_exports(described(small_vit()), HALVES) for _ in range(2))
    assert [plan.id for plan in first] == [plan.id for plan in second]
    training = small_vit().train()
    training.set_grad_checkpointing()
    assert [plan.id for plan in plan_exports(described(training), HALVES)] == [plan.id for plan in first]


def test_another_model_of_the_same_name_goes_beside_it(tmp_path: Path) -> None:
    (first,) = export(smallest(), to(tmp_path), name="m")
    (second,) = export(smallest(seed=1), to(tmp_path), name="m")
    assert first.path == tmp_path / "m-dense"
    assert second.path == tmp_path / second.manifest.id
    assert open_artifact(first.path) == first and open_artifact(second.path) == second


def stamp(artifact: Artifact) -> tuple[int, int]:
    status = artifact.model_path.stat()
    return status.st_ino, status.st_mtime_ns


def test_an_artifact_that_is_there_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    first = export(smallest(), to(tmp_path, densities=(HALF,)))
    before = [stamp(artifact) for artifact in first]
    with pytest.raises(StorageError, match="already there") as caught:
        export(smallest(), to(tmp_path, densities=(HALF,)))
    assert str(first[1].path) in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert [stamp(artifact) for artifact in first] == before
    second = export(smallest(), to(tmp_path, densities=(HALF,), overwrite=True))
    assert [artifact.path for artifact in second] == [artifact.path for artifact in first]
    assert not {stamp(artifact) for artifact in second} & set(before)
    assert names(tmp_path) == {artifact.path.name for artifact in first} | {LAST_EXPORT_FILE}


def test_a_baseline_that_is_there_is_kept(tmp_path: Path) -> None:
    (dense,) = export(smallest(), to(tmp_path))
    before, told = stamp(dense), list[str]()
    again, half = export(smallest(), to(tmp_path, densities=(HALF,)), progress=lambda line, _=None: told.append(line))
    assert again == dense and stamp(again) == before
    assert half.manifest.baseline == dense.manifest.id
    assert told[0] == f"{dense.manifest.name}: already there, kept"
    assert Workspace(tmp_path).last_export() == [dense.path, half.path]
    with pytest.raises(StorageError, match="already there"):
        export(smallest(), to(tmp_path))


def test_a_damaged_baseline_is_not_built_on(tmp_path: Path) -> None:
    (dense,) = export(smallest(), to(tmp_path))
    dense.model_path.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="SHA-256"):
        export(smallest(), to(tmp_path, densities=(HALF,)))
    assert names(tmp_path) == {dense.path.name, LAST_EXPORT_FILE}
