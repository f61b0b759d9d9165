"""Densities as exact decimals, and MACs against a count of what torch really multiplies."""

from __future__ import annotations

import copy
import math
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from sait_deploy.errors import InvalidArgument
from sait_deploy.models import layouts
from sait_deploy.models.families import transformer_of
from sait_deploy.models.prunable_vit import PrunableViT, geometry_of
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.plugins.packed_attention.torch_op import packed_attention
from sait_deploy.plugins.uniform_attention.torch_op import uniform_attention
from sait_deploy.tokens import (
    OperatingPoint,
    Score,
    default_prune_at,
    dense_macs,
    density_point,
    kept_at_density,
    parse_density,
    pruned_macs,
)
from tests.tiny import FAMILIES, Model, family, images_for

_MOST_PATCHES: Final = 4096
_DECIMALS: Final = 15
"""As many as a density may have."""


@st.composite
def densities(draw: st.DrawFn) -> str:
    """Decimal texts of values in (0, 1], trailing zeros included."""
    places = draw(st.integers(1, _DECIMALS))
    steps = draw(st.integers(1, 10**places))
    return f"{steps // 10**places}.{steps % 10**places:0{places}}"


@given(densities(), st.integers(1, _MOST_PATCHES))
def test_kept_is_the_exact_ceiling(text: str, patches: int) -> None:
    density = parse_density(text)
    assert kept_at_density(density, patches) == math.ceil(Fraction(text) * patches)


@given(densities())
def test_parsing_keeps_the_value_and_drops_trailing_zeros(text: str) -> None:
    density = parse_density(text)
    assert Fraction(density) == Fraction(text)
    assert density == 1 or not f"{density:f}".endswith("0")


@pytest.mark.parametrize(
    ("text", "patches", "kept"),
    [("0.07", 100, 7), ("0.6", 196, 118), ("0.5", 144, 72), ("1", 196, 196), ("1e-3", 196, 1), ("0.29", 100, 29)],
)
def test_known_counts(text: str, patches: int, kept: int) -> None:
    assert kept_at_density(parse_density(text), patches) == kept


@given(densities(), st.integers(1, _MOST_PATCHES))
def test_a_density_point_keeps_the_same_number_for_every_image(text: str, patches: int) -> None:
    density = parse_density(text)
    kept = kept_at_density(density, patches)
    assert density_point(density, patches) == OperatingPoint(mass=1.0, min_keep=kept, max_keep=kept)
    assert 1 <= kept <= patches


@pytest.mark.parametrize("text", ["1.0", "1.00", "1", "10e-1"])
def test_one_has_one_form(text: str) -> None:
    assert f"{parse_density(text):f}" == "1"


@pytest.mark.parametrize(
    "text", ["0", "-0", "0.0", "1.1", "1.0000001", "-0.5", "nan", "snan", "inf", "-inf", "abc", "", "0,6", "60%", "½"]
)
def test_what_is_no_density_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_density(text)
    assert text in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["0." + "3" * 40, "0." + "9" * 40, "1e-400", "1e-999999999", "0." + "0" * 36 + "1"])
def test_more_decimals_than_can_be_exact_are_refused_rather_than_rounded(text: str) -> None:
    with pytest.raises(InvalidArgument, match="decimals"):
        parse_density(text)


def test_zeros_at_the_end_are_no_decimals() -> None:
    assert f"{parse_density('0.5' + '0' * 60):f}" == "0.5"


@pytest.mark.parametrize(("depth", "block"), [(12, 3), (6, 1), (3, 0), (24, 6), (1, 0)])
def test_the_first_quarter_is_left_whole(depth: int, block: int) -> None:
    assert default_prune_at(depth) == block


@pytest.fixture(autouse=True)
def _attention_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention operators' own code in place of the operators, inside which torch does not count."""
    for operator in (uniform_attention, packed_attention):
        monkeypatch.setattr(layouts, operator._name, operator._init_fn)


