"""Models that users changed in memory: what export carries, and what it names and refuses."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ModelError
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.registry import LoadedModel, describe
from tests.tiny import family, images_for, small_vit

Change = Callable[[VisionTransformer], object]


def described(vit: nn.Module) -> LoadedModel:
    return describe(vit, "mine", WeightsSource.MEMORY, None)


def test_classes_are_counted_on_the_logits_of_a_replaced_head() -> None:
    heads: list[tuple[nn.Module, int]] = [
        (nn.Linear(32, 3), 3),
        (nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 5)), 5),
        (nn.Identity(), 0),
    ]
    for head, classes in heads:
        vit = small_vit()
        vit.head = head
        loaded = described(vit)
        assert loaded.info.classes == classes
        assert loaded.info.geometry.readout_macs == sum(
            m.weight.numel() for m in head.modules() if type(m) is nn.Linear
        )
        images = images_for(vit)
        with torch.no_grad():
            (logits,) = PrunableViT(loaded.vit, None)(images)
            np.testing.assert_allclose(logits, vit(images), rtol=1e-4, atol=1e-5)
    vit = small_vit(num_classes=0)
    vit.head = nn.Linear(32, 4)
    assert described(vit).info.classes == 4


def test_both_heads_of_a_distilled_model_are_replaced_or_none() -> None:
    vit = copy.deepcopy(family("deit-distilled"))
    width = vit.embed_dim
    vit.head = nn.Linear(width, 3)
    with pytest.raises(ModelError, match=r"head has 3 classes, and head_dist, .* has 1000"):
        described(vit)
    vit.head_dist = nn.Linear(width, 3)
    assert described(vit).info.classes == 3


def test_a_head_that_returns_no_logits_is_refused() -> None:
    vit = small_vit()
    vit.head = nn.Unflatten(1, (4, 8))
    with pytest.raises(ModelError, match="returns no logits"):
        described(vit)


def hook(module: nn.Module, *_: Any) -> None:
    """Changes nothing: whether one does cannot be seen."""


def doubled(self: Any, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return 2 * x


def set_own_forward(vit: VisionTransformer) -> None:
    vit.blocks[2].forward = types.MethodType(doubled, vit.blocks[2])  # type: ignore[method-assign]


CHANGES: list[tuple[Change, str]] = [
    (lambda vit: vit.blocks[1].register_forward_hook(hook), "blocks.1 has a forward hook"),
    (lambda vit: vit.register_forward_pre_hook(hook), "the model has a forward pre-hook"),
    (lambda vit: prune.l1_unstructured(vit.head, "weight", 0.5), "head has a forward pre-hook"),
    (lambda vit: parametrizations.weight_norm(vit.blocks[0].mlp.fc1), "weight of blocks.0.mlp.fc1 is parametrized"),
    (set_own_forward, "forward of blocks.2 was replaced by a function"),
    (lambda vit: vit.half(), "cls_token is float16"),
    (lambda vit: vit.double(), "cls_token is float64"),
    (lambda vit: vit.blocks[1].bfloat16(), "blocks.1.norm1.weight is bfloat16"),
    (lambda vit: vit.to("meta"), "cls_token is on the meta device"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_what_export_does_not_carry_is_named(change: Change, said: str) -> None:
    vit = small_vit()
    change(vit)
    with pytest.raises(ModelError) as refused:
        described(vit)
    assert refused.value.message.startswith(said)
    assert refused.value.hint


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_model_and_one_without_a_head_are_refused() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(small_vit().eval(), {nn.Linear})
    with pytest.raises(ModelError, match=r"blocks\.0\.attn\.qkv is quantised"):
        described(quantised)
    headless = small_vit()
    headless.head = None
    with pytest.raises(ModelError, match="the head is None, no module"):
        described(headless)


@pytest.mark.parametrize(("wrap", "attribute"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_a_wrapped_model_is_told_from_another(wrap: Callable[[nn.Module], nn.Module], attribute: str) -> None:
    with pytest.raises(ModelError, match="cannot be pruned") as refused:
        described(wrap(small_vit()))
    assert refused.value.hint == f"give the model inside of it: its attribute {attribute}"


def test_models_of_one_channel_are_refused() -> None:
    with pytest.raises(ModelError, match="images with 2 channels") as refused:
        described(small_vit(in_chans=2))
    assert "in_chans=3" in refused.value.hint
