"""Engine files, deserialised on this machine's GPU; their hashes are checked when the engine is opened."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import weakref
from pathlib import Path
from typing import Any, Final

from sait_deploy.engine.callbacks import Messages, message_collector
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.options import Portability
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trust import HOST_CODE_FLAG, Consent, HostCode, check_built
from sait_deploy.errors import ArtifactError, RuntimeUnavailable
from sait_deploy.system.reading import MOST_WEIGHTS, read_bytes
from sait_deploy.system.scratch import scratch_folder

_HINT: Final = "build it again: sait-deploy build-engine"


class EngineLoader:
    """Deserialises the files of one engine, whose hashes were checked when it was opened.

    Args:
        trt: the package of the TensorRT that built it.
        engine: what to load.
        consent: what the user said of engines that others built, and of code for the processor.

    Raises:
        ArtifactError: this user did not build the engine, or it brings code for the processor, and did not consent.

    Attributes:
        messages: what TensorRT says, while it loads an engine and while that runs.
    """

    def __init__(self, trt: Any, engine: Engine, consent: Consent) -> None:
        check_built(engine.path.name, engine.digests, consent)
        carries_code = Portability.VERSIONS in engine.manifest.portability
        if carries_code and consent.host_code is not HostCode.ALLOWED:
            raise ArtifactError(
                f"engine {engine.path.name} is for other versions of TensorRT too, so it brings code for the "
                f"processor, which takes {HOST_CODE_FLAG}",
                f"give {HOST_CODE_FLAG} to run that code, or build it without --version-compatible",
            )
        self._trt, self._source = trt, engine
        self.messages = Messages()
        self._logger = message_collector(trt, self.messages.error, self.messages.warnings.append)
        try:
            self._runtime = trt.Runtime(self._logger)
        except TypeError:  # so the bindings say that there is none
            raise RuntimeUnavailable(
                f"{engine.manifest.builder} {trt.__version__} cannot start here: {self.messages.reason()}",
                "see sait-deploy doctor; a newer TensorRT may need a newer NVIDIA driver",
            ) from None
        self._runtime.engine_host_code_allowed = carries_code

    def load(self, part: PartName) -> Any:
        """Returns one part, with its weights in place.

        Raises:
            RuntimeUnavailable: TensorRT refuses it.
        """
        engine = self._runtime.deserialize_cuda_engine(self._plan(part))
        if engine is None:
            raise self._refused(part, f"cannot be loaded: {self.messages.reason()}")
        if self._source.manifest.stripped:
            self._refit(engine, part)
        return engine

    def _plan(self, part: PartName) -> bytes:
        """Returns a part's bytes, which are compared with their hash again: a file may change after it was opened."""
        place = self._source.plan_path(part)
        data = read_bytes(place, MOST_WEIGHTS)
        if hashlib.sha256(data).hexdigest() != self._source.manifest.files[place.name]:
            raise ArtifactError(f"{place} was changed since it was opened", _HINT)
        return data

    @functools.cached_property
    def _graphs(self) -> Path:
        """The folder of the artifact's graphs, lowered as the engine's were; it lives as long as the loader."""
        from sait_deploy.engine.lowering import lower_parts, lowering_of

        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(scratch_folder())
            lower_parts(self._source.artifact, lowering_of(self._source.manifest), folder)
            weakref.finalize(self, stack.pop_all().close)
        return folder

    def _refit(self, engine: Any, part: PartName) -> None:
        """Puts the artifact's weights into an engine that was built without."""
        from sait_deploy.engine.weights import WeightsRefused, check_digest, put_weights_in, weights_of

        weights = weights_of(self._graphs / f"{part}.onnx")
        try:
            check_digest(weights, (self._source.manifest.weights or {}).get(part))
            put_weights_in(self._trt, engine, weights, self._logger, self.messages.reason)
        except WeightsRefused as error:
            raise self._refused(
                part, f"cannot be given the weights of {self._source.artifact.path.name}: {error}"
            ) from None

    def _refused(self, part: PartName, why: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"the {part} of engine {self._source.path.name} {why}", _HINT)
