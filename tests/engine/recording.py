"""A stand-in for NVIDIA's TensorRT, whose library builds only beside a GPU: it writes down what it is asked.

Names, numbers and parameters are those of the Python front end of 11.4, which ``test_native`` compares them with where
that is at hand. What a build does is scripted: the steps it reports, what its timing cache learns, what it returns.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Final

import onnx

CACHE_HEADER: Final = b"cache:"
STEPS: Final = 4
NO_CACHE: Final = "Failed to deserialize timing cache. Returning an empty timing cache."


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 0
    PREFER_AOT_PYTHON_PLUGINS = 2


class BuilderFlag(IntEnum):
    TF32 = 6
    VERSION_COMPATIBLE = 12
    STRIP_PLAN = 18
    REFIT_IDENTICAL = 19
    STRICT_NANS = 23


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


class LayerType(Enum):
    CONSTANT = "constant"
    MATRIX_MULTIPLY = "product"
    ATTENTION_INPUT = "attention"


class DataType(Enum):
    FLOAT = "fp32"
    HALF = "fp16"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = "internal error", "error", "warning", "information"

    def log(self, severity: str, msg: str) -> None: ...


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None: ...


class ITensor:
    name: str
    dtype: DataType

    def __init__(self, name: str, dtype: DataType) -> None:
        self.name, self.dtype = name, dtype


class ILayer:
    type: LayerType
    num_outputs: int

    def __init__(self, kind: LayerType, dtype: DataType) -> None:
        self.type, self._output, self.num_outputs = kind, ITensor("y", dtype), 1

    def get_output(self, index: int) -> ITensor:
        return [self._output][index]


class IAttention:
    decomposable = False


class IAttentionInputLayer(ILayer):
    attention = IAttention()


class INetworkDefinition:
    def __init__(self) -> None:
        self.name, self._inputs, self._layers = "", list[ITensor](), list[ILayer]()

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self.shapes[input] = (min, opt, max)


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> memoryview:
        return memoryview(self.data)


class IBuilderConfig:
    # As in the front end, an attribute that it does not have cannot be set.
    __slots__ = (
        "__weakref__", "_accepts", "_cache", "_flags", "_log", "_monitor", "_pools", "_profiles",
        "builder_optimization_level", "hardware_compatibility_level", "profiling_verbosity",
    )  # fmt: skip

    def __init__(self, log: Callable[[str], None], accepts_cache: bool) -> None:
        self._log, self._accepts = log, accepts_cache
        self._cache: ITimingCache | None = None
        self._flags, self._profiles, self._pools = {BuilderFlag.TF32}, list[Any](), dict[MemoryPoolType, int]()
        self._monitor: Callable[[], Any] = lambda: None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int | None:
        return self._pools.get(pool)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile.shapes)
        return len(self._profiles) - 1

    @property
    def progress_monitor(self) -> Any:
        return self._monitor()

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._monitor = weakref.ref(monitor)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        if serialized_timing_cache and not serialized_timing_cache.startswith(CACHE_HEADER):
            self._log(NO_CACHE)
            serialized_timing_cache = b""
        return ITimingCache(serialized_timing_cache or CACHE_HEADER)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache if self._accepts else None
        return self._accepts

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Asked:
    """What one engine was asked for, as it was when its build began."""

    def __init__(self, network: INetworkDefinition, flags: int, config: IBuilderConfig) -> None:
        self.part, self.network_flags, self.config = network.name, flags, config
        self.flags = {flag for flag in BuilderFlag if config.get_flag(flag)}
        self.profiles, cache = list(config._profiles), config.get_timing_cache()
        self.timing_cache = None if cache is None else cache.data


class Recording:
    """The package: what it was asked, and the script of what it answers.

    Attributes:
        asked: each build in the order in which they began.
        steps: each step that was reported, with whether the build was to go on.
        most_running: the most builds at one time.
        refuses: what the parser complains of.
        fails: parts for which there is no engine.
        accepts_cache: whether timing caches are of this GPU.
        warns: what is warned of while building.
    """

    __version__ = "11.4.0"
    NetworkDefinitionCreationFlag, BuilderFlag = NetworkDefinitionCreationFlag, BuilderFlag
    ProfilingVerbosity, MemoryPoolType = ProfilingVerbosity, MemoryPoolType
    HardwareCompatibilityLevel = HardwareCompatibilityLevel
    ILogger, IProgressMonitor, IAttentionInputLayer = ILogger, IProgressMonitor, IAttentionInputLayer

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.steps: list[tuple[str, bool]] = []
        self.running = self.most_running = 0
        self.refuses: tuple[str, ...] = ()
        self.fails: tuple[str, ...] = ()
        self.accepts_cache, self.warns = True, ""
        self.Builder, self.OnnxParser = functools.partial(Builder, self), functools.partial(OnnxParser, self)


class ParserError:
    def __init__(self, said: str) -> None:
        self._said = said

    def desc(self) -> str:
        return self._said


class OnnxParser:
    def __init__(self, recording: Recording, network: INetworkDefinition, logger: ILogger) -> None:
        self._refuses, self._network = recording.refuses, network

    def parse_from_file(self, model: str) -> bool:
        """Puts the graph's inputs into the network, and a product, an attention and a constant."""
        network, names = self._network, [value.name for value in onnx.load(model).graph.input]
        network.name, network._inputs = Path(model).stem, [ITensor(name, DataType.HALF) for name in names]
        kinds = (LayerType.MATRIX_MULTIPLY, LayerType.ATTENTION_INPUT)
        network._layers = [*(ILayer(kind, DataType.HALF) for kind in kinds), ILayer(LayerType.CONSTANT, DataType.FLOAT)]
        return not self._refuses

    @property
    def num_errors(self) -> int:
        return len(self._refuses)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._refuses[index])


class Builder:
    def __init__(self, recording: Recording, logger: ILogger) -> None:
        self._recording, self._logger, self._flags = recording, logger, 0

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        self._flags = flags
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(lambda said: self._logger.log(ILogger.WARNING, said), self._recording.accepts_cache)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> memoryview | None:
        recording = self._recording
        recording.asked.append(Asked(network, self._flags, config))
        recording.running += 1
        recording.most_running = max(recording.most_running, recording.running)
        time.sleep(0.01)
        finished = self._steps(network.name, config.progress_monitor)
        recording.running -= 1
        self._logger.log(ILogger.INFO, "nobody needs to know")
        if recording.warns:
            self._logger.log(ILogger.WARNING, recording.warns)
        if not finished or network.name in recording.fails:
            self._logger.log(ILogger.ERROR, f"no engine for {network.name}")
            return None
        if (cache := config.get_timing_cache()) is not None:
            cache.data += network.name.encode() + b";"
        return memoryview(f"plan of {network.name}".encode())

    def _steps(self, name: str, monitor: Any) -> bool:
        """Reports one phase within another; no more than the first step at which it is told to stop."""
        monitor.phase_start("building", None, 2)
        for outer in range(2):
            monitor.phase_start("kernels", "building", STEPS // 2)
            for inner in range(STEPS // 2):
                goes_on = monitor.step_complete("kernels", inner)
                self._recording.steps.append((name, goes_on))
                if not goes_on:
                    return False
            monitor.phase_finish("kernels")
            monitor.step_complete("building", outer)
        monitor.phase_finish("building")
        return True
