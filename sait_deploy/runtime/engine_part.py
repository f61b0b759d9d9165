"""One part of an engine, ready to run on buffers of its device."""

from __future__ import annotations

from typing import Any

from sait_deploy.engine.callbacks import Messages
from sait_deploy.engine.cuda import Stream
from sait_deploy.engine.manifest import PartInfo
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.runtime.engine_buffers import EngineTensors, Extents


class EnginePart:
    """One engine file, deserialised, with its context, and what TensorRT says of it."""

    def __init__(self, info: PartInfo, engine: Any, context: Any, messages: Messages) -> None:
        self.info, self._messages = info, messages
        self._engine, self._context = engine, context
        self._profile = 0

    def enqueue(
        self, tensors: EngineTensors, stream: Stream, addresses: dict[str, int], count: int, extents: Extents | None
    ) -> None:
        """Starts a run. The profile is changed only where it does not take the shapes."""
        profile = tensors.profile(self.info, count, extents)
        context, handle = self._context, int(stream.handle)
        accepted = True
        if profile != self._profile:
            accepted = context.set_optimization_profile_async(profile, handle)
            self._profile = profile if accepted else self._profile
        for name, shape in tensors.input_shapes(self.info, count, extents).items():
            accepted = accepted and context.set_input_shape(name, shape)
        for tensor in (*self.info.inputs, *self.info.outputs):
            accepted = accepted and context.set_tensor_address(tensor.name, addresses[tensor.name])
        if not (accepted and context.execute_async_v3(handle)):
            raise RuntimeUnavailable(
                f"the {self.info.name} of engine {tensors.manifest.name} could not run a batch of {count}: "
                f"{self._messages.reason()}",
                "try a smaller batch, or build the engine again",
            )
