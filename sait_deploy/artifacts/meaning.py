"""Whether what a manifest says can be: its numbers within ranges, and geometry, tensors, labels and points agreeing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from sait_deploy.artifacts.codec import shown
from sait_deploy.artifacts.manifest import (
    COUNTS,
    EMBEDDINGS,
    FEATURES,
    Form,
    Manifest,
    ModelInfo,
    Precision,
    TensorInfo,
    block_features,
)
from sait_deploy.artifacts.points import PointRequest
from sait_deploy.artifacts.pruning_info import PruningInfo
from sait_deploy.artifacts.tower_info import CU_SEQLENS, POSITIONS, TOKENS
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.images.labels import is_class_name
from sait_deploy.plugins.mass_token_select.threshold import check_threshold
from sait_deploy.tokens import parse_density

_LONGEST_NAME: Final = 200
_LONGEST_LABEL: Final = 1000
_LARGEST_NUMBER: Final = 2**53
"""Whole numbers up to here are exact wherever they go: in JSON, in float64, in int64."""

_LARGEST_SIDE: Final = 8192
_LARGEST_MEAN: Final = 1000.0
_MOST: Final = {
    "parameters": 10**12,
    "classes": 10**6,
    "depth": 1000,
    "width": 2**16,
    "attention_width": 2**18,
    "patch_tokens": 4096 * 16,
    "prefix_tokens": 256,
}
"""The most that a model's numbers can be; what they are at least stands beside where each is checked."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TYPES: Final = ("float32", "float16", "int32")
_AGAIN: Final = "export again"


def check_meaning(manifest: Manifest) -> None:
    """Checks a manifest that was decoded, before anything is made of what it says.

    Raises:
        ArtifactError: it says what cannot be; the message names the first such thing.
    """
    for problem in _problems(manifest):
        raise ArtifactError(f"the manifest says what cannot be: {problem}", _AGAIN)


def _problems(manifest: Manifest) -> Iterator[str]:
    yield from _names(manifest)
    yield from _model(manifest.model)
    yield from _preprocessing(manifest)
    if manifest.pruning is not None:
        yield from _pruning(manifest.pruning, manifest.model)
    yield from _tensors(manifest)
    is_int8 = manifest.dtype is Precision.INT8
    if is_int8 != bool(manifest.quantized_from) or (manifest.quantization is not None and not is_int8):
        yield f"weights in {manifest.dtype} of an artifact made from {shown(manifest.quantized_from)}"
    yield from _within("opset", manifest.opset, 1, 1000)
    if manifest.macs.dense < 1 or manifest.macs.per_image < 1:
        yield f"{manifest.macs.per_image} multiply-accumulates of {manifest.macs.dense}"


def _names(manifest: Manifest) -> Iterator[str]:
    for what, name in (("id", manifest.id), ("name", manifest.name), ("model's name", manifest.model.name)):
        if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
            yield f"its {what} is {shown(name)}"
    for name, digest in manifest.files.items():
        if PurePath(name).name != name or not is_class_name(name) or len(name.encode()) > _LONGEST_NAME:
            yield f"it lists the file {shown(name)}, which is not a plain file name"
        if not _SHA256.fullmatch(digest):
            yield f"{name} has SHA-256 {shown(digest)}"


