"""The Python backend's model of an engine cut at its seam: stem, one look at what is kept, trunk; needs NumPy alone.

A repository gets this file as it is. What the model is made of stands in the parameters of its configuration.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TritonPythonModel:
    """Answers requests whose images Triton batched; each image may have an operating point of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters."""
        self._triton: Any = importlib.import_module("triton_python_backend_utils")
        given = json.loads(args["model_config"])["parameters"]
        said = {name: value["string_value"] for name, value in given.items()}
        self._stem, self._trunk, self._answer = said["stem"], said["trunk"], said["answer"]
        self._crossing = said["crossing"].split()
        self._mass, self._least, self._most = float(said["mass"]), int(said["min_keep"]), int(said["max_keep"])
        self._smallest, self._prefix, self._patches = int(said["smallest"]), int(said["prefix"]), int(said["patches"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers requests in one batch; what is wrong with one is the answer to that one alone."""
        given = [self._given(request) for request in requests]
        good = [one for one in given if not isinstance(one, str)]
        if not good:
            return [self._failed(str(one)) for one in given]
        try:
            logits, kept = self._compute([np.concatenate(parts) for parts in zip(*good, strict=True)])
        except RuntimeError as error:
            return [self._failed(str(error)) for _ in requests]
        responses, start = [], 0
        for one in given:
            if isinstance(one, str):
                responses.append(self._failed(one))
                continue
            end = start + len(one[0])
            responses.append(self._response(logits[start:end], kept[start:end]))
            start = end
        return responses

    def _given(self, request: Any) -> list[NDArray[Any]] | str:
        """Returns a request's images, masses and limits, or what is wrong with it."""
        tensor = self._triton.get_input_tensor_by_name
        images = tensor(request, "images").as_numpy()
        mass, limits = tensor(request, "mass"), tensor(request, "keep_limits")
        masses = np.full(len(images), self._mass, np.float32) if mass is None else mass.as_numpy().reshape(-1)
        bounds = np.array([[self._least, self._most]] * len(images), np.int32) if limits is None else limits.as_numpy()
        if not (np.isfinite(masses) & (masses >= 0)).all():
            return "a mass is no number from 0 on; give the share of importance to keep, such as 0.95"
        if not ((bounds[:, 0] >= 1) & (bounds[:, 0] <= bounds[:, 1]) & (bounds[:, 1] <= self._patches)).all():
            return f"keep_limits are not 1 <= least <= most <= {self._patches}, the model's patch tokens"
        return [images, masses, bounds]

    def _compute(self, batch: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Returns logits and kept patch tokens of a batch, which is filled with its own images where it is too small.

        Raises:
            RuntimeError: a part failed.
        """
        images = len(batch[0])
        filled = np.arange(max(images, self._smallest)) % images
        tensors = [
            self._triton.Tensor(name, np.ascontiguousarray(array[filled]))
            for name, array in zip(("images", "mass", "keep_limits"), batch, strict=True)
        ]
        seam = self._run(self._stem, tensors, [*self._crossing, "rows"])
        offsets, rows = seam["cu_seqlens"].as_numpy(), seam["rows"].as_numpy()
        counts = np.diff(offsets)
        # Only the host can know how long these are: the trunk's shapes are those of its inputs.
        extents = {"kept": rows[: offsets[-1]], "lanes": np.arange(counts.max(), dtype=np.int32)}
        inputs = [seam[name] for name in self._crossing]
        inputs += [self._triton.Tensor(name, np.ascontiguousarray(array)) for name, array in extents.items()]
        answer = self._run(self._trunk, inputs, [self._answer])[self._answer].as_numpy()
        return answer[:images], (counts[:images] - self._prefix).astype(np.int32)

    def _run(self, model: str, inputs: Sequence[Any], outputs: Sequence[str]) -> dict[str, Any]:
        memory = self._triton.PreferredMemory(self._triton.TRITONSERVER_MEMORY_CPU)
        request = self._triton.InferenceRequest(
            model_name=model, requested_output_names=list(outputs), inputs=list(inputs), preferred_memory=memory
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{model}: {response.error().message()}")
        return {name: self._triton.get_output_tensor_by_name(response, name) for name in outputs}

    def _response(self, logits: NDArray[Any], kept: NDArray[np.int32]) -> Any:
        if not np.isfinite(logits).all():
            return self._failed("an image's logits are not finite numbers; check the image for NaN and infinity")
        outputs = {self._answer: logits.astype(np.float32), "kept": kept.reshape(-1, 1)}
        tensors = [self._triton.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
        return self._triton.InferenceResponse(tensors)

    def _failed(self, text: str) -> Any:
        return self._triton.InferenceResponse([], self._triton.TritonError(text))
