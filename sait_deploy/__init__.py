"""Export, run and measure vision transformers that prune tokens adaptively.

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
    from sait_deploy.artifacts.manifest import Head, Outputs, Precision, Task
    from sait_deploy.artifacts.points import PointRequest, mass_point
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
    from sait_deploy.exporters.finish import OperatorForm
    from sait_deploy.exporters.names import EnginePrecision
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export
    from sait_deploy.images.preprocess import CropMode, Interpolation
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice
    from sait_deploy.quantization.options import Exclude, QuantizeOptions
    from sait_deploy.quantization.stage import quantize
    from sait_deploy.runtime import RunOptions, load
    from sait_deploy.runtime.precision import RunPrecision
    from sait_deploy.tokens import Score

# ONNX Runtime reports its use to Microsoft otherwise, from its import on.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BatchRange",
    "BuilderChoice",
    "Consent",
    "CropMode",
    "Downloads",
    "EngineOptions",
    "EnginePrecision",
    "EngineTrust",
    "Exclude",
    "ExportOptions",
    "FusionChoice",
    "Head",
    "HostCode",
    "Interpolation",
    "OperatorForm",
    "Outputs",
    "PluginChoice",
    "PointRequest",
    "Portability",
    "Precision",
    "PreprocessingChoice",
    "QuantizeOptions",
    "RunOptions",
    "RunPrecision",
    "Score",
    "Task",
    "__version__",
    "build_engine",
    "export",
    "load",
    "mass_point",
    "quantize",
]
__version__ = "0.1.0"

# In a checkout the packages `exporters` and `plugins` lie beside this one; an installed wheel has them inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "exporters" / "__init__.py").is_file():
    __path__.append(str(_root))

_HOMES = {
    "BatchRange": "sait_deploy.engine.options",
    "BuilderChoice": "sait_deploy.engine.options",
    "Consent": "sait_deploy.engine.trust",
    "CropMode": "sait_deploy.images.preprocess",
    "Downloads": "sait_deploy.engine.trust",
    "EngineOptions": "sait_deploy.engine.options",
    "EnginePrecision": "sait_deploy.exporters.names",
    "EngineTrust": "sait_deploy.engine.trust",
    "Exclude": "sait_deploy.quantization.options",
    "ExportOptions": "sait_deploy.exporting.plan",
    "FusionChoice": "sait_deploy.engine.options",
    "Head": "sait_deploy.artifacts.manifest",
    "HostCode": "sait_deploy.engine.trust",
    "Interpolation": "sait_deploy.images.preprocess",
    "OperatorForm": "sait_deploy.exporters.finish",
    "Outputs": "sait_deploy.artifacts.manifest",
    "PluginChoice": "sait_deploy.engine.options",
    "PointRequest": "sait_deploy.artifacts.points",
    "Portability": "sait_deploy.engine.options",
    "Precision": "sait_deploy.artifacts.manifest",
    "PreprocessingChoice": "sait_deploy.images.preprocessing_choice",
    "QuantizeOptions": "sait_deploy.quantization.options",
    "RunOptions": "sait_deploy.runtime",
    "RunPrecision": "sait_deploy.runtime.precision",
    "Score": "sait_deploy.tokens",
    "Task": "sait_deploy.artifacts.manifest",
    "build_engine": "sait_deploy.engine.build",
    "export": "sait_deploy.exporting.stage",
    "load": "sait_deploy.runtime",
    "mass_point": "sait_deploy.artifacts.points",
    "quantize": "sait_deploy.quantization.stage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sait_deploy' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
