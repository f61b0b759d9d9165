"""Engine files → deserialised engines. Needs a GPU; what can be checked without one was checked before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from sait_deploy.engine.folder import Engine
from sait_deploy.engine.messages import shortened
from sait_deploy.engine.options import Portability
from sait_deploy.engine.profiles import PartName
from sait_deploy.errors import RuntimeUnavailable

_HINT: Final = "build it again: sait-deploy build-engine"


class EngineLoader:
    """Deserialises the files of one engine, whose hashes were checked when it was opened.

    Args:
        trt: the package of the TensorRT that built it.
        engine: what to load.
    """

    def __init__(self, trt: Any, engine: Engine) -> None:
        self._trt, self._source = trt, engine
        self._messages: list[str] = []
        self._logger = error_logger(trt, self._messages)
        self._runtime = trt.Runtime(self._logger)
        # An engine for other versions of TensorRT carries host code.
        self._runtime.engine_host_code_allowed = Portability.VERSIONS in engine.manifest.portability

    def load(self, part: PartName) -> Any:
        """Returns one part, with its weights in place.

        Raises:
            RuntimeUnavailable: TensorRT refuses it.
        """
        engine = self._runtime.deserialize_cuda_engine(self._source.plan_path(part).read_bytes())
        if engine is None:
            why = shortened(self._messages[0]) if self._messages else "it gave no reason"
            raise RuntimeUnavailable(f"the {part} of engine {self._source.path.name} cannot be loaded: {why}", _HINT)
        if self._source.manifest.stripped:
            self._refit(engine, part)
        return engine

    def _refit(self, engine: Any, part: PartName) -> None:
        """Puts the artifact's weights into an engine that was built without."""
        from sait_deploy.engine.lowering import lower_parts, lowering_of

        with tempfile.TemporaryDirectory() as folder:
            lowered = lower_parts(self._source.artifact, lowering_of(self._source.manifest), Path(folder))
            refitter = self._trt.Refitter(engine, self._logger)
            parser = self._trt.OnnxParserRefitter(refitter, self._logger)
            if not (parser.refit_from_file(str(lowered[part].path)) and refitter.refit_cuda_engine()):
                raise RuntimeUnavailable(
                    f"the weights of {self._source.artifact.path.name} do not fit engine {self._source.path.name}",
                    _HINT,
                )


def error_logger(trt: Any, messages: list[str]) -> Any:
    """Returns a TensorRT logger that collects errors and prints nothing."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message)

    return Collector()
