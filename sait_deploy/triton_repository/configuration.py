"""Configurations of Triton's models: tensors, batching, warm-up and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Form, Manifest, TensorInfo
from sait_deploy.exporters.names import IMAGES, KEEP_LIMITS, MASS
from sait_deploy.tokens import OperatingPoint
from sait_deploy.triton_repository.pbtxt import Symbol, map_of

KEPT: Final = "kept"
"""Output of the models in Python: patch tokens kept, int32, as the project's own server calls it."""

LABELS_FILE: Final = "labels.txt"
_TYPES: Final = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}
Fields = dict[str, Any]


def batched(tensor: TensorInfo) -> Fields:
    """Returns a tensor whose first dimension is the batch, which Triton leaves out.

    A tensor of one number for each image is [batch, 1] to clients, as Triton knows no tensor without dimensions, and
    [batch] to the model.
    """
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]
    shape: Fields = {"dims": sizes} if sizes else {"dims": [1], "reshape": {"shape": []}}
    return {"name": tensor.name, "data_type": Symbol(_TYPES[tensor.dtype]), **shape}


def whole(tensor: TensorInfo) -> Fields:
    """Returns a tensor with all its dimensions, -1 where one has a name in place of a number."""
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "data_type": Symbol(_TYPES[tensor.dtype]), "dims": sizes}


def inputs_with_defaults(manifest: Manifest) -> list[Fields]:
    """Returns the inputs of a model in Python: an operating point need not be given."""
    image = [manifest.preprocessing.channels, *manifest.model.image_size]
    found: list[Fields] = [{"name": IMAGES, "data_type": Symbol("TYPE_FP32"), "dims": image}]
    if manifest.form is Form.ADAPTIVE:
        found += [
            {"name": MASS, "data_type": Symbol("TYPE_FP32"), "dims": [1], "optional": True},
            {"name": KEEP_LIMITS, "data_type": Symbol("TYPE_INT32"), "dims": [2], "optional": True},
        ]
    return found


def outputs_of_python(manifest: Manifest) -> list[Fields]:
    """Returns the outputs of a model in Python: logits, embeddings or features, and how many patch tokens were kept."""
    return [batched(manifest.outputs[0]), {"name": KEPT, "data_type": Symbol("TYPE_INT32"), "dims": [1]}]


def with_labels(outputs: Sequence[Fields], manifest: Manifest) -> list[Fields]:
    """Returns outputs of which the first names its classes, where they have names: Triton's classification reads it."""
    first, *others = outputs
    named = {**first, "label_filename": LABELS_FILE} if manifest.model.labels else first
    return [named, *others]


def warm_up(inputs: Mapping[str, NDArray[Any]]) -> Fields:
    """Returns one request of one image that is computed before the model is ready; its data lie in files."""
    values = {
        name: {
            "data_type": Symbol(_TYPES[array.dtype.name]),
            "dims": list(array.shape[1:]) or [1],
            "input_data_file": name,
        }
        for name, array in inputs.items()
    }
    return {"name": "one image", "batch_size": 1, "inputs": map_of(values)}


def warm_up_whole(tensors: Sequence[TensorInfo], data: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]) -> Fields:
    """Returns one request of a model that has no batch dimension of Triton's.

    Args:
        tensors: its inputs.
        data: of those whose data lie in files; the others are zeros.
        sizes: what the first dimension of the others is.
    """
    values: Fields = {}
    for tensor in tensors:
        kind = {"data_type": Symbol(_TYPES[tensor.dtype])}
        if tensor.name in data:
            values[tensor.name] = {**kind, "dims": list(data[tensor.name].shape), "input_data_file": tensor.name}
        else:
            rest = [size for size in tensor.shape[1:] if isinstance(size, int)]
            values[tensor.name] = {**kind, "dims": [sizes[tensor.name], *rest], "zero_data": True}
    return {"name": "the smallest batch", "batch_size": 1, "inputs": map_of(values)}


def warm_up_data(images: NDArray[np.float32], point: OperatingPoint | None) -> dict[str, NDArray[Any]]:
    """Returns the tensors of a request of one image, float32 [1, C, H, W], at an operating point."""
    found: dict[str, NDArray[Any]] = {IMAGES: images[:1]}
    if point is not None:
        found[MASS] = np.array([point.mass], np.float32)
        found[KEEP_LIMITS] = np.array([[point.min_keep, point.max_keep]], np.int32)
    return found


def metadata(manifest: Manifest, name: str | None, point: OperatingPoint | None) -> Fields:
    """Returns what a configuration says of the artifact and of its operating point, as Triton's parameters."""
    said = {"artifact": manifest.id, "model": manifest.model.name, "form": str(manifest.form)}
    said |= {"mean": _listed(manifest.preprocessing.mean), "std": _listed(manifest.preprocessing.std)}
    if point is not None and name is not None:
        said |= {"point": name, "mass": str(point.mass)}
        said |= {"min_keep": str(point.min_keep), "max_keep": str(point.max_keep)}
    return {key: {"string_value": value} for key, value in said.items()}


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
