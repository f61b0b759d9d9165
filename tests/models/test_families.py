"""Every family's models, exported, trained and teaching, against the models' own forward pass; and what is refused."""

from __future__ import annotations

import copy
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
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Outputs, Precision
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models import families
from sait_deploy.models.creation import check_known
from sait_deploy.models.families import transformer_of
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning, check_pruning
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.student import Student
from sait_deploy.training.teacher import Teacher
from tests.tiny import FAMILIES, FAMILY_SCORES, family, images_for, importance_of, relative_difference, small_vit

TOLERANCE = 1e-5


def test_the_variants_are_of_every_class_of_every_family() -> None:
    served = {name for entry in families.FAMILIES.values() for name in entry.classes}
    assert {f"{type(vit).__module__}.{type(vit).__qualname__}" for vit in map(family, FAMILIES)} == served


def exported(vit: VisionTransformer, pruning: Pruning | None, images: Tensor) -> tuple[Tensor, ...]:
    """Logits, features, and counts where there are any, of the form that is exported, with nothing dropped."""
    patches = vit.patch_embed.num_patches
    limits = torch.tensor([[1, patches]] * len(images), dtype=torch.int32)
    point = (torch.ones(len(images)), limits) if isinstance(pruning, AdaptivePruning) else ()
    return PrunableViT(vit, pruning, outputs=Outputs.LOGITS_AND_FEATURES)(images, *point)


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@torch.no_grad()
def test_with_nothing_dropped_all_forms_equal_the_models_own_forward_pass(name: str, score: Score) -> None:
    vit = family(name)
    images, depth, patches = images_for(vit), len(vit.blocks), vit.patch_embed.num_patches
    logits, features = vit(images), vit.forward_features(images)
    assert logits.std() > 0.1

    prunings = [None, *(FixedPruning(score, block, patches) for block in range(depth))]
    for pruning in [*prunings, *(AdaptivePruning(score, block) for block in range(depth))]:
        found, tokens, *counts = exported(vit, pruning, images)
        assert found.dtype == tokens.dtype == torch.float32
        assert relative_difference(found, logits) < TOLERANCE, pruning
        assert relative_difference(tokens.flatten(0, 1), features.flatten(0, 1)) < TOLERANCE, pruning
        assert [one.tolist() for one in counts] == [] if pruning is None else [[vit.num_prefix_tokens + patches] * 3]

    for block in range(depth):
        student = Student(vit, score, block).eval()
        importance = importance_of(vit, block, score, images)
        for point in (None, OperatingPoint(1.0, patches, patches), OperatingPoint(1.0, 1, patches)):
            found, seen, density = student(images, point)
            assert relative_difference(found, logits) < TOLERANCE, (block, point)
            torch.testing.assert_close(seen, importance, rtol=1e-4, atol=1e-6)
            assert density == (None if point is None else 1)


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_teacher_answers_as_the_model_does(name: str, score: Score, blocks: int) -> None:
    vit = copy.deepcopy(family(name))
    images = images_for(vit)
    taught = Teacher(vit, blocks, score)(images)
    with torch.no_grad():
        seen = torch.stack([importance_of(vit, block, score, images) for block in range(3 - blocks, 3)]).mean(dim=0)
        assert relative_difference(taught.logits, vit(images)) < TOLERANCE
    assert (taught.importance - seen).abs().max() < 1e-6
    assert not taught.logits.requires_grad
    assert not taught.importance.requires_grad


def digest(vit: nn.Module) -> dict[str, str]:
    return {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in vit.state_dict().items()}


@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
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
    pruned = [PrunableViT(vit, one) for one in (FixedPruning(Score.MEAN, 1, 6), AdaptivePruning(Score.MEAN, 1))]
    for module in (*pruned, Student(vit, Score.MEAN, 1), Teacher(copy.deepcopy(vit), 1, Score.MEAN)):
        assert list(module.state_dict()) == [f"vit.{key}" for key in vit.state_dict()]
    for module in (*pruned, Student(vit, Score.MEAN, 1)):
        assert [p.data_ptr() for p in module.parameters()] == [p.data_ptr() for p in vit.parameters()]


