"""Export, run and measure vision transformers that prune tokens adaptively.

Example::

    import sait_deploy

    runner = sait_deploy.load("artifacts/sait_demo_digits-density0.6")
    output = runner.run(runner.preprocess(["photo.jpg"]))

Names are loaded when they are first used: running an artifact imports neither torch nor timm.
"""

from __future__ import annotations

import os as _os
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sait_deploy.artifacts.manifest import Head, Outputs, Pooling, Precision, Task, WeightsSource
    from sait_deploy.artifacts.points import PointChoice, PointRequest, mass_point
    from sait_deploy.batch.job import run_batch
    from sait_deploy.batch.options import BatchOptions
    from sait_deploy.bench.kept import KeptDistribution
    from sait_deploy.bench.options import AccuracyOf, Also, BenchOptions
    from sait_deploy.bench.results import Timing
    from sait_deploy.bench.run import benchmark
    from sait_deploy.bench.variants import Sweep
    from sait_deploy.doctor import examine
    from sait_deploy.engine.build import build_engine
    from sait_deploy.engine.options import (
        BatchRange,
        BuilderChoice,
        EngineOptions,
        FusionChoice,
        PluginChoice,
        Portability,
    )
    from sait_deploy.engine.trust import Consent, Downloads, EngineTrust, HostCode
    from sait_deploy.evaluation.evaluate import evaluate
    from sait_deploy.evaluation.options import EvaluateOptions
    from sait_deploy.evaluation.tune import tune
    from sait_deploy.evaluation.tune_results import Search, TuneOptions
    from sait_deploy.evaluation.tune_splits import SplitOptions
    from sait_deploy.evaluation.tune_trials import PointFamily
    from sait_deploy.exporters.finish import OperatorForm
    from sait_deploy.exporters.names import EnginePrecision
    from sait_deploy.exporting.inspect import compare_with_torch, inspect
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export
    from sait_deploy.images.preprocess import CropMode, Interpolation
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice
    from sait_deploy.models.creation import supported_names
    from sait_deploy.models.registry import WeightsRequest, load_model
    from sait_deploy.prediction import PredictOptions, predict
    from sait_deploy.quantization.options import Exclude, QuantizeOptions
    from sait_deploy.quantization.stage import quantize
    from sait_deploy.recommending.measure import measure_candidates
    from sait_deploy.recommending.results import RecommendOptions
    from sait_deploy.recommending.stage import recommend
    from sait_deploy.report_files import write_report
    from sait_deploy.runtime import RunOptions, load
    from sait_deploy.runtime.precision import RunPrecision
    from sait_deploy.serving.listening import Listening
    from sait_deploy.serving.local import ServeOptions, serve
    from sait_deploy.serving.options import ModelsOptions
    from sait_deploy.tokens import Score
    from sait_deploy.training.options import (
        Alternation,
        Amp,
        Augmentation,
        DataOptions,
        DensityRange,
        Distillation,
        MassRange,
        Recipe,
        TrainOptions,
    )
    from sait_deploy.training.train import train
    from sait_deploy.triton_repository.options import Backend, RepositoryOptions
    from sait_deploy.triton_repository.stage import write_repository

# ONNX Runtime reports its use to Microsoft otherwise, from its import on.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AccuracyOf",
    "Also",
    "Alternation",
    "Amp",
    "Augmentation",
    "Backend",
    "BatchOptions",
    "BatchRange",
    "BenchOptions",
    "BuilderChoice",
    "Consent",
    "CropMode",
    "DataOptions",
    "DensityRange",
    "Distillation",
    "Downloads",
    "EngineOptions",
    "EnginePrecision",
    "EngineTrust",
    "EvaluateOptions",
    "Exclude",
    "ExportOptions",
    "FusionChoice",
    "Head",
    "HostCode",
    "Interpolation",
    "KeptDistribution",
    "Listening",
    "MassRange",
    "ModelsOptions",
    "OperatorForm",
    "Outputs",
    "PluginChoice",
    "PointChoice",
    "PointFamily",
    "PointRequest",
    "Pooling",
    "Portability",
    "Precision",
    "PredictOptions",
    "PreprocessingChoice",
    "QuantizeOptions",
    "Recipe",
    "RecommendOptions",
    "RepositoryOptions",
    "RunOptions",
    "RunPrecision",
    "Score",
    "Search",
    "ServeOptions",
    "SplitOptions",
    "Sweep",
    "Task",
    "Timing",
    "TrainOptions",
    "TuneOptions",
    "WeightsRequest",
    "WeightsSource",
    "__version__",
    "benchmark",
    "build_engine",
    "compare_with_torch",
    "evaluate",
    "examine",
    "export",
    "inspect",
    "load",
    "load_model",
    "mass_point",
    "measure_candidates",
    "predict",
    "quantize",
    "recommend",
    "run_batch",
    "serve",
    "supported_names",
    "train",
    "tune",
    "write_report",
    "write_repository",
]
__version__ = "0.1.0"

