"""Export, run and measure vision transformers that prune tokens adaptively.

Example::

    import sait_deploy

    runner = sait_deploy.load("artifacts/sait_demo_digits-density0.6")
    output = runner.run(runner.preprocess(["photo.jpg"]))

Names are loaded when they are first used: running an artifact imports neither torch nor timm.
"""

from __future__ import annotations

import os as _os
import sys as _sys
from functools import cache as _cache
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

# The one list of public names. Type checkers take `X as X` for a name that this module offers, too.
# ruff: isort: skip_file
if TYPE_CHECKING:
    from sait_deploy.artifacts.manifest import (
        Head as Head,
        Outputs as Outputs,
        Pooling as Pooling,
        Precision as Precision,
        Task as Task,
        WeightsSource as WeightsSource,
    )
    from sait_deploy.artifacts.points import (
        PointChoice as PointChoice,
        PointRequest as PointRequest,
        mass_point as mass_point,
    )
    from sait_deploy.artifacts.tower_info import SelectStrategy as SelectStrategy, TowerChoice as TowerChoice
    from sait_deploy.batch.job import run_batch as run_batch
    from sait_deploy.batch.options import BatchOptions as BatchOptions
    from sait_deploy.bench.kept import KeptDistribution as KeptDistribution
    from sait_deploy.bench.options import AccuracyOf as AccuracyOf, Also as Also, BenchOptions as BenchOptions
    from sait_deploy.bench.results import Timing as Timing
    from sait_deploy.bench.run import benchmark as benchmark
    from sait_deploy.bench.variants import Sweep as Sweep
    from sait_deploy.doctor import examine as examine
    from sait_deploy.engine.build import build_engine as build_engine
    from sait_deploy.engine.options import (
        AttentionChoice as AttentionChoice,
        BatchRange as BatchRange,
        BuilderChoice as BuilderChoice,
        EngineOptions as EngineOptions,
        FusionChoice as FusionChoice,
        PluginChoice as PluginChoice,
        Portability as Portability,
    )
    from sait_deploy.engine.trust import (
        Consent as Consent,
        Downloads as Downloads,
        EngineTrust as EngineTrust,
        HostCode as HostCode,
    )
    from sait_deploy.evaluation.evaluate import evaluate as evaluate
    from sait_deploy.evaluation.options import EvaluateOptions as EvaluateOptions
    from sait_deploy.evaluation.tune import tune as tune
    from sait_deploy.evaluation.tune_results import Search as Search, TuneOptions as TuneOptions
    from sait_deploy.evaluation.tune_splits import SplitOptions as SplitOptions
    from sait_deploy.evaluation.tune_trials import PointFamily as PointFamily
    from sait_deploy.exporters.finish import OperatorForm as OperatorForm
    from sait_deploy.exporters.names import EnginePrecision as EnginePrecision, QuantizedType as QuantizedType
    from sait_deploy.exporting.inspect import compare_with_torch as compare_with_torch, inspect as inspect
    from sait_deploy.exporting.plan import ExportOptions as ExportOptions
    from sait_deploy.exporting.stage import export as export
    from sait_deploy.images.preprocess import CropMode as CropMode, Interpolation as Interpolation
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice as PreprocessingChoice
    from sait_deploy.models.creation import supported_names as supported_names
    from sait_deploy.models.registry import WeightsRequest as WeightsRequest, load_model as load_model
    from sait_deploy.prediction import PredictOptions as PredictOptions, predict as predict
    from sait_deploy.quantization.options import Exclude as Exclude, QuantizeOptions as QuantizeOptions
    from sait_deploy.quantization.stage import quantize as quantize
    from sait_deploy.recommending.measure import measure_candidates as measure_candidates
    from sait_deploy.recommending.results import RecommendOptions as RecommendOptions
    from sait_deploy.recommending.stage import recommend as recommend
    from sait_deploy.report_files import write_report as write_report
    from sait_deploy.runtime import RunOptions as RunOptions, load as load
    from sait_deploy.runtime.precision import RunPrecision as RunPrecision
    from sait_deploy.serving.listening import Listening as Listening
    from sait_deploy.serving.local import ServeOptions as ServeOptions, serve as serve
    from sait_deploy.serving.options import ModelsOptions as ModelsOptions
    from sait_deploy.tokens import Score as Score
    from sait_deploy.training.options import (
        Alternation as Alternation,
        Amp as Amp,
        Augmentation as Augmentation,
        DataOptions as DataOptions,
        DensityRange as DensityRange,
        Distillation as Distillation,
        MassRange as MassRange,
        Recipe as Recipe,
        TrainOptions as TrainOptions,
    )
    from sait_deploy.training.train import train as train
    from sait_deploy.triton_repository.options import Backend as Backend, RepositoryOptions as RepositoryOptions
    from sait_deploy.triton_repository.stage import write_repository as write_repository

# ONNX Runtime reports its use to Microsoft otherwise, from its import on.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

# In a checkout the packages `exporters` and `plugins` lie beside this one; an installed wheel has them inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "exporters" / "__init__.py").is_file():
    __path__.append(str(_root))


@_cache
def _homes() -> dict[str, str]:
    """Returns the module of each public name, read off the imports above, which do not run."""
    import ast
    import inspect

    nodes = ast.walk(ast.parse(inspect.getsource(_sys.modules[__name__])))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{__name__}.")]
    return {alias.name: str(node.module) for node in found for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted([*_homes(), "__version__"])
    if name.startswith("_") or name not in _homes():
        raise AttributeError(f"module 'sait_deploy' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
