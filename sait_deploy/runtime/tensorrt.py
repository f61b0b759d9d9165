"""TensorRT: a whole engine; or its stem, one small copy to the host, and its trunk on views of the stem's buffers."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.engine.choose import load_package
from sait_deploy.engine.cuda import CudaEvent, DeviceBuffer, Graph, Stream, device, pinned
from sait_deploy.engine.folder import choose_engine
from sait_deploy.engine.loading import EngineLoader
from sait_deploy.engine.manifest import PartInfo
from sait_deploy.engine.messages import shortened
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trust import granted
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.exporters.names import CU_SEQLENS, IMAGES, KEEP_LIMITS, KEPT, LANES, MASS, ROWS, QuantizedType
from sait_deploy.runtime.answers import RawOutput, Selection, StageTimes
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.engine_buffers import EngineTensors, Extents, engine_parts
from sait_deploy.runtime.engine_part import EnginePart
from sait_deploy.runtime.graph_io import batch_of
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import QUANTISED


def trial() -> str:
    """Builds a small engine."""
    from sait_deploy.engine.trial import build_trial

    return build_trial(BuilderName.TENSORRT)


class TensorRTRunner(Runner):
    """An artifact's engine on the GPU, with buffers, a stream and pinned host memory of its own.

    Attributes:
        builder: whose engines it runs.
        engine: the one that it runs.
        records: whether the runner records work as CUDA graphs; where not, the runtime itself may.
    """

    runtime = "tensorrt"
    builder: ClassVar[BuilderName] = BuilderName.TENSORRT
    records: ClassVar[bool] = True

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact)
        self._trt = load_package(self.builder)
        self._gpu, self._version = device(), str(self._trt.__version__)
        asked = None if options.precision is None else QUANTISED.get(options.precision, options.precision)
        self.engine = choose_engine(artifact, self.builder, self._version, self._gpu, asked)
        loader = EngineLoader(self._trt, self.engine, options.consent or granted())
        self._tensors = EngineTensors(self.engine.manifest, artifact.manifest.model.geometry)
        self._stream = Stream()
        self._buffers = {buffer.name: DeviceBuffer(buffer.size) for buffer in self._tensors.buffers()}
        first, second = engine_parts(self.engine.manifest)
        self._first = self._part(loader, first)
        self._second = None if second is None else self._part(loader, second)
        self._loading_warnings = list(dict.fromkeys(map(shortened, loader.messages.warnings)))
        self._host = self._host_memory()
        self._graphs: dict[str, Graph] = {}
        self._recorded_batch, self._refused_recording = 0, ""
        self._ran: tuple[int, Extents | None] = 0, None
        if self._second is not None:
            lanes = np.arange(self._tensors.geometry.tokens, dtype=np.int32)
            self._stream.upload(self._buffers[LANES].address, lanes)
            self._stream.synchronize()

    def _part(self, loader: EngineLoader, info: PartInfo) -> EnginePart:
        engine = loader.load(info.name)
        context = self._context(engine, info.name)
        if context is None:
            raise RuntimeUnavailable(
                f"the {info.name} of engine {self.engine.path.name} cannot be made ready to run: "
                f"{loader.messages.reason()}",
                "free some of the GPU's memory, or build the engine with a smaller --batch",
            )
        return EnginePart(info, engine, context, loader.messages)

    def _context(self, engine: Any, part: PartName) -> Any:
        """Returns an execution context of a part's engine; None where TensorRT makes none."""
        return engine.create_execution_context()

    @property
    def environment(self) -> dict[str, str]:
        """Versions, device and engine behind this runner."""
        attention = self.engine.manifest.attention
        found = {
            "runtime": self.runtime,
            "TensorRT": self._version,
            "GPU": f"{self._gpu.name} ({self._gpu.target})",
            "engine": self.engine.path.name,
            "fused attention": f"{attention.fused} of {attention.blocks}",
            "CUDA graph": self._recording,
        }
        if self._loading_warnings:
            found["TensorRT warned"] = "; ".join(self._loading_warnings)
        return found

    @property
    def _recording(self) -> str:
        if self._second is not None:
            return "none, as the host reads the extents in between"
        return self._refused_recording or "whole requests"

    @property
    def kind(self) -> str:
        """The runtime with what of an engine decides how fast its layers are, pruned or not."""
        manifest = self.engine.manifest
        asked = "".join(f", {portability}" for portability in manifest.portability)
        asked += "" if manifest.quantized is None else f", quantised layers in {manifest.quantized}"
        return f"{self.runtime} in {manifest.precision}, attention {manifest.attention.form}{asked}"

    @property
    def precision(self) -> str:
        """That of the engine's matrix products and attention, after int8 or fp8 where linear layers are."""
        precision = self.engine.manifest.precision.value
        quantized = (self.engine.manifest.quantized or QuantizedType.INT8).value
        return (
            f"{quantized}+{precision}".removesuffix("+fp32")
            if self.artifact.manifest.dtype is Precision.INT8
            else precision
        )

    @property
    def batch_range(self) -> tuple[int, int]:
        """The fewest and the most images of a request: what the engine was built for."""
        return self._tensors.manifest.batch.smallest, self._tensors.manifest.batch.largest

    def _host_memory(self) -> dict[str, NDArray[Any]]:
        """Returns page-locked memory for the tensors that are copied to the GPU and back, for the largest batch."""
        largest = self._tensors.manifest.batch.largest
        parts = [part for part in engine_parts(self._tensors.manifest) if part is not None]
        crossing = {tensor.name: tensor for tensor in (*parts[0].inputs, *parts[0].outputs, *parts[-1].outputs)}
        wanted = [*(tensor.name for tensor in parts[0].inputs), *self._answers]
        if self._second is not None:
            wanted.append(CU_SEQLENS)
        if self.artifact.manifest.pruning is not None:
            wanted += [self.artifact.manifest.pruning.importance, self.artifact.manifest.pruning.keep]
        return {name: pinned(self._tensors.shape(crossing[name], largest), crossing[name].dtype) for name in wanted}

    @property
    def _answers(self) -> tuple[str, ...]:
        return self.artifact.manifest.output_names

    def _stage(self, images: NDArray[np.float32], point: BatchPoint | None) -> None:
        """Puts a batch into page-locked memory."""
        self._tensors.check_batch(len(images))
        self._host[IMAGES][: len(images)] = images
        if point is not None:
            self._host[MASS][: len(images)] = point.mass
            self._host[KEEP_LIMITS][: len(images)] = point.keep_limits

    def _upload(self, count: int) -> None:
        for tensor in self._first.info.inputs:
            self._stream.upload(self._buffers[tensor.name].address, self._host[tensor.name][:count])

    def _compute(self, count: int) -> float:
        """Starts the work between the copies. Where there is a trunk, waits once, to read the extents.

        Returns:
            The host's seconds, without the wait.
        """
        started, waited = time.perf_counter(), 0.0
        addresses = {name: buffer.address for name, buffer in self._buffers.items()}
        extents: Extents | None = None
        self._first.enqueue(self._tensors, self._stream, addresses, count, extents)
        if self._second is not None:
            offsets = self._host[CU_SEQLENS][: count + 1]
            self._stream.download(offsets, addresses[CU_SEQLENS])
            waiting = time.perf_counter()
            self._stream.synchronize()
            waited = time.perf_counter() - waiting
            extents = self.rounded(count, self._tensors.extents(offsets))
            addresses[KEPT] = addresses[ROWS]
            self._second.enqueue(self._tensors, self._stream, addresses, count, extents)
        self._ran = count, extents
        return time.perf_counter() - started - waited

    def rounded(self, images: int, extents: Extents) -> Extents:
        """Returns with how many rows and lanes the trunk runs a batch that keeps ``extents``: here, with those."""
        return extents

    def _download(self, names: tuple[str, ...], count: int) -> None:
        for name in names:
            self._stream.download(self._host[name][:count], self._buffers[name].address)

    def _answer(self, names: tuple[str, ...], count: int) -> dict[str, NDArray[Any]]:
        """Waits for the device and returns copies of the outputs, as the next batch overwrites the memory."""
        self._stream.synchronize()
        return {name: self._host[name][:count].copy() for name in names}

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        self._stage(images, point)
        count = len(images)
        graph = self._recorded("request", count, lambda: self._request(count))
        if graph is None:
            self._request(count)
        else:
            graph.launch(self._stream)
        return RawOutput.of(self._answer(self._answers, count), self.description)

    def _request(self, count: int) -> None:
        self._upload(count)
        self._compute(count)
        self._download(self._answers, count)

    def _recorded(self, name: str, count: int, work: Callable[[], object]) -> Graph | None:
        """Returns work on a batch size as a recording of that name, or None where it cannot be recorded.

        A wait cannot be recorded. The work is done once before it is recorded, as a first run allocates. Recordings of
        another batch size are forgotten, as they stop being valid once the context has seen other shapes.
        """
        if self._second is not None or not self.records or self._refused_recording:
            return None
        self._forget_other_batches(count)
        if name not in self._graphs:
            work()
            self._stream.synchronize()
            try:
                with self._stream.captured() as graph:
                    work()
            except RuntimeUnavailable as error:
                self._refused_recording = f"none: {error.message}"
                return None
            self._graphs[name] = graph
        return self._graphs[name]

    def _forget_other_batches(self, count: int) -> None:
        if count != self._recorded_batch:
            self._graphs.clear()
            self._recorded_batch = count

    def run_part(
        self, part: PartName, given: Mapping[str, NDArray[Any]], wanted: Container[str]
    ) -> dict[str, NDArray[Any]]:
        """Runs the stem or the trunk alone, on inputs by name in the host's memory, and returns the outputs wanted.

        Raises:
            InvalidArgument: the engine was built for other batches.
            RuntimeUnavailable: TensorRT cannot run this batch.
        """
        running, count = self._second if part is PartName.TRUNK else self._first, batch_of(given)
        assert running is not None
        self._tensors.check_batch(count)
        addresses = {name: buffer.address for name, buffer in self._buffers.items()}
        addresses[KEPT] = addresses[ROWS]
        sent = {name: np.ascontiguousarray(array) for name, array in given.items() if name != LANES}  # they are there
        for name, array in sent.items():
            self._stream.upload(addresses[name], array)
        extents = Extents(len(given[KEPT]), len(given[LANES])) if part is PartName.TRUNK else None
        running.enqueue(self._tensors, self._stream, addresses, count, extents)
        found = self._tensors.empty(running.info.outputs, count, wanted)
        for name, array in found.items():
            self._stream.download(array, addresses[name])
        self._stream.synchronize()
        return found

    def _ready(self, count: int) -> Graph | None:
        """Returns the work between the copies as a recording, made beforehand so that no clock covers the making."""
        return self._recorded("compute", count, lambda: self._compute(count))

    def _start(self, graph: Graph | None, count: int) -> float:
        """Starts the work between the copies as a request does, and returns the host's seconds for it."""
        if graph is None:
            return self._compute(count)
        started = time.perf_counter()
        graph.launch(self._stream)
        return time.perf_counter() - started

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert pruning is not None
        names = self._answers[0], pruning.importance, pruning.keep
        self._stage(images, point)
        self._forget_other_batches(len(images))
        self._upload(len(images))
        self._compute(len(images))
        self._download(names, len(images))
        found = self._answer(names, len(images))
        return Selection(*(found[name] for name in names))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], float]:
        """Returns a call that computes on inputs which are on the GPU already, timed by the GPU's clock."""
        count = len(images)
        staged = [array.copy() for array in (images, *(() if point is None else (point.mass, point.keep_limits)))]
        before, after = CudaEvent(), CudaEvent()

        def compute() -> float:
            self._stage(staged[0], None if point is None else BatchPoint(staged[1], staged[2]))
            self._upload(count)
            graph = self._ready(count)
            before.record(self._stream)
            self._start(graph, count)
            after.record(self._stream)
            self._stream.synchronize()
            return after.seconds_since(before)

        return compute

    def _stages(self, images: NDArray[np.float32], point: BatchPoint | None) -> StageTimes:
        count = len(images)
        self._stage(images, point)
        marks = [CudaEvent() for _ in range(4)]
        self._upload(count)
        graph = self._ready(count)
        marks[0].record(self._stream)
        self._upload(count)
        marks[1].record(self._stream)
        enqueue = self._start(graph, count)
        marks[2].record(self._stream)
        self._download(self._answers, count)
        marks[3].record(self._stream)
        self._stream.synchronize()
        upload, compute, download = (later.seconds_since(earlier) for earlier, later in pairwise(marks))
        return StageTimes(enqueue, upload, compute, download)
