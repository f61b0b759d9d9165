"""A model for images of another size: what it shares with the whole one, and what it shows of images."""

from __future__ import annotations

import pytest

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.models.resize import resized
from tests.tiny import small_vit


def small(**options: object) -> LoadedModel:
    return describe(small_vit(**options), "small", WeightsSource.MEMORY, None)


def test_all_weights_are_shared_but_the_position_embedding() -> None:
    loaded = small()
    smaller = resized(loaded, (16, 16))
    own = {name for name, p in smaller.vit.named_parameters() if p is not loaded.vit.get_parameter(name)}
    assert own == {"pos_embed"}
    assert not smaller.vit.training
    assert (smaller.info.image_size, smaller.info.geometry.patch_tokens) == ((16, 16), 4)


@pytest.mark.parametrize("size", [(20, 24), (24, 20), (0, 8)])
def test_a_size_of_broken_patches_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument, match="no multiple of the patch size 8 x 8"):
        resized(small(), size)


def test_smaller_images_show_as_much() -> None:
    """The share of the resized image that the crop keeps is the same."""
    vit = small_vit(img_size=224)
    vit.pretrained_cfg = {"crop_pct": 0.9}
    loaded = describe(vit, "small", WeightsSource.MEMORY, None)
    whole, smaller = loaded.preprocessing, resized(loaded, (160, 160)).preprocessing
    assert whole.resize == (248, 248)
    assert smaller.resize == (177, 177)
    assert (smaller.image_size, smaller.mean, smaller.crop_mode) == ((160, 160), whole.mean, whole.crop_mode)
