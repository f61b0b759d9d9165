"""A model for images of another size: the same weights, and position embeddings resampled by its family."""

from __future__ import annotations

import dataclasses

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.models.families import transformer_of
from sait_deploy.models.prunable_vit import geometry_of
from sait_deploy.models.registry import LoadedModel


def resized(loaded: LoadedModel, image_size: tuple[int, int]) -> LoadedModel:
    """Returns the model for images of another size, which shares all weights with it but the position embeddings.

    Args:
        loaded: the model.
        image_size: height and width, pixels.

    Raises:
        InvalidArgument: the size is no multiple of the patch size, or the model has one image size.
    """
    patch = loaded.info.patch_size
    if min(image_size) < 1 or image_size[0] % patch[0] or image_size[1] % patch[1]:
        raise InvalidArgument(
            f"image size {image_size[0]} x {image_size[1]} is no multiple of the patch size {patch[0]} x {patch[1]}"
        )
    smaller = transformer_of(loaded.vit).resized(image_size)
    info = dataclasses.replace(loaded.info, image_size=image_size, geometry=geometry_of(smaller))
    preprocessing = _resized_preprocessing(loaded.preprocessing, image_size)
    return dataclasses.replace(loaded, vit=smaller, info=info, preprocessing=preprocessing)


def _resized_preprocessing(preprocessing: Preprocessing, image_size: tuple[int, int]) -> Preprocessing:
    """Returns the preprocessing at another size that shows as much of each image."""
    pairs = zip(image_size, preprocessing.resize, preprocessing.image_size, strict=True)
    height, width = (max(new, round(new * resize / old)) for new, resize, old in pairs)
    return dataclasses.replace(preprocessing, image_size=image_size, resize=(height, width))