def _model(model: ModelInfo) -> Iterator[str]:
    geometry = model.geometry
    for side, patch in zip(model.image_size, model.patch_size, strict=True):
        yield from _within("an image's side", side, 1, _LARGEST_SIDE)
        yield from _within("a patch's side", patch, 1, side)
    for name in ("parameters", "classes"):
        yield from _within(name, getattr(model, name), 0, _MOST[name])
    for name, least in (("depth", 1), ("width", 1), ("attention_width", 1), ("patch_tokens", 1), ("prefix_tokens", 0)):
        yield from _within(name, getattr(geometry, name), least, _MOST[name])
    for name in (n for n in dir(geometry) if "macs" in n):
        yield from _within(name, getattr(geometry, name), 0, _LARGEST_NUMBER)
    rows, columns = (side // max(1, patch) for side, patch in zip(model.image_size, model.patch_size, strict=True))
    if rows * columns != geometry.patch_tokens:
        yield f"{rows} x {columns} patches are not {geometry.patch_tokens} patch tokens"
    if model.embedding is not None and model.classes:
        yield f"{model.classes} classes of a model that embeds"
    if model.tower is not None and (model.classes or model.embedding is not None):
        yield f"an image tower with {model.classes} classes or an embedding"
    if model.labels is not None:
        if len(model.labels) != model.classes:
            yield f"{len(model.labels)} labels for {model.classes} classes"
        wrong = next((x for x in model.labels if not is_class_name(x) or len(x) > _LONGEST_LABEL), None)
        if wrong is not None:
            yield f"a label is {shown(wrong)}"


def _preprocessing(manifest: Manifest) -> Iterator[str]:
    options = manifest.preprocessing
    if tuple(options.image_size) != tuple(manifest.model.image_size):
        yield f"images are made {options.image_size} and the model takes {manifest.model.image_size}"
    for side in options.resize:
        yield from _within("a resized image's side", side, 1, 2 * _LARGEST_SIDE)
    if max(map(abs, (*options.mean, *options.std))) > _LARGEST_MEAN or min(options.std) < 1 / _LARGEST_MEAN:
        yield f"mean {options.mean} and std {options.std}"


def _pruning(pruning: PruningInfo, model: ModelInfo) -> Iterator[str]:
    patches = model.geometry.patch_tokens
    yield from _within("prune_at", pruning.prune_at, 0, model.geometry.depth - 1)
    if not pruning.importance or not pruning.keep or pruning.importance == pruning.keep:
        yield f"importance is read from {pruning.importance!r} and keep from {pruning.keep!r}"
    if pruning.threshold is not None and pruning.density is not None:
        yield f"density {pruning.density} has threshold {pruning.threshold}"
    if len({info.name for info in pruning.points}) != len(pruning.points):
        yield "two of its points have one name"
    try:
        if pruning.density is not None:
            parse_density(pruning.density)
        if pruning.threshold is not None:
            check_threshold(pruning.threshold, patches)
        for info in pruning.points:
            PointRequest.of(info.name, info.point).resolve(patches)
    except InvalidArgument as error:
        yield error.message
    for info in pruning.points:
        if not 0 <= info.kept.most <= patches:
            yield f"point {info.name!r} keeps {info.kept.most} of {patches} patch tokens"


def _tensors(manifest: Manifest) -> Iterator[str]:
    """Yields what is wrong with inputs and outputs: their names, in order, and the sizes that the model gives them."""
    model, geometry = manifest.model, manifest.model.geometry
    points = [("mass", ()), ("keep_limits", (2,))] if manifest.form is Form.ADAPTIVE else []
    answer = EMBEDDINGS if model.embedding is not None else "logits" if model.classes else "features"
    wanted: dict[str, tuple[int | None, ...]] = {"images": (None, *model.image_size), **dict(points)}
    answers: dict[str, tuple[int, ...]] = {answer: (model.answer_width,)}
    if model.tower is not None:
        answers = {TOKENS: (model.answer_width,), CU_SEQLENS: (), POSITIONS: ()}
    tokens = {FEATURES: (geometry.tokens, geometry.width)}
    features: dict[str, tuple[int, ...]] = dict(tokens) if FEATURES in manifest.output_names else {}
    blocks = [block for block in manifest.feature_blocks if block < geometry.depth]
    features |= {block_features(block): (geometry.tokens, geometry.width) for block in sorted(blocks)}
    if blocks and manifest.pruning is not None:
        features[manifest.pruning.keep] = (geometry.tokens,)
    counts: dict[str, tuple[int, ...]] = {COUNTS: ()} if manifest.pruning is not None and not model.tower else {}
    wanted |= answers | features | counts
    given = (*manifest.inputs, *manifest.outputs)
    for what, found, names in (
        ("inputs", manifest.inputs, ["images", *(name for name, _ in points)]),
        ("outputs", manifest.outputs, [*answers, *features, *counts]),
    ):
        if [tensor.name for tensor in found] != names:
            yield f"its {what} are {shown([tensor.name for tensor in found])} and not {names}"
    for tensor in given:
        yield from _tensor(tensor, wanted.get(tensor.name, ()))


def _tensor(tensor: TensorInfo, sizes: tuple[int | None, ...]) -> Iterator[str]:
    batch, *rest = tensor.shape or ("",)
    fits = len(rest) == len(sizes) and all(w in (None, g) for g, w in zip(rest, sizes, strict=True))
    numbers = [size for size in (batch, *rest) if not isinstance(size, str)]
    if not fits or not batch or min(numbers, default=1) < 1:
        yield f"{tensor.name} is {shown(list(tensor.shape))}"
    if tensor.dtype not in _TYPES:
        yield f"{tensor.name} holds {shown(tensor.dtype)}"


def _within(name: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{name} is {shown(value)}, which is not from {least} to {most}"
