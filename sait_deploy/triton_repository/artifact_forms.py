"""An artifact as a model: its file on Triton's ONNX Runtime, or cut at its seam in Triton's Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE
from sait_deploy.artifacts.tuned_points import POINTS_FOLDER
from sait_deploy.serving.model import STEM_IMAGES
from sait_deploy.triton_repository.configuration import batched, inputs_with_defaults, outputs_of_python, with_labels
from sait_deploy.triton_repository.options import MAX_BATCH, RepositoryOptions
from sait_deploy.triton_repository.packed_model import ARTIFACT, BUDGET
from sait_deploy.triton_repository.parts import VERSION, ModelFolder, Source
from sait_deploy.triton_repository.pbtxt import Symbol

_PACKED_MODEL: Final = b'''\
"""An artifact of sait-deploy, which has to be installed in the Python that Triton runs."""

import triton_python_backend_utils

from sait_deploy.triton_repository.packed_model import PackedModel


class TritonPythonModel(PackedModel):
    def __init__(self):
        super().__init__(triton_python_backend_utils)
'''


def onnxruntime_form(source: Source, options: RepositoryOptions) -> dict[str, ModelFolder]:
    """Returns the artifact's file as a model of Triton's ONNX Runtime; requests bring their operating points."""
    manifest = source.artifact.manifest
    warm, data = source.warmed()
    config = {
        "name": source.name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch or MAX_BATCH,
        "input": [batched(tensor) for tensor in manifest.inputs],
        "output": with_labels([batched(tensor) for tensor in manifest.outputs], manifest),
        "dynamic_batching": {},
        **warm,
        **source.described(),
    }
    files: dict[str, bytes | Path] = {
        f"{VERSION}/{name}": source.artifact.path / name for name in manifest.files if name.startswith(MODEL_FILE)
    }
    return {source.name: ModelFolder(config, {**files, **data, **source.labels()})}


def python_form(source: Source, options: RepositoryOptions) -> dict[str, ModelFolder]:
    """Returns a model in Python with the whole artifact beside it."""
    manifest, folder = source.artifact.manifest, source.artifact.path
    warm, data = source.warmed()
    budget = options.token_budget or STEM_IMAGES * manifest.model.geometry.tokens
    config = {
        "name": source.name,
        "backend": "python",
        "max_batch_size": options.max_batch or MAX_BATCH,
        "input": inputs_with_defaults(manifest),
        "output": with_labels(outputs_of_python(manifest), manifest),
        "dynamic_batching": {},
        "instance_group": [{"count": 1, "kind": Symbol("KIND_CPU")}],
        **warm,
        **source.described(**{BUDGET: budget}),
    }
    names = [MANIFEST_FILE, *manifest.files]
    names += [file.relative_to(folder).as_posix() for file in sorted((folder / POINTS_FOLDER).glob("*.json"))]
    files: dict[str, bytes | Path] = {f"{VERSION}/{ARTIFACT}/{name}": folder / name for name in names}
    files[f"{VERSION}/model.py"] = _PACKED_MODEL
    return {source.name: ModelFolder(config, {**files, **data, **source.labels()})}
