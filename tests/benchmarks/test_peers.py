"""The other methods: against plain forms of what the papers say, image by image, and against the toolkit's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from benchmarks.peers import Fused, Keeps, Merges, Merging, Padded, chain_macs
from sait_deploy.models.prunable_vit import PrunableViT, geometry_of
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.tokens import Geometry, Score, dense_macs, pruned_macs
from tests.tiny import family, images_for, small_vit

GEOMETRY = geometry_of(small_vit(depth=4))


@given(st.integers(0, 3), st.integers(1, GEOMETRY.patch_tokens))
def test_the_cost_of_a_chain_is_that_of_pruning_once(prune_at: int, kept: int) -> None:
    full, rest = GEOMETRY.tokens, GEOMETRY.prefix_tokens + kept
    attended = [full if block <= prune_at else rest for block in range(GEOMETRY.depth)]
    fed = [full if block < prune_at else rest for block in range(GEOMETRY.depth)]
    assert chain_macs(GEOMETRY, attended, fed) == pruned_macs(GEOMETRY, prune_at, kept)


@given(st.floats(0.1, 1.0))
def test_merges_are_the_fewest_that_save_so_much(share: float) -> None:
    macs = share * dense_macs(GEOMETRY)
    found = Merges.of_macs(GEOMETRY, macs)
    if found is None:
        assert Merges(halves(GEOMETRY)).macs(GEOMETRY) > macs
        return
    assert found.macs(GEOMETRY) <= macs
    assert share < 1 or sum(found.merged) == 0
    patches = GEOMETRY.patch_tokens
    for merged in found.merged:
        assert merged <= patches // 2
        patches -= merged
    last = max((block for block, merged in enumerate(found.merged) if merged), default=None)
    if last is not None:
        fewer = [merged - (block == last) for block, merged in enumerate(found.merged)]
        assert Merges(tuple(fewer)).macs(GEOMETRY) > macs or max(found.merged) - found.merged[last] > 0


def halves(geometry: Geometry) -> tuple[int, ...]:
    merged, patches = [], geometry.patch_tokens
    for _ in range(geometry.depth):
        merged.append(patches // 2)
        patches -= merged[-1]
    return tuple(merged)


@given(st.floats(0.1, 1.0))
def test_kept_shares_are_the_largest_that_save_so_much(share: float) -> None:
    macs = share * dense_macs(GEOMETRY)
    found = Keeps.of_macs(GEOMETRY, macs)
    if found is None:
        assert Keeps.of_share(GEOMETRY, 0.001).macs(GEOMETRY) > macs
    else:
        assert [block for block, _ in found.kept] == [1, 2, 3]
        assert found.macs(GEOMETRY) <= macs


def plain_attention(vit: VisionTransformer, block: int, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One image's tokens [S, D] after a block's attention, the attention [H, S, S], and the keys [H, S, Dh]."""
    attn = vit.blocks[block].attn
    q, k, v = attn.qkv(vit.blocks[block].norm1(x)).reshape(len(x), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    weights = torch.softmax(q @ k.transpose(1, 2) * attn.scale + size.log(), dim=-1)
    return x + attn.proj((weights @ v).transpose(0, 1).flatten(1)), weights, k


def plainly_merged(vit: VisionTransformer, images: Tensor, merged: tuple[int, ...]) -> Tensor:
    """Bipartite soft matching by loops over tokens: even ones but the class token may merge into odd ones."""
    logits = []
    for tokens in vit._pos_embed(vit.patch_embed(images)):
        x = tokens
        size = torch.ones(len(x))
        for block, number in enumerate(merged):
            x, _, keys = plain_attention(vit, block, x, size)
            metric = torch.nn.functional.normalize(keys.mean(0), dim=-1)
            even, odd = range(2, len(x), 2), range(1, len(x), 2)
            best = {i: max(odd, key=lambda j, i=i: float(metric[i] @ metric[j])) for i in even}  # type: ignore[misc]
            ranked = sorted(even, key=lambda i: -float(metric[i] @ metric[best[i]]))
            leaving = ranked[:number]
            groups = [[i] for i in (0, *ranked[number:])]
            groups += [[j, *(i for i in leaving if best[i] == j)] for j in odd]
            x = torch.stack([(x[g] * size[g, None]).sum(0) / size[g].sum() for g in groups])
            size = torch.stack([size[g].sum() for g in groups])
            x = x + vit.blocks[block].mlp(vit.blocks[block].norm2(x))
        logits.append(vit.forward_head(vit.norm(x)[None])[0])
    return torch.stack(logits)


def plainly_fused(vit: VisionTransformer, images: Tensor, keeps: Keeps) -> Tensor:
    """The most attended patch tokens of each image, and the sum of the others weighted by their attention."""
    logits, kept = [], dict(keeps.kept)
    for tokens in vit._pos_embed(vit.patch_embed(images)):
        x = tokens
        for block in range(len(vit.blocks)):
            x, weights, _ = plain_attention(vit, block, x, torch.ones(len(x)))
            if block in kept:
                seen = weights[:, 0, 1:].mean(0)
                order = seen.argsort(descending=True)
                stay, leave = order[: kept[block]], order[kept[block] :]
                x = torch.cat([x[:1], x[1:][stay], (x[1:][leave] * seen[leave, None]).sum(0, keepdim=True)])
            x = x + vit.blocks[block].mlp(vit.blocks[block].norm2(x))
        logits.append(vit.forward_head(vit.norm(x)[None])[0])
    return torch.stack(logits)


@pytest.mark.parametrize("merged", [(0, 0, 0), (3, 3, 2), (8, 4, 2), (5, 0, 1)])
def test_merging_is_bipartite_soft_matching(merged: tuple[int, ...]) -> None:
    vit = small_vit()
    images = images_for(vit)
    with torch.no_grad():
        (found,) = Merging(vit, Merges(merged))(images)
        torch.testing.assert_close(found, plainly_merged(vit, images, merged), rtol=1e-4, atol=1e-4)
        if not any(merged):
            torch.testing.assert_close(found, vit(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_the_fused_token_is_the_others_by_their_attention(share: float) -> None:
    vit = small_vit(depth=4)
    images, keeps = images_for(vit), Keeps.of_share(GEOMETRY, share)
    with torch.no_grad():
        (found,) = Fused(vit, keeps)(images)
        torch.testing.assert_close(found, plainly_fused(vit, images, keeps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["deit", "average-no-class-token", "map-with-prefix"])
def test_padding_answers_as_packing_does(name: str) -> None:
    vit = family(name)
    images = images_for(vit, 4)
    patches = geometry_of(vit).patch_tokens
    mass = torch.tensor([0.3, 1.0, 0.7, 0.5])
    limits = torch.tensor([[1, patches], [1, 3], [2, patches], [patches, patches]], dtype=torch.int32)
    with torch.no_grad():
        found, counts = Padded(vit, Score.MEAN, 1)(images, mass, limits)
        wanted, kept = PrunableViT(vit, AdaptivePruning(Score.MEAN, 1))(images, mass, limits)
    np.testing.assert_array_equal(counts.numpy(), kept.numpy())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
