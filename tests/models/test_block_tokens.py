"""Tokens of chosen blocks: timm's own where all are kept, at any image size; what was dropped keeps its value."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import load_checkpoint
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from sait_deploy.artifacts.manifest import Outputs, WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.tokens import Score
from tests.tiny import FAMILIES, family, randomised, save_weights

ALL = (0, 1, 2)


def timms(vit: torch.nn.Module, images: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    """The blocks' tokens by timm's own means, prefix first."""
    has_prefix = vit.num_prefix_tokens > 0  # asked for them where there are none, timm's Eva fails
    options = {"return_prefix_tokens": has_prefix, "norm": True, "output_fmt": "NLC", "intermediates_only": True}
    found = vit.forward_intermediates(images, indices=list(blocks), **options)  # type: ignore[operator]
    return [torch.cat([one[1], one[0]], 1) if isinstance(one, tuple) else one for one in found]


def images_of(vit: torch.nn.Module, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, *vit.patch_embed.img_size, generator=generator)  # type: ignore[union-attr, misc]


@pytest.mark.parametrize("name", [name for name in FAMILIES if hasattr(family(name), "forward_intermediates")])
@torch.inference_mode()
def test_dense_ones_are_those_of_timm_in_every_family(name: str) -> None:
    vit = family(name)
    images = images_of(vit)
    found = PrunableViT(vit, None, blocks=ALL).trace(images).blocks
    for one, wanted in zip(found, timms(vit, images, ALL), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 128), (160, 96)])
@torch.inference_mode()
def test_position_embeddings_are_resampled_as_timm_does(tmp_path: Path, size: tuple[int, int]) -> None:
    weights = save_weights(randomised(timm.create_model("test_vit", img_size=96)), tmp_path / "w.safetensors")
    loaded = load_model("test_vit", WeightsRequest(WeightsSource.FILE, weights), size)
    own = timm.create_model("test_vit", img_size=size).eval()
    load_checkpoint(own, str(weights), filter_fn=checkpoint_filter_fn)
    images = images_of(own)
    found = PrunableViT(loaded.vit, None, blocks=(1, 5)).trace(images).blocks
    assert loaded.info.grid == (size[0] // 16, size[1] // 16)
    for one, wanted in zip(found, timms(own, images, (1, 5)), strict=True):
        assert one.shape[1] == 1 + loaded.info.grid[0] * loaded.info.grid[1]
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pruning", [FixedPruning(Score.MEAN, 1, 6), AdaptivePruning(Score.MEAN, 1)])
@torch.inference_mode()
def test_the_last_block_is_what_features_are(pruning: FixedPruning | AdaptivePruning) -> None:
    """And a token that was dropped is in both blocks behind what it was when it was dropped."""
    vit = family(FAMILIES[0])
    images, point = images_of(vit), (torch.full((2,), 0.5), torch.tensor([[1, 6], [2, 9]], dtype=torch.int32))
    given = point if isinstance(pruning, AdaptivePruning) else ()
    model = PrunableViT(vit, pruning, outputs=Outputs.LOGITS_AND_FEATURES, blocks=ALL)
    traced = model.trace(images, *given)
    assert traced.features is not None and traced.keep is not None
    before, own, last = traced.blocks
    torch.testing.assert_close(last, traced.features)
    dropped = traced.keep == 0
    assert dropped.any() and torch.equal(own[dropped], last[dropped])
    assert not torch.isclose(before[dropped], own[dropped]).all(-1).any()
    names = [x.shape for x in model(images, *given)]
    assert len(names) == 1 + 1 + len(ALL) + 2


@pytest.mark.parametrize("blocks", [(3,), (-1, 0)])
def test_a_block_that_is_not_there_is_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match=r"features of block (3|-1): the model has 3 blocks") as caught:
        PrunableViT(family(FAMILIES[0]), None, blocks=blocks)
    assert caught.value.hint == "give 0 to 2"
