"""The builders themselves: one lowered graph in, one serialised engine out. Runs in a process of its own."""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sait_deploy.engine.callbacks import message_collector, progress_monitor
from sait_deploy.engine.manifest import NetworkInfo
from sait_deploy.engine.options import AMPERE, Portability
from sait_deploy.engine.packages import PACKAGES, BuilderName
from sait_deploy.engine.profiles import Profile
from sait_deploy.engine.request import BuildEvent, BuildRequest, PartAnswer, PartRequest
from sait_deploy.exporters.packed_lengths import moved_lengths
from sait_deploy.plugins import OPERATORS
from sait_deploy.system.reading import read_bytes

_LARGEST_CACHE: Final = 1 << 30
"""Bytes of a timing cache at most."""

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
class BuildContext:
    """What connects a build to the process that waits for it.

    Attributes:
        send: sends an event to that process.
        stop_requested: returns whether that process wants the build to stop.
        errors: the builder's error messages so far.
    """

    send: Callable[[BuildEvent], None]
    stop_requested: Callable[[], bool]
    errors: list[str] = field(default_factory=list)


def import_builder(builder: BuilderName) -> Any:
    """Imports a builder's package. Raises ImportError where it is not installed."""
    return importlib.import_module(PACKAGES[builder].name)


def build(request: BuildRequest, context: BuildContext) -> None:
    """Builds every part of a request and sends an event of each.

    Raises:
        BuildFailed: the builder gave no engine.
        Cancelled: the build was stopped.
    """
    trt = import_builder(request.builder)
    logger = message_collector(trt, context.errors.append, lambda message: context.send(BuildEvent(warning=message)))
    _prepare_for_device(request, context)
    for part in request.parts:
        _build_part(trt, logger, request, part, context)


def _prepare_for_device(request: BuildRequest, context: BuildContext) -> None:
    """Says which GPU engines are tuned on, and compiles the plugins for it; TensorRT for RTX tunes where they run.

    Raises:
        BuildFailed: the GPU cannot build what is asked.
    """
    if request.builder is BuilderName.TENSORRT_RTX:
        return
    from sait_deploy.engine.cuda import device

    found = device()
    context.send(BuildEvent(gpu=found.name))
    architecture = found.architecture
    if Portability.HARDWARE in request.portability:
        if architecture < AMPERE:
            raise BuildFailed(f"hardware-compatible engines begin with sm{AMPERE}, and this GPU is {found.target}")
        # PTX for one architecture runs on that and all later ones.
        architecture = AMPERE
    if request.plugins:
        for operator in OPERATORS.values():
            if operator.has_tensorrt_plugin:
                operator.register_tensorrt_plugin(architecture)


def _build_part(trt: Any, logger: Any, request: BuildRequest, part: PartRequest, context: BuildContext) -> None:
    started = time.perf_counter()
    builder = trt.Builder(logger)
    network, _parser = _parsed(trt, builder, logger, request, part, context)  # which holds the weights
    config = _config(trt, builder, network, request, part)
    if request.timing_cache is not None:
        _use_timing_cache(config, Path(request.timing_cache), context)
    name = part.name.value
    # Kept by name: the configuration does not keep it alive.
    monitor = progress_monitor(
        trt, lambda share: context.send(BuildEvent(progress=(name, share))), context.stop_requested
    )
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if context.stop_requested():
        raise Cancelled
    if plan is None:
        raise BuildFailed(f"the builder returned no engine for the {part.name}")
    context.send(BuildEvent(progress=(part.name.value, 1.0)))
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
    context.send(BuildEvent(answer=answer))


def _parsed(
    trt: Any, builder: Any, logger: Any, request: BuildRequest, part: PartRequest, context: BuildContext
) -> tuple[Any, Any]:
    """Returns a part's network and the parser that made it, which has to live as long.

    Parsers differ in which inputs of attention on packed rows say where images begin. One that refuses the documented
    place is asked once more.
    """
    said: list[str] = []
    for attempt in (part.onnx, None):
        file = attempt or moved_lengths(Path(part.onnx))
        if file is None:
            break
        before = len(context.errors)
        network = builder.create_network(_network_flags(trt, request))
        parser = trt.OnnxParser(network, logger)
        if parser.parse_from_file(str(file)):
            return network, parser
        said = [*context.errors[before:], *(parser.get_error(index).desc() for index in range(parser.num_errors))]
        del context.errors[before:]
    context.errors.extend(said)
    raise BuildFailed(f"the parser refused the {part.name}")


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
        if config.add_optimization_profile(_native_profile(builder, network, profile)) < 0:
            raise BuildFailed(f"a profile does not fit the {part.name}")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # On by default: products in fp32 would keep 10 bits of the mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    # 0 times NaN stays NaN, which is how the logits of an image without importance say so.
    config.set_flag(trt.BuilderFlag.STRICT_NANS)
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
        # What is put in when the engine is loaded is what is left out here, so kernels may be chosen for it.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    return config


def _use_timing_cache(config: Any, place: Path, context: BuildContext) -> None:
    stored = read_bytes(place, _LARGEST_CACHE) if place.is_file() else b""
    cache, empty = config.create_timing_cache(stored), bytes(config.create_timing_cache(b"").serialize())
    # A file that cannot be read becomes an empty cache, which would be written over it.
    unread = stored not in (b"", empty) and bytes(cache.serialize()) == empty
    if unread or config.set_timing_cache(cache, False) is False:
        context.errors.append(f"the timing cache {place} is none, or is of another GPU or TensorRT")
        raise BuildFailed(context.errors[-1])


def _native_profile(builder: Any, network: Any, profile: Profile) -> Any:
    native = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        span = profile.ranges[name]
        native.set_shape(name, span.smallest, span.optimum, span.largest)
    return native


def _store_timing_cache(config: Any, place: Path) -> None:
    from sait_deploy.artifacts.files import write_whole

    write_whole(place, bytes(config.get_timing_cache().serialize()))


def type_name(dtype: Any) -> str:
    """Returns the name of a package's element type as NumPy has it, where NumPy has one."""
    name: str = dtype.name
    return _NAMES.get(name, name.lower())


def _network_info(trt: Any, network: Any) -> NetworkInfo:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = Counter(layer.type.name.lower() for layer in layers)
    types = Counter(type_name(layer.get_output(0).dtype) for layer in layers if layer.num_outputs)
    fused = 0
    for layer in layers:
        if layer.type.name == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer  # the bindings hand out the base class
            fused += not layer.attention.decomposable
    return NetworkInfo(len(layers), dict(kinds.most_common()), dict(types.most_common()), fused)


def _product_types(network: Any) -> tuple[str, ...]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(sorted({type_name(x.get_output(0).dtype) for x in layers if x.type.name in _PRODUCTS}))
