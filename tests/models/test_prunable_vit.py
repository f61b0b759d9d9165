"""The prunable ViT against timm's own forward, against a plain re-implementation, and what it refuses."""

from __future__ import annotations

import hashlib

import pytest
import timm
import torch
from timm.layers.diff_attention import DiffAttention
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import nn

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.prunable_vit import FixedPruning, PrunableViT, check_pruning, check_supported
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.tokens import Score
from tests.tiny import (
    FAMILIES,
    family,
    images_for,
    importance_of,
    keep_of,
    kept_tokens,
    plainly_pruned,
    relative_difference,
    small_vit,
)

TOLERANCE = 1e-4


def scores_of(vit: VisionTransformer) -> list[Score]:
    return list(Score) if vit.has_class_token else [Score.MEAN]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_dense_equals_timms_forward(name: str) -> None:
    vit = family(name)
    images = images_for(vit)
    (logits,) = PrunableViT(vit, None)(images)
    expected = vit(images)
    assert logits.dtype == torch.float32
    assert logits.shape == expected.shape
    assert expected.std() > 0.1
    assert relative_difference(logits, expected) < TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_density_one_equals_timms_forward(name: str) -> None:
    vit = family(name)
    images = images_for(vit)
    patches = vit.patch_embed.num_patches
    for prune_at in range(len(vit.blocks)):
        for score in scores_of(vit):
            logits, counts = PrunableViT(vit, FixedPruning(score, prune_at, patches))(images)
            assert counts.dtype == torch.int32
            assert counts.tolist() == [vit.num_prefix_tokens + patches] * len(images)
            assert relative_difference(logits, vit(images)) < TOLERANCE, (prune_at, score)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_mid_density_equals_a_plain_implementation(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 4, seed=1)
    for prune_at, kept in ((0, 5), (1, 1), (len(vit.blocks) - 1, 7)):
        for score in scores_of(vit):
            traced = PrunableViT(vit, FixedPruning(score, prune_at, kept)).trace(images)
            chosen = kept_tokens(importance_of(vit, prune_at, score, images), kept)
            assert traced.keep is not None
            patches = traced.keep[:, vit.num_prefix_tokens :]
            assert [row.nonzero().flatten().tolist() for row in patches] == chosen, (prune_at, score)
            expected = plainly_pruned(vit, images, prune_at, chosen)
            assert relative_difference(traced.logits, expected) < TOLERANCE, (prune_at, score)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_importance_is_read_off_the_attention(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 3, seed=2)
    for prune_at in (0, 2):
        for score in scores_of(vit):
            importance = PrunableViT(vit, FixedPruning(score, prune_at, 3)).trace(images).importance
            assert importance is not None
            assert importance.dtype == torch.float32
            assert importance.shape == (3, vit.patch_embed.num_patches)
            torch.testing.assert_close(importance.sum(dim=1), torch.ones(3), rtol=0, atol=1e-6)
            assert importance.min() >= 0
            torch.testing.assert_close(importance, importance_of(vit, prune_at, score, images), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_two_scores_choose_differently() -> None:
    vit = family("vit")
    images = images_for(vit, 8)
    kept = [PrunableViT(vit, FixedPruning(score, 1, 8)).trace(images).keep for score in Score]
    assert kept[0] is not None and kept[1] is not None
    assert not torch.equal(kept[0], kept[1])


@torch.no_grad()
def test_the_selection_is_the_reference_selection_of_its_importance() -> None:
    vit = family("dinov2-registers")
    images = images_for(vit, 6)
    traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6)).trace(images)
    assert traced.importance is not None and traced.keep is not None and traced.counts is not None
    limits = torch.full((6, 2), 6, dtype=torch.int32).numpy()
    keep, counts = mass_token_select(traced.importance.numpy(), torch.ones(6).numpy(), limits, 5)
    assert (traced.keep.numpy() == keep).all()
    assert (traced.counts.numpy() == counts).all()


@torch.no_grad()
def test_a_forced_keep_is_obeyed() -> None:
    vit = family("vit")
    images = images_for(vit, 3)
    chosen = [[0, 1, 2, 3], [12, 13, 14, 15], [0, 5, 10, 15]]
    traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images, keep=keep_of(vit, chosen))
    assert relative_difference(traced.logits, plainly_pruned(vit, images, 1, chosen)) < TOLERANCE
    free = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images)
    assert relative_difference(traced.logits, free.logits) > TOLERANCE


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch() -> None:
    vit = family("siglip")
    images = images_for(vit, 5)
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    together = module(images)[0]
    alone = torch.cat([module(image[None])[0] for image in images])
    assert relative_difference(together, alone) < TOLERANCE


