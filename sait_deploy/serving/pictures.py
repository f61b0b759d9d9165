"""An image to its classes: decoded, checked by its header first, classified, and drawn with its kept tokens."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.kept_tokens import draw_kept
from sait_deploy.images.preprocess import normalised, seen, shown
from sait_deploy.images.received import open_received
from sait_deploy.runtime.answers import Output, Prediction, predictions
from sait_deploy.serving.model import Answer, ServedModel
from sait_deploy.serving.server import Server

_MOST_PIXELS: Final = 64 << 20
"""Pixels of an image at most: decoded, they take three bytes each."""

_PARAMETERS: Final = ("model", "point", "mass", "min_keep", "max_keep", "top", "picture")


async def classify(server: Server, data: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
    """Classifies one image.

    Args:
        server: that is asked.
        data: of a file such as JPEG, PNG or WebP.
        asked: parameters as text: ``model``, ``point``, ``mass``, ``min_keep``, ``max_keep``, ``top`` (5) and
            ``picture`` (0; 1 adds the image with its kept tokens, a PNG in base64).

    Returns:
        The document of the answer.

    Raises:
        ImageError: it is no image, damaged, or too large.
        InvalidArgument: a parameter that cannot be, or the model has no head to classify with.
        Refused: there is no such model, the queue is full, or time is up.
        SaitError: the runtime failed.
    """
    for name in asked:
        if name not in _PARAMETERS:
            raise InvalidArgument(f"unknown parameter {name!r}", f"known are {', '.join(_PARAMETERS)}")
    model = server.model(asked.get("model"))
    top = int(_number(asked, "top", 1) or 5)
    choice = PointChoice(asked.get("point"), *(_number(asked, name) for name in ("mass", "min_keep", "max_keep")))
    pixels = await asyncio.to_thread(_pixels, model, data)
    images = normalised(pixels[None], model.manifest.preprocessing)
    answer = await model.answer(images, choice, server.options.time_limit_s)
    prediction = _prediction(model, answer, top)
    picture = {}
    if asked.get("picture") == "1":
        picture = {"picture": await asyncio.to_thread(_picture, model, pixels, answer, prediction)}
    classes = zip(prediction.labels, prediction.probabilities, strict=True)
    return {
        "model": model.name,
        "point": answer.point,
        "classes": [{"label": label, "probability": probability} for label, probability in classes],
        "kept": prediction.kept,
        "of": model.manifest.model.geometry.patch_tokens,
        **picture,
    }


def _number(asked: Mapping[str, str], name: str, least: float | None = None) -> float | None:
    if name not in asked:
        return None
    try:
        value = float(asked[name])
    except ValueError:
        raise InvalidArgument(f"{name} {asked[name]!r} is not a number", "give one number") from None
    if least is not None and not (value >= least and value == value // 1):
        raise InvalidArgument(f"{name} {asked[name]!r} is no whole number from {least:g} on", "give one")
    return value


def _pixels(model: ServedModel, data: bytes) -> NDArray[np.uint8]:
    """Returns what the model sees of an image: uint8 [H, W, C]."""
    preprocessing = model.manifest.preprocessing
    return seen(open_received(data, _MOST_PIXELS, preprocessing.channels), preprocessing)


def _prediction(model: ServedModel, answer: Answer, top: int) -> Prediction:
    (image,) = answer.images
    output = Output(image.logits[None], np.array([image.kept], dtype=np.int32))
    return predictions(model.manifest, output, top)[0]


def _picture(model: ServedModel, pixels: NDArray[np.uint8], answer: Answer, prediction: Prediction) -> str:
    """Returns an image with its kept tokens, a PNG in base64; where nobody says which were kept, the image alone."""
    (image,) = answer.images
    if image.keep is None:
        drawn = Image.fromarray(shown(pixels))
    else:
        info = model.manifest.model
        rows, columns = (size // patch for size, patch in zip(info.image_size, info.patch_size, strict=True))
        caption = f"{prediction.labels[0]} ({prediction.probabilities[0]:.0%}), point {answer.point}"
        drawn = draw_kept(shown(pixels), image.keep, (rows, columns), caption=caption)
    file = io.BytesIO()
    drawn.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
