"""What Python calls: every command has its function, which has an example and works on small artifacts."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sait_deploy
from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.cli import COMMANDS
from sait_deploy.errors import ArtifactError, InvalidArgument
from tests.exported import IMAGE_SIZE, TinyExport, copied
from tests.training.small import small_model, squares

FUNCTIONS = {
    "train": "train",
    "export": "export",
    "quantize": "quantize",
    "build-engine": "build_engine",
    "bench": "benchmark",
    "evaluate": "evaluate",
    "tune": "tune",
    "recommend": "recommend",
    "predict": "predict",
    "serve": "serve",
    "batch": "run_batch",
    "triton-repository": "write_repository",
    "inspect": "inspect",
    "doctor": "examine",
    "models": "supported_names",
}
"""Command to function; rooms are called bench and batch, so these two have another name."""

IMAGES = demo.IMAGES / "3"
QUICK = {"batches": (1,), "duration": 0.01, "warmup": 0, "threads": 1, "accuracy": "none"}


def functions() -> list[str]:
    return [name for name in sait_deploy.__all__ if inspect.isfunction(getattr(sait_deploy, name))]


def example(name: str) -> str:
    """The lines below ``Example::`` in a function's docstring."""
    below = (inspect.getdoc(getattr(sait_deploy, name)) or "").partition("Example::\n")[2]
    lines = itertools.takewhile(lambda line: line.startswith("    ") or not line, below.splitlines())
    return textwrap.dedent("\n".join(lines))


def test_every_command_has_its_function() -> None:
    assert list(FUNCTIONS) == list(COMMANDS)
    assert set(FUNCTIONS.values()) <= set(functions())


def test_dir_lists_all_public_names_before_they_are_loaded() -> None:
    assert set(sait_deploy.__all__) <= set(dir(sait_deploy))
    assert "numpy" not in dir(sait_deploy)


def test_no_module_hides_a_public_name() -> None:
    for name in sait_deploy.__all__:
        for place in sait_deploy.__path__:
            assert not (Path(place) / f"{name}.py").exists(), name
            assert not (Path(place) / name).exists(), name