def counted_macs(module: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates that torch's own operators did for one image."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def turning_macs(vit: Model, prune_at: int, kept: int) -> int:
    """What turning channels of queries and keys costs as a product: that is none of the model's."""
    if getattr(vit, "rope", None) is None:
        return 0
    total = 0
    for number, block in enumerate(vit.blocks):
        heads = block.attn.num_heads + getattr(block.attn, "num_kv_heads", block.attn.num_heads)
        patches = vit.patch_embed.num_patches if number <= prune_at else kept
        total += (vit.num_prefix_tokens + patches) * heads * block.attn.head_dim**2
    return total


@pytest.mark.parametrize("name", FAMILIES)
def test_macs_are_those_torch_does(name: str) -> None:
    vit = family(name)
    geometry, images = geometry_of(vit), images_for(vit, 1)
    pools_prefix = transformer_of(vit).pools_prefix()  # type: ignore[attr-defined]
    # Projections are the mean of all blocks, which differ in one model.
    inexact = geometry.attention_macs_per_token * geometry.tokens if "grouped" in name else 0
    dense = dense_macs(geometry) + turning_macs(vit, geometry.depth, 0)
    assert counted_macs(PrunableViT(vit, None), images) == dense
    for prune_at, kept in ((0, 1), (1, 5), (2, geometry.patch_tokens)):
        module = PrunableViT(vit, FixedPruning(Score.MEAN, prune_at, kept))
        expected = pruned_macs(geometry, prune_at, kept) + turning_macs(vit, prune_at, kept)
        assert counted_macs(module, images) == pytest.approx(expected, abs=inexact), (prune_at, kept)
        adaptive = PrunableViT(vit, AdaptivePruning(Score.MEAN, prune_at))
        limits = torch.tensor([[kept, kept]], dtype=torch.int32)
        # Packed rows are projected for pooling before the prefix tokens among them are passed over.
        passed = 0 if vit.attn_pool is None or pools_prefix else vit.attn_pool.kv.weight.numel()
        over_patches = getattr(vit, "aux_head", None)
        passed += 0 if over_patches is None else over_patches.weight.numel()
        expected += geometry.prefix_tokens * passed
        assert counted_macs(adaptive, images, torch.ones(1), limits) == pytest.approx(expected, abs=inexact)


@pytest.mark.parametrize("name", ["vit", "deit-distilled", "siglip", "dinov2-registers-swiglu"])
def test_dense_macs_are_those_of_timms_own_forward(name: str) -> None:
    vit = copy.deepcopy(family(name))
    for module in vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # torch does not count inside its fused attention on every processor
    assert counted_macs(vit, images_for(vit, 1)) == dense_macs(geometry_of(vit))


@pytest.fixture(scope="module")
def deit_s() -> VisionTransformer:
    """DeiT-S without storage for its weights."""
    with torch.device("meta"):
        return timm.create_model("deit_small_patch16_224")


def test_deit_s_dense_is_4_6_gmacs(deit_s: VisionTransformer) -> None:
    assert dense_macs(geometry_of(deit_s)) / 1e9 == pytest.approx(4.6, abs=0.02)


@pytest.mark.parametrize(("density", "ratio"), [("0.7", 1.28), ("0.6", 1.41), ("0.5", 1.58), ("0.4", 1.77)])
def test_deit_s_ratios_in_block_3(deit_s: VisionTransformer, density: str, ratio: float) -> None:
    geometry = geometry_of(deit_s)
    kept = kept_at_density(Decimal(density), geometry.patch_tokens)
    assert round(dense_macs(geometry) / pruned_macs(geometry, 3, kept), 2) == ratio


def test_keeping_everything_costs_what_dense_costs(deit_s: VisionTransformer) -> None:
    geometry = geometry_of(deit_s)
    for block in range(geometry.depth):
        assert pruned_macs(geometry, block, geometry.patch_tokens) == dense_macs(geometry)


def test_fewer_tokens_and_earlier_blocks_cost_less(deit_s: VisionTransformer) -> None:
    geometry = geometry_of(deit_s)
    by_kept = [pruned_macs(geometry, 3, kept) for kept in range(1, geometry.patch_tokens + 1)]
    assert by_kept == sorted(set(by_kept))
    by_block = [pruned_macs(geometry, block, 98) for block in range(geometry.depth)]
    assert by_block == sorted(set(by_block))
