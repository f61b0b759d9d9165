"""The Python backend's model of an artifact: requests of any size and point, computed in batches made of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.batch.packing import packed_answers
from sait_deploy.errors import SaitError
from sait_deploy.exporters.names import IMAGES, KEEP_LIMITS, MASS
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import ONNXRUNTIME
from sait_deploy.serving.model import STEM_IMAGES
from sait_deploy.serving.stages import ImageAnswer, ImagePoint, Prepared, open_stages
from sait_deploy.triton_repository.configuration import KEPT

ARTIFACT: Final = "artifact"
"""The artifact's folder, beside the model's file."""

BUDGET: Final = "token_budget"


class PackedModel:
    """What Triton's Python backend calls; the repository's ``model.py`` gives it Triton's own module.

    Args:
        triton: the backend's ``triton_python_backend_utils``.
    """

    def __init__(self, triton: Any) -> None:
        self._triton = triton

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the artifact that lies beside the model."""
        given = {name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()}
        folder = Path(args["model_repository"], args["model_version"], ARTIFACT)
        artifact = open_artifact(folder)
        self._manifest, self._choice = artifact.manifest, PointChoice(given.get("point"))
        tokens = artifact.manifest.model.geometry.tokens
        self._budget = int(given[BUDGET]) if BUDGET in given else STEM_IMAGES * tokens
        self._stages = open_stages(artifact, ONNXRUNTIME, RunOptions())

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers requests: the images of all of them are computed together, an error is that of its request alone."""
        prepared = [self._prepared(request) for request in requests]
        images = [(number, one) for number, ready in enumerate(prepared) if isinstance(ready, list) for one in ready]
        numbered = enumerate(one for _, one in images)
        try:
            found = dict(packed_answers(self._stages, numbered, STEM_IMAGES, self._budget))
        except SaitError as error:
            return [self._failed(error) for _ in requests]
        answers: list[list[ImageAnswer | SaitError]] = [[] for _ in requests]
        for place, (request, _) in enumerate(images):
            answers[request].append(found[place])
        return [
            self._response(answers[number]) if isinstance(ready, list) else self._failed(ready)
            for number, ready in enumerate(prepared)
        ]

    def _prepared(self, request: Any) -> list[Prepared] | SaitError:
        """Returns a request's images with their operating points, or what is wrong with it."""
        tensor = self._triton.get_input_tensor_by_name
        images = tensor(request, IMAGES).as_numpy()
        mass, limits = tensor(request, MASS), tensor(request, KEEP_LIMITS)
        choice = self._choice
        if mass is not None or limits is not None:
            bounds = None if limits is None else limits.as_numpy()
            choice = PointChoice(
                choice.point,
                None if mass is None else mass.as_numpy().reshape(-1),
                None if bounds is None else bounds[:, 0],
                None if bounds is None else bounds[:, 1],
            )
        try:
            point = resolve(self._manifest, len(images), choice)
        except SaitError as error:
            return error
        if point is None:
            return [Prepared(image, None) for image in images]
        each = zip(images, point.mass, point.keep_limits, strict=True)
        return [Prepared(image, ImagePoint(float(share), int(low), int(high))) for image, share, (low, high) in each]

    def _response(self, answers: Sequence[ImageAnswer | SaitError]) -> Any:
        for answer in answers:
            if isinstance(answer, SaitError):
                return self._failed(answer)
        good = [answer for answer in answers if isinstance(answer, ImageAnswer)]
        kept: NDArray[np.int32] = np.array([[answer.kept] for answer in good], np.int32)
        outputs = {self._manifest.output_names[0]: np.stack([answer.logits for answer in good]), KEPT: kept}
        return self._triton.InferenceResponse([self._triton.Tensor(name, array) for name, array in outputs.items()])

    def _failed(self, error: SaitError) -> Any:
        text = f"{error.message}; {error.hint}" if error.hint else error.message
        return self._triton.InferenceResponse([], self._triton.TritonError(text))
