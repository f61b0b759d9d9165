"""Options in Python: text becomes the enum or path it names, and what is no value of an option is refused."""

from __future__ import annotations

import dataclasses
import importlib
import types
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import sait_deploy
from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS
from sait_deploy.errors import InvalidArgument, MissingDependency
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.tune_results import TuneOptions
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.serving.listening import Listening
from sait_deploy.serving.options import ModelsOptions
from tests.tiny import small_vit

ROOT = Path(__file__).parents[2]
NAMES = ("Options", "Pruning", "WeightsRequest")
"""How the name of a class of options ends; classes that its fields hold are options too."""

NEEDED: dict[str, dict[str, Any]] = {
    "TrainOptions": {"output": Path("here")},
    "TuneOptions": {"max_drop": 0.5},
    "PredictOptions": {"runtime": "torch"},
    "BatchOptions": {"source": "images", "output": "there", "artifact": Path("here")},
    "RepositoryOptions": {"artifact": Path("here"), "output": Path("there")},
    "ModelsOptions": {"artifacts": ("here",)},
    "ServeOptions": {"models": ModelsOptions(("here",)), "listening": Listening()},  # type: ignore[arg-type]
    "FinishOptions": {"opset": 20, "operators": "function", "metadata": {}},
    "LowerOptions": {"precision": "fp16", "attention": "fused", "selection": "plugin"},
    "AdaptivePruning": {"score": "mean", "prune_at": 1},
    "FixedPruning": {"score": "mean", "prune_at": 1, "kept": 4},
    "WeightsRequest": {"source": "file"},
    "Preprocessing": {
        **{"image_size": (8, 8), "resize": (8, 8), "crop_mode": "center", "interpolation": "bilinear"},
        **{"antialias": True, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    },
}
"""Arguments of the classes that have no default for each."""

BENCH_RESULT = "sait_deploy.bench.results.Pruning"
"""Part of a report that is read strictly from its file, and no options."""


def parts(kind: Any) -> Iterator[type]:
    """The classes that an annotation names."""
    if isinstance(kind, type) and get_origin(kind) is None:
        yield kind
    for part in get_args(kind):
        yield from parts(part)


def modules() -> Iterator[str]:
    """The package's modules by their import names; processes' entry points are none."""
    for folder in ("sait_deploy", "exporters", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[-1] not in ("__main__", "worker"):
                yield ".".join(parts if folder == "sait_deploy" else ("sait_deploy", *parts)).removesuffix(".__init__")


def options_classes() -> list[type[Any]]:
    """Every frozen class of options in the package, and those that its fields hold."""
    found: dict[str, type[Any]] = {}
    for module in modules():
        try:
            members = vars(importlib.import_module(module)).values()
        except (ImportError, MissingDependency):  # a runtime's package that is not installed
            continue
        for member in members:
            if isinstance(member, type) and dataclasses.is_dataclass(member) and member.__name__.endswith(NAMES):
                found[f"{member.__module__}.{member.__qualname__}"] = member
    found.pop(BENCH_RESULT, None)
    waiting = list(found.values())
    while waiting:
        for hint in get_type_hints(waiting.pop()).values():
            for part in parts(hint):
                name = f"{part.__module__}.{part.__qualname__}"
                if dataclasses.is_dataclass(part) and name not in found:
                    found[name] = part
                    waiting.append(part)
    return [found[name] for name in sorted(found)]


def enum_fields() -> list[tuple[type[Any], str, type[Enum], Any]]:
    """Every field of options that holds members of an enum: class, name, enum and annotation."""
    return [
        (owner, name, kind, hint)
        for owner in options_classes()
        for name, hint in get_type_hints(owner).items()
        for kind in parts(hint)
        if issubclass(kind, Enum)
    ]


def made(owner: type[Any], **given: Any) -> Any:
    return owner(**{**NEEDED.get(owner.__name__, {}), **given})


def is_list(hint: Any) -> bool:
    return get_origin(hint) in (tuple, frozenset)


FIELDS = enum_fields()


def test_the_walk_finds_the_options_of_all_stages() -> None:
    found = {owner.__name__ for owner in options_classes()}
    assert found >= {"ExportOptions", "EngineOptions", "RunOptions", "TrainOptions", "Recipe", "EvaluateOptions"}
    assert found >= {"TuneOptions", "BenchOptions", "MeasureOptions", "FixedPruning", "WeightsRequest"}
    assert {("ExportOptions", "score"), ("Recipe", "amp"), ("EngineOptions", "portability")} <= {
        (owner.__name__, name) for owner, name, _, _ in FIELDS
    }


@pytest.mark.parametrize(("owner", "name", "kind", "hint"), FIELDS, ids=[f"{o.__name__}.{n}" for o, n, _, _ in FIELDS])
def test_text_becomes_the_member_it_names_and_other_text_is_refused(
    owner: type[Any], name: str, kind: type[Enum], hint: Any
) -> None:
    for member in EXPORTED_PRECISIONS if (owner, name) == (ExportOptions, "precision") else kind:
        given, wanted = ([member.value], get_origin(hint)([member])) if is_list(hint) else (member.value, member)
        value = getattr(made(owner, **{name: given}), name)
        assert value == wanted
        assert all(type(item) is kind for item in (value if is_list(hint) else [value]))
    with pytest.raises(InvalidArgument) as refused:
        made(owner, **{name: ["nonsense"] if is_list(hint) else "nonsense"})
    assert name in refused.value.message
    assert "'nonsense'" in refused.value.message
    assert all(repr(member.value) in refused.value.hint for member in kind)


@pytest.mark.parametrize("owner", options_classes(), ids=lambda owner: owner.__name__)
def test_paths_may_be_text_and_switches_are_true_or_false(owner: type[Any]) -> None:
    for name, hint in get_type_hints(owner).items():
        if Path in parts(hint) and not is_list(hint):
            below = name in ("check_images", "class_map") and hasattr(owner, "images")
            extra = {"images": "folder"} if below else {}
            assert getattr(made(owner, **{**extra, name: "folder"}), name) == Path("folder")
        if hint is bool:
            with pytest.raises(InvalidArgument, match=name):
                made(owner, **{name: "no"})


def test_one_text_in_place_of_a_list_is_a_list_of_one() -> None:
    assert sait_deploy.ExportOptions(densities="0.5").densities == (Decimal("0.5"),)  # type: ignore[arg-type]
    assert EvaluateOptions(densities=[0.5, "0.25"]).densities == (Decimal("0.5"), Decimal("0.25"))  # type: ignore[arg-type, list-item]
    assert TuneOptions(max_drop=1, families="density").families == ("density",)  # type: ignore[arg-type]


def test_numbers_as_text_and_parts_of_another_class_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="prune_at cannot be '3'"):
        sait_deploy.ExportOptions(prune_at="3")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"points cannot be 0\.9") as refused:
        sait_deploy.ExportOptions(points=[0.9])  # type: ignore[arg-type, list-item]
    assert refused.value.hint == "give a PointRequest"
    with pytest.raises(InvalidArgument, match="points 7 is no list"):
        sait_deploy.ExportOptions(points=7)  # type: ignore[arg-type]


def test_int8_is_no_precision_to_export_in() -> None:
    with pytest.raises(InvalidArgument, match="no model is exported in int8") as refused:
        ExportOptions(precision="int8")  # type: ignore[arg-type]
    assert "sait-deploy quantize" in refused.value.hint


def test_a_models_own_choices_may_be_text_too() -> None:
    half = PrunableViT(small_vit(), None, precision="fp16", outputs="logits-and-features")  # type: ignore[arg-type]
    assert str(half.dtype) == "torch.float16"
    assert str(PrunableViT(small_vit(), None, precision="fp32").dtype) == "torch.float32"  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="precision cannot be 'int8'"):
        PrunableViT(small_vit(), None, precision="int8")  # type: ignore[arg-type]


def test_the_package_exports_what_options_are_made_of() -> None:
    for name in sait_deploy.__all__:
        assert not isinstance(getattr(sait_deploy, name), types.ModuleType)
    for owner in (sait_deploy.ExportOptions, sait_deploy.EngineOptions, sait_deploy.RunOptions):
        for hint in get_type_hints(owner).values():
            for part in parts(hint):
                if issubclass(part, Enum) or dataclasses.is_dataclass(part):
                    assert getattr(sait_deploy, part.__name__) is part