# In a checkout the packages `exporters` and `plugins` lie beside this one; an installed wheel has them inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "exporters" / "__init__.py").is_file():
    __path__.append(str(_root))

_HOMES = {
    "AccuracyOf": "sait_deploy.bench.options",
    "Also": "sait_deploy.bench.options",
    "Alternation": "sait_deploy.training.options",
    "Amp": "sait_deploy.training.options",
    "Augmentation": "sait_deploy.training.options",
    "Backend": "sait_deploy.triton_repository.options",
    "BatchOptions": "sait_deploy.batch.options",
    "BatchRange": "sait_deploy.engine.options",
    "BenchOptions": "sait_deploy.bench.options",
    "BuilderChoice": "sait_deploy.engine.options",
    "Consent": "sait_deploy.engine.trust",
    "CropMode": "sait_deploy.images.preprocess",
    "DataOptions": "sait_deploy.training.options",
    "DensityRange": "sait_deploy.training.options",
    "Distillation": "sait_deploy.training.options",
    "Downloads": "sait_deploy.engine.trust",
    "EngineOptions": "sait_deploy.engine.options",
    "EnginePrecision": "sait_deploy.exporters.names",
    "EngineTrust": "sait_deploy.engine.trust",
    "EvaluateOptions": "sait_deploy.evaluation.options",
    "Exclude": "sait_deploy.quantization.options",
    "ExportOptions": "sait_deploy.exporting.plan",
    "FusionChoice": "sait_deploy.engine.options",
    "Head": "sait_deploy.artifacts.manifest",
    "HostCode": "sait_deploy.engine.trust",
    "Interpolation": "sait_deploy.images.preprocess",
    "KeptDistribution": "sait_deploy.bench.kept",
    "Listening": "sait_deploy.serving.listening",
    "MassRange": "sait_deploy.training.options",
    "ModelsOptions": "sait_deploy.serving.options",
    "OperatorForm": "sait_deploy.exporters.finish",
    "Outputs": "sait_deploy.artifacts.manifest",
    "PluginChoice": "sait_deploy.engine.options",
    "PointChoice": "sait_deploy.artifacts.points",
    "PointFamily": "sait_deploy.evaluation.tune_trials",
    "PointRequest": "sait_deploy.artifacts.points",
    "Pooling": "sait_deploy.artifacts.manifest",
    "Portability": "sait_deploy.engine.options",
    "Precision": "sait_deploy.artifacts.manifest",
    "PredictOptions": "sait_deploy.prediction",
    "PreprocessingChoice": "sait_deploy.images.preprocessing_choice",
    "QuantizeOptions": "sait_deploy.quantization.options",
    "Recipe": "sait_deploy.training.options",
    "RecommendOptions": "sait_deploy.recommending.results",
    "RepositoryOptions": "sait_deploy.triton_repository.options",
    "RunOptions": "sait_deploy.runtime",
    "RunPrecision": "sait_deploy.runtime.precision",
    "Score": "sait_deploy.tokens",
    "Search": "sait_deploy.evaluation.tune_results",
    "ServeOptions": "sait_deploy.serving.local",
    "SplitOptions": "sait_deploy.evaluation.tune_splits",
    "Sweep": "sait_deploy.bench.variants",
    "Task": "sait_deploy.artifacts.manifest",
    "Timing": "sait_deploy.bench.results",
    "TrainOptions": "sait_deploy.training.options",
    "TuneOptions": "sait_deploy.evaluation.tune_results",
    "WeightsRequest": "sait_deploy.models.registry",
    "WeightsSource": "sait_deploy.artifacts.manifest",
    "benchmark": "sait_deploy.bench.run",
    "build_engine": "sait_deploy.engine.build",
    "compare_with_torch": "sait_deploy.exporting.inspect",
    "evaluate": "sait_deploy.evaluation.evaluate",
    "examine": "sait_deploy.doctor",
    "export": "sait_deploy.exporting.stage",
    "inspect": "sait_deploy.exporting.inspect",
    "load": "sait_deploy.runtime",
    "load_model": "sait_deploy.models.registry",
    "mass_point": "sait_deploy.artifacts.points",
    "measure_candidates": "sait_deploy.recommending.measure",
    "predict": "sait_deploy.prediction",
    "quantize": "sait_deploy.quantization.stage",
    "recommend": "sait_deploy.recommending.stage",
    "run_batch": "sait_deploy.batch.job",
    "serve": "sait_deploy.serving.local",
    "supported_names": "sait_deploy.models.creation",
    "train": "sait_deploy.training.train",
    "tune": "sait_deploy.evaluation.tune",
    "write_report": "sait_deploy.report_files",
    "write_repository": "sait_deploy.triton_repository.stage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sait_deploy' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