def test_the_public_names_are_those_that_a_type_checker_sees_and_stand_in_their_modules() -> None:
    tree = ast.parse(Path(sait_deploy.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.asname == alias.name for alias in node.names), "a strict type checker takes it for internal"
        seen |= {alias.name: str(node.module) for alias in node.names}
    assert sait_deploy.__all__ == sorted(["__version__", *seen])
    for name, module in seen.items():
        assert getattr(sait_deploy, name) is getattr(importlib.import_module(module), name)


def test_all_names_can_be_imported_at_once_and_others_cannot() -> None:
    found: dict[str, object] = {}
    exec("from sait_deploy import *", found)
    assert set(sait_deploy.__all__) <= set(found)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = sait_deploy.nonsense


@pytest.mark.parametrize("name", sorted({*FUNCTIONS.values(), "load", "load_model", "compare_with_torch"}))
def test_a_functions_example_names_only_what_there_is(name: str) -> None:
    tree = ast.parse(example(name))
    assert f"sait_deploy.{name}(" in example(name)
    made = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - made
    known = {*sait_deploy.__all__, *vars(builtins), "sait_deploy", "Path", "timm", "wait"}
    assert used <= known
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sait_deploy":
            assert node.attr in sait_deploy.__all__


def test_benchmark_finds_the_baseline(tiny: TinyExport) -> None:
    report = sait_deploy.benchmark(str(tiny.half.path), sait_deploy.BenchOptions(**QUICK))  # type: ignore[arg-type]
    assert [variant.label for variant in report.variants] == ["dense", "density 0.5"]
    assert {row.batch for row in report.rows} == {1}
    found = sait_deploy.recommend(report)
    assert found.chosen in {variant.id for variant in report.variants}


def test_evaluate_takes_an_artifacts_folder_and_a_folder_of_images(tiny: TinyExport) -> None:
    options = sait_deploy.EvaluateOptions(lower_resolutions=(), limit=4, threads=1)
    evaluation = sait_deploy.evaluate(str(tiny.half.path), str(IMAGES), options)
    assert evaluation.images == 4
    of_model = sait_deploy.evaluate(tiny.model, IMAGES, sait_deploy.EvaluateOptions(densities=("0.5",), limit=4))  # type: ignore[arg-type]
    assert of_model.runtime == "torch"


def test_tune_writes_a_point_of_an_artifacts_folder(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    artifact = copied(tiny_adaptive, tmp_path)
    options = sait_deploy.TuneOptions(
        max_disagreement=90, confidence=0.5, splits=sait_deploy.SplitOptions(images=demo.IMAGES), grid=(0.6,), threads=1
    )
    result = sait_deploy.tune(artifact.path, options)
    assert result.outcome == "tuned", result.message
    assert "tuned" in [info.name for info in open_artifact(artifact.path).manifest.pruning.points]  # type: ignore[union-attr]


def test_predict_answers_files_and_folders(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    options = sait_deploy.PredictOptions(
        top=2, choice=sait_deploy.PointChoice("fast"), labels=labels, visualize=tmp_path / "pictures", threads=1
    )
    found = sait_deploy.predict(str(tiny_adaptive.path), str(IMAGES), options)
    assert [answer.path for answer in found] == sorted(IMAGES.iterdir())
    assert all(set(answer.prediction.labels) < set("abcde") for answer in found)  # type: ignore[union-attr]
    assert len(list((tmp_path / "pictures").iterdir())) == len(found) + 1
    one = sait_deploy.predict(tiny_adaptive, found[0].path, options)
    assert one[0].prediction.kept == found[0].prediction.kept


def test_predict_options_are_checked_once() -> None:
    with pytest.raises(InvalidArgument, match="classes"):
        sait_deploy.PredictOptions(top=0)
    with pytest.raises(InvalidArgument, match="weights"):
        sait_deploy.PredictOptions(weights=Path("w.pth"))


def test_train_export_and_inspect_what_was_trained(tmp_path: Path) -> None:
    options = sait_deploy.TrainOptions(
        tmp_path / "out",
        data=sait_deploy.DataOptions(str(squares(tmp_path / "data", train=8, validation=2)), augmentation="none"),  # type: ignore[arg-type]
        recipe=sait_deploy.Recipe(epochs=1, batch=8, warmup_epochs=0, ema_decay=None),
    )
    result = sait_deploy.train(small_model(), None, options)
    assert result.weights.is_file() and len(result.log) == 1


def test_a_model_loaded_by_name_is_exported_and_compared_again(tiny: TinyExport, tmp_path: Path) -> None:
    request = sait_deploy.WeightsRequest("file", tiny.weights)  # type: ignore[arg-type]
    model = sait_deploy.load_model("test_vit", request, IMAGE_SIZE)
    dense, half = sait_deploy.export(model, sait_deploy.ExportOptions(densities=("0.5",), output=tmp_path))  # type: ignore[arg-type]
    assert half.manifest.id == tiny.half.manifest.id
    assert sait_deploy.inspect(str(half.path)).artifact.manifest.baseline == dense.manifest.id
    assert sait_deploy.compare_with_torch(half.path).images > 0


def test_quantize_adds_the_baseline(tiny: TinyExport, tmp_path: Path) -> None:
    copied(tiny.dense, tmp_path)
    half = copied(tiny.half, tmp_path)
    options = sait_deploy.QuantizeOptions(images=demo.IMAGES, min_agreement=0, threads=1)
    made = sait_deploy.quantize(half.path, options)
    assert [artifact.manifest.form for artifact in made] == ["dense", "density"]


def test_a_repository_is_written(tiny: TinyExport, tmp_path: Path) -> None:
    options = sait_deploy.RepositoryOptions(tiny.half.path, tmp_path / "repository")
    (model,) = sait_deploy.write_repository(options)
    assert (model / "config.pbtxt").is_file()


def test_names_of_models_are_listed() -> None:
    assert "deit_small_patch16_224" in sait_deploy.supported_names("deit_small*")


@pytest.mark.parametrize(
    "call",
    [
        sait_deploy.benchmark,
        lambda place: sait_deploy.measure_candidates([place]),
        sait_deploy.evaluate,
        lambda place: sait_deploy.tune(place, sait_deploy.TuneOptions(max_drop=1)),
        lambda place: sait_deploy.predict(place, IMAGES),
        lambda place: sait_deploy.quantize([place]),
        sait_deploy.inspect,
        sait_deploy.compare_with_torch,
        sait_deploy.build_engine,
        sait_deploy.load,
        lambda place: sait_deploy.write_repository(sait_deploy.RepositoryOptions(place, place)),
    ],
    ids=[
        "benchmark",
        "measure",
        "evaluate",
        "tune",
        "predict",
        "quantize",
        "inspect",
        "compare",
        "build",
        "load",
        "triton",
    ],
)
def test_a_folder_that_is_no_artifact_is_named(call: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        call(tmp_path / "nothing")


def test_a_server_and_a_job_open_their_artifacts_before_ray_starts(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    models = sait_deploy.ModelsOptions((tmp_path / "nothing",))
    with (
        pytest.raises(ArtifactError, match="does not exist"),
        sait_deploy.serve(sait_deploy.ServeOptions(models, sait_deploy.Listening(port=18000, grpc_port=18001))),
    ):
        pass
    job = sait_deploy.BatchOptions(str(IMAGES), str(tmp_path / "out"), tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="does not exist"):
        sait_deploy.run_batch(job)