def test_another_class_is_refused_by_name() -> None:
    for name, shown in (
        ("resnet18", "ResNet"),
        ("beit_base_patch16_224", "Beit"),
    ):
        with torch.device("meta"):
            model = timm.create_model(name)
        with pytest.raises(ModelError, match=shown) as caught:
            transformer_of(model)
        assert "VisionTransformer" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("samvit_base_patch16", "VisionTransformerSAM"),
        ("hiera_tiny_224", "Hiera"),
        ("davit_tiny", "DaVit"),
    ],
)
def test_windows_are_why_a_model_that_has_them_is_refused(name: str, shown: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    for said, refuse in ((f"class {shown}", lambda: transformer_of(model)), (name, lambda: check_known(name))):
        with pytest.raises(ModelError, match=f"{said} cannot be pruned: its blocks attend inside windows") as caught:
            refuse()
        assert "attend to the whole image" in caught.value.hint


@pytest.mark.parametrize("form", [PrunableViT, Student, Teacher])
def test_every_form_refuses_another_class(form: type[nn.Module]) -> None:
    arguments = {PrunableViT: (None,), Student: (Score.MEAN, 0), Teacher: (1, Score.MEAN)}[form]
    with pytest.raises(ModelError, match="Linear"):
        form(nn.Linear(2, 2), *arguments)


def test_a_subclass_may_compute_something_else_and_is_refused() -> None:
    class Custom(VisionTransformer):  # type: ignore[misc]
        """A subclass whose forward nobody here has read."""

    with torch.device("meta"), pytest.raises(ModelError, match="Custom"):
        transformer_of(Custom(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2))


@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock, ParallelThingsBlock])
def test_other_blocks_are_refused_by_name(block: type[nn.Module]) -> None:
    with torch.device("meta"):
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, block_fn=block)
    with pytest.raises(ModelError, match=block.__name__) as caught:
        transformer_of(vit)
    assert "made of Block" in caught.value.hint


def test_other_attention_is_refused_by_name() -> None:
    with torch.device("meta"):
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, attn_layer=DiffAttention)
    with pytest.raises(ModelError, match="DiffAttention"):
        transformer_of(vit)


def test_one_other_block_among_many_is_found() -> None:
    vit = small_vit()
    vit.blocks[2] = ResPostBlock(32, 2)
    with pytest.raises(ModelError, match="ResPostBlock"):
        PrunableViT(vit, None)


def test_gated_attention_is_refused() -> None:
    vit = small_vit()
    vit.blocks[1].attn.gate = nn.Linear(32, 32)
    with pytest.raises(ModelError, match="gated"):
        transformer_of(vit)


def test_a_model_without_readout_is_refused() -> None:
    with pytest.raises(ModelError, match="readout"):
        transformer_of(small_vit(global_pool="", fc_norm=False))


def test_too_many_patch_tokens_are_refused() -> None:
    with torch.device("meta"):
        most = VisionTransformer(img_size=512, patch_size=8, embed_dim=32, depth=1, num_heads=2)
        over = VisionTransformer(img_size=520, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    assert transformer_of(most).model is most
    with pytest.raises(ModelError, match="4225 patch tokens"):
        transformer_of(over)


@pytest.mark.parametrize("block", [-1, 3, 12])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    vit = family("vit")
    for pruning in (FixedPruning(Score.MEAN, block, 4), AdaptivePruning(Score.MEAN, block)):
        with pytest.raises(InvalidArgument, match=f"prune_at {block} ") as caught:
            PrunableViT(vit, pruning)
        assert "0 to 2" in caught.value.hint
    with pytest.raises(InvalidArgument, match=f"prune_at {block} "):
        Student(vit, Score.MEAN, block)


@pytest.mark.parametrize("name", ["siglip", "average-register"])
def test_the_class_score_needs_a_class_token(name: str) -> None:
    for pruning in (FixedPruning(Score.CLS, 0, 4), AdaptivePruning(Score.CLS, 0)):
        with pytest.raises(InvalidArgument, match="class token"):
            check_pruning(family(name), pruning)
    with pytest.raises(InvalidArgument, match="class token"):
        Student(family(name), Score.CLS, 1)


@pytest.mark.parametrize("kept", [0, -1, 17])
def test_as_many_tokens_as_there_are_can_be_kept(kept: int) -> None:
    with pytest.raises(InvalidArgument, match=f"{kept} of 16"):
        check_pruning(family("vit"), FixedPruning(Score.MEAN, 0, kept))
