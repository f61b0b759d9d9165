"""The builders themselves: one lowered graph in, one serialised engine out. Runs in a process of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sait_deploy.engine.manifest import NetworkInfo
from sait_deploy.engine.options import BuilderName, Portability
from sait_deploy.engine.profiles import Profile
from sait_deploy.engine.request import BuildRequest, Event, PartAnswer, PartRequest

_PRODUCTS: Final = ("MATRIX_MULTIPLY", "CONVOLUTION", "ATTENTION_OUTPUT")
"""Layers whose element type is what precision means."""

_NAMES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class BuildFailed(Exception):
    """The builder gave no engine; its messages say why."""


class Cancelled(Exception):
    """The build was stopped from outside."""


@dataclass(slots=True)
class Talk:
    """What goes on between a build and the process that waits for it.

    Attributes:
        say: tells that process something.
        stopped: whether it wants the build to stop.
        errors: what the builder complained of so far.
    """

    say: Callable[[Event], None]
    stopped: Callable[[], bool]
    errors: list[str] = field(default_factory=list)


def import_builder(builder: BuilderName) -> Any:
    """Imports a builder's package. Raises ImportError where it is not installed."""
    if builder is BuilderName.TENSORRT:
        import tensorrt

        return tensorrt
    import tensorrt_rtx

    return tensorrt_rtx


def build(request: BuildRequest, talk: Talk) -> None:
    """Builds every part of a request and tells of each.

    Raises:
        BuildFailed: the builder gave no engine.
        Cancelled: the build was stopped.
    """
    trt = import_builder(request.builder)
    logger = _logger(trt, talk)
    target = _tell_device(request, talk)
    if request.plugins:
        _register_plugins(target)
    # TensorRT times kernels on the GPU, where two builds would disturb each other; TensorRT for RTX only compiles.
    at_once = len(request.parts) if request.builder is BuilderName.TENSORRT_RTX else 1
    with ThreadPoolExecutor(at_once) as pool:
        for built in [pool.submit(_build_part, trt, logger, request, part, talk) for part in request.parts]:
            built.result()


def _tell_device(request: BuildRequest, talk: Talk) -> str:
    """Says which GPU engines are tuned on; TensorRT for RTX tunes where they run."""
    if request.builder is BuilderName.TENSORRT_RTX:
        return ""
    from sait_deploy.runtime.cuda import device

    found = device()
    talk.say(Event(gpu=found.name, target=found.target))
    return found.target


def _register_plugins(target: str) -> None:
    from sait_deploy.plugins.mass_token_select import tensorrt_plugin as mass_token_select
    from sait_deploy.plugins.pack_rows import tensorrt_plugin as pack_rows

    architecture = int(target.removeprefix("sm"))
    mass_token_select.register(architecture)
    pack_rows.register(architecture)


def _build_part(trt: Any, logger: Any, request: BuildRequest, part: PartRequest, talk: Talk) -> None:
    started = time.perf_counter()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, request))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(part.onnx):
        talk.errors.extend(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildFailed(f"the parser refused the {part.name}")
    config = _config(trt, builder, network, request, part)
    # Kept by name: the configuration does not keep it alive.
    monitor = _monitor(trt, part.name.value, talk)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if talk.stopped():
        raise Cancelled
    if plan is None:
        raise BuildFailed(f"the builder returned no engine for the {part.name}")
    talk.say(Event(progress=(part.name.value, 1.0)))
    with Path(part.plan).open("wb") as file:
        file.write(memoryview(plan))
        file.flush()
        os.fsync(file.fileno())
    if request.timing_cache is not None:
        _store_timing_cache(config, Path(request.timing_cache))
    answer = PartAnswer(
        name=part.name,
        network=_network_info(trt, network),
        product_types=_product_types(network),
        seconds=round(time.perf_counter() - started, 3),
    )
    talk.say(Event(answer=answer))


def _network_flags(trt: Any, request: BuildRequest) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    chosen = 1 << int(flags.STRONGLY_TYPED)
    if request.plugins:
        chosen |= 1 << int(flags.PREFER_AOT_PYTHON_PLUGINS)
    return chosen


def _config(trt: Any, builder: Any, network: Any, request: BuildRequest, part: PartRequest) -> Any:
    config = builder.create_builder_config()
    if request.targets:
        config.num_compute_capabilities = len(request.targets)
        for index, target in enumerate(request.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    for profile in part.profiles:
        config.add_optimization_profile(_native_profile(builder, network, profile))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.opt_level is not None:
        config.builder_optimization_level = request.opt_level
    if Portability.VERSIONS in request.portability:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if Portability.HARDWARE in request.portability:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if request.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if request.timing_cache is not None:
        place = Path(request.timing_cache)
        config.set_timing_cache(config.create_timing_cache(place.read_bytes() if place.is_file() else b""), False)
    return config


def _native_profile(builder: Any, network: Any, profile: Profile) -> Any:
    native = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        span = profile.ranges[name]
        native.set_shape(name, span.smallest, span.optimum, span.largest)
    return native


def _store_timing_cache(config: Any, place: Path) -> None:
    from sait_deploy.storage import write_whole

    write_whole(place, bytes(config.get_timing_cache().serialize()))


def _type_name(dtype: Any) -> str:
    name: str = dtype.name
    return _NAMES.get(name, name.lower())


def _network_info(trt: Any, network: Any) -> NetworkInfo:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = Counter(layer.type.name.lower() for layer in layers)
    types = Counter(_type_name(layer.get_output(0).dtype) for layer in layers if layer.num_outputs)
    fused = 0
    for layer in layers:
        if layer.type.name == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer  # the bindings hand out the base class
            fused += not layer.attention.decomposable
    return NetworkInfo(len(layers), dict(kinds.most_common()), dict(types.most_common()), fused)


def _product_types(network: Any) -> tuple[str, ...]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(sorted({_type_name(x.get_output(0).dtype) for x in layers if x.type.name in _PRODUCTS}))


def _logger(trt: Any, talk: Talk) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                talk.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                talk.say(Event(warning=message))

    return Collector()


def _monitor(trt: Any, part: str, talk: Talk) -> Any:
    """Turns nested phases into one share: a phase's steps divide what its parent's current step stands for."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.told = -1

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases[phase] = (parent, max(steps, 1), 0)

        def step_complete(self, phase: str, step: int) -> bool:
            parent, steps, _ = self.phases.get(phase, (None, 1, 0))
            self.phases[phase] = (parent, steps, min(step + 1, steps))
            self._tell()
            return not talk.stopped()

        def phase_finish(self, phase: str) -> None:
            self.phases.pop(phase, None)

        def _tell(self) -> None:
            share, step = 0.0, 1.0
            for _, steps, done in self.phases.values():
                share += step * done / steps
                step /= steps
            if (percent := int(100 * min(share, 1.0))) > self.told:
                self.told = percent
                talk.say(Event(progress=(part, percent / 100)))

    return Monitor()
