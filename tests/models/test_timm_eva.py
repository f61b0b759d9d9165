"""Every name of timm's Eva equals timm; rotary positions go with the tokens that are kept."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.eva import Eva

from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import in_half_precision
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.tokens import Score
from tests import plain
from tests.tiny import family, images_for, patches_of, relative_difference

NAMES = timm.list_models(module="eva")
TOLERANCE = 1e-5


def made(name: str, depth: int | None, grid: int | None) -> Eva:
    """timm's model with random weights; ``depth`` and ``grid`` blocks and patches a side, None for its own."""
    options: dict[str, Any] = {} if depth is None else {"depth": depth}
    if grid is not None:
        patch = 14 if "patch14" in name else 16
        options["img_size"] = grid * patch
    if depth is not None and "sapiens2" in name:
        with torch.device("meta"):
            heads = timm.create_model(name).blocks
        options["num_kv_heads"] = tuple(block.attn.num_kv_heads for block in (heads[0], heads[len(heads) // 2]))
    return filled(name, options)


@torch.no_grad()
def filled(name: str, options: dict[str, Any]) -> Eva:
    """The model with uniform values in place of timm's own, which take minutes for the widest."""
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    model = model.to_empty(device="cpu").eval()
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    generator = torch.Generator().manual_seed(0)
    for called, parameter in model.named_parameters():
        scale = 2.2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3
        parameter.uniform_(-scale, scale, generator=generator)
        if called.endswith("weight") and parameter.ndim == 1:
            parameter.add_(1)
    found: Eva = model
    return found


@torch.no_grad()
def differences(model: Eva) -> tuple[float, float]:
    """How far the dense form, and the adaptive one with nothing dropped, are from timm's own forward pass."""
    images, patches = images_for(model, 1), model.patch_embed.num_patches
    wanted = model(images)
    assert wanted.std() > 0.1
    limits = torch.tensor([[1, patches]], dtype=torch.int32)
    adaptive = PrunableViT(model, AdaptivePruning(Score.MEAN, 0))(images, torch.ones(1), limits)
    return relative_difference(PrunableViT(model, None)(images)[0], wanted), relative_difference(adaptive[0], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name_equals_timm_at_full_width(name: str) -> None:
    assert max(differences(made(name, depth=2, grid=4))) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224"]
)
def test_whole_models_equal_timm(name: str) -> None:
    assert max(differences(made(name, depth=None, grid=None))) < TOLERANCE


@pytest.mark.parametrize("name", ["dinov3", "rope-mixed", "eva02-rotary-swiglu"])
@torch.no_grad()
def test_a_kept_patch_keeps_its_own_position(name: str) -> None:
    """Positions of other patches, in the same order, give another answer: the comparison would see them mixed up."""
    model = family(name)
    images, pruned = images_for(model), PrunableViT(model, AdaptivePruning(Score.MEAN, 0))
    limits = torch.tensor([[3, 3], [7, 7], [12, 12]], dtype=torch.int32)
    traced = pruned.trace(images, torch.ones(3), limits)
    assert traced.keep is not None
    for image, logits, patches in zip(images, traced.logits, patches_of(model, traced.keep), strict=True):
        wanted, _ = plain.pruned(model, image[None], 0, patches)
        assert relative_difference(logits[None], wanted) < TOLERANCE
        shifted = plain.attended(model, 0, plain.embedded(model, image[None]))
        kept = plain.kept(model, shifted, patches)
        assert kept.rope is not None
        moved = plain.fed(model, 0, kept._replace(rope=kept.rope.roll(1, dims=-2)))
        for block in range(1, len(model.blocks)):
            moved = plain.whole_block(model, block, moved)
        assert relative_difference(model.forward_head(model.norm(moved.x)), wanted) > 100 * TOLERANCE


def test_positions_are_gathered_once_where_blocks_share_them() -> None:
    shared, mixed = (transformer_of(family(name)) for name in ("dinov3", "rope-mixed"))
    images = images_for(family("dinov3"))
    assert [tuple(one.shape) for one in shared.embed(images).carried] == [(3 * 21, 16)] * 2
    (numbers,) = mixed.embed(images_for(family("rope-mixed"))).carried
    assert numbers.dtype == torch.int32
    assert numbers.tolist() == [*range(17)] * 3


def test_half_precision_leaves_the_periods_of_positions_in_float32() -> None:
    half = in_half_precision(family("dinov3"))
    assert half.rope.periods.dtype == torch.float32  # type: ignore[union-attr]
    assert half.patch_embed.proj.weight.dtype == torch.float16  # type: ignore[union-attr]