def digest(vit: nn.Module) -> dict[str, str]:
    return {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in vit.state_dict().items()}


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("name", ["vit", "deit3", "siglip", "qk-norm"])
def test_weights_stay_as_they_are(name: str, precision: Precision) -> None:
    vit = family(name)
    before, flags = digest(vit), [p.requires_grad for p in vit.parameters()]
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6), precision)
    with torch.no_grad():
        module(images_for(vit))
    assert digest(vit) == before
    assert [p.requires_grad for p in vit.parameters()] == flags
    assert all(p.grad is None for p in vit.parameters())
    assert {p.dtype for p in vit.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", FAMILIES)
def test_no_parameter_or_buffer_is_added(name: str) -> None:
    vit = family(name)
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    assert {f"vit.{key}" for key in vit.state_dict()} == set(module.state_dict())
    assert [p.data_ptr() for p in module.parameters()] == [p.data_ptr() for p in vit.parameters()]


def test_dropout_and_stochastic_depth_are_off() -> None:
    vit = small_vit(drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5, pos_drop_rate=0.5)
    vit.train()
    module = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))
    images = images_for(vit)
    with torch.no_grad():
        assert torch.equal(module(images)[0], module(images)[0])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_half_precision_is_close(name: str) -> None:
    vit = family(name)
    images = images_for(vit)
    pruning = FixedPruning(Score.MEAN, 1, 6)
    half = PrunableViT(vit, pruning, Precision.FP16).trace(images)
    assert half.logits.dtype == torch.float32
    assert half.importance is not None and half.importance.dtype == torch.float32
    full = PrunableViT(vit, pruning).trace(images, keep=half.keep)
    assert full.importance is not None
    torch.testing.assert_close(half.importance, full.importance, rtol=0.05, atol=1e-3)
    assert 0 < relative_difference(half.logits, full.logits) < 2e-2
    (dense,) = PrunableViT(vit, None, Precision.FP16)(images)
    assert relative_difference(dense, vit(images)) < 2e-2


def test_half_precision_keeps_norms_in_float32() -> None:
    module = PrunableViT(family("clip-quickgelu"), None, Precision.FP16)
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if "norm" in name else torch.float16
        assert parameter.dtype == wanted, name


def test_another_class_is_refused_by_name() -> None:
    for name, shown in (
        ("vit_small_patch16_dinov3", "Eva"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("resnet18", "ResNet"),
        ("beit_base_patch16_224", "Beit"),
    ):
        with torch.device("meta"):
            model = timm.create_model(name)
        with pytest.raises(ModelError, match=shown) as caught:
            check_supported(model)
        assert "VisionTransformer" in caught.value.hint


def test_a_subclass_may_compute_something_else_and_is_refused() -> None:
    class Custom(VisionTransformer):  # type: ignore[misc]
        """A subclass whose forward nobody here has read."""

    with torch.device("meta"), pytest.raises(ModelError, match="Custom"):
        check_supported(Custom(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2))


@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock, ParallelThingsBlock])
def test_other_blocks_are_refused_by_name(block: type[nn.Module]) -> None:
    with torch.device("meta"):
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, block_fn=block)
    with pytest.raises(ModelError, match=block.__name__) as caught:
        check_supported(vit)
    assert "made of Block" in caught.value.hint


def test_other_attention_is_refused_by_name() -> None:
    with torch.device("meta"):
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, attn_layer=DiffAttention)
    with pytest.raises(ModelError, match="DiffAttention"):
        check_supported(vit)


def test_one_other_block_among_many_is_found() -> None:
    vit = small_vit()
    vit.blocks[2] = ResPostBlock(32, 2)
    with pytest.raises(ModelError, match="ResPostBlock"):
        PrunableViT(vit, None)


def test_gated_attention_is_refused() -> None:
    vit = small_vit()
    vit.blocks[1].attn.gate = nn.Linear(32, 32)
    with pytest.raises(ModelError, match="gated"):
        check_supported(vit)


def test_a_model_without_readout_is_refused() -> None:
    with pytest.raises(ModelError, match="readout"):
        check_supported(small_vit(global_pool="", fc_norm=False))


def test_too_many_patch_tokens_are_refused() -> None:
    with torch.device("meta"):
        most = VisionTransformer(img_size=512, patch_size=8, embed_dim=32, depth=1, num_heads=2)
        over = VisionTransformer(img_size=520, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    assert check_supported(most) is most
    with pytest.raises(ModelError, match="4225 patch tokens"):
        check_supported(over)


@pytest.mark.parametrize("block", [-1, 3, 12])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    with pytest.raises(InvalidArgument, match=f"prune_at {block} ") as caught:
        PrunableViT(family("vit"), FixedPruning(Score.MEAN, block, 4))
    assert "0 to 2" in caught.value.hint


@pytest.mark.parametrize("name", ["siglip", "average-register"])
def test_the_class_score_needs_a_class_token(name: str) -> None:
    with pytest.raises(InvalidArgument, match="class token"):
        check_pruning(family(name), FixedPruning(Score.CLS, 0, 4))


@pytest.mark.parametrize("kept", [0, -1, 17])
def test_as_many_tokens_as_there_are_can_be_kept(kept: int) -> None:
    with pytest.raises(InvalidArgument, match=f"{kept} of 16"):
        check_pruning(family("vit"), FixedPruning(Score.MEAN, 0, kept))


def test_extreme_logits_keep_importance_a_distribution() -> None:
    vit = small_vit()
    with torch.no_grad():
        vit.blocks[1].attn.qkv.weight.mul_(40)
        traced = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 4)).trace(images_for(vit))
    assert traced.importance is not None
    torch.testing.assert_close(traced.importance.sum(dim=1), torch.ones(3), rtol=0, atol=1e-5)
