"""A model in the form for a GPU, in float32 on a processor: every family's own answers, with rows to spare too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sait_deploy.models.flash_vit import FlashViT, Seam
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime.cuda_graphs import compiled_by_size
from sait_deploy.tokens import Score
from tests.tiny import FAMILIES, FAMILY_SCORES, exactly, family, images_for, relative_difference

TOLERANCE = 2e-4
COUNTS = (3, 16, 1, 9)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


def flash(name: str, pruning: Pruning | None) -> FlashViT:
    vit = FlashViT(family(name), pruning, torch.float32)
    vit.prepare(images_for(family(name), count=1))
    return vit


def seam_of(name: str, score: Score, limits: torch.Tensor) -> tuple[FlashViT, torch.Tensor, Seam]:
    images, vit = images_for(family(name), count=len(limits)), flash(name, AdaptivePruning(score, 1))
    return vit, images, vit.stem(images, torch.full((len(limits),), 0.6), limits)


@pytest.mark.parametrize(("name", "score"), FAMILY_SCORES)
def test_stem_and_trunk_answer_as_the_model_does(name: str, score: Score) -> None:
    """Importance is that of the attention weights, though none are made, and selection is the reference's of it."""
    limits = torch.tensor([[1, family(name).patch_embed.num_patches]] * len(COUNTS), dtype=torch.int32)
    vit, images, seam = seam_of(name, score, limits)
    prefix = vit.model.prefix
    wanted = PrunableViT(family(name), AdaptivePruning(score, 1)).trace(
        images, torch.full((len(COUNTS),), 0.6), limits, keep=seam.keep
    )
    assert wanted.importance is not None
    torch.testing.assert_close(seam.importance, wanted.importance, rtol=1e-4, atol=1e-6)
    mass = torch.full((len(COUNTS),), 0.6).numpy()
    keep, counts = mass_token_select(seam.importance.numpy(), mass, limits.numpy(), prefix)
    assert (seam.keep.tolist(), seam.counts.tolist()) == (keep.tolist(), counts.tolist())
    total = int(seam.cu_seqlens[-1])
    assert relative_difference(vit.trunk(seam, seam.rows[:total]), wanted.logits) < TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("spare", [1, 8, None])
def test_rows_to_spare_change_no_answer(name: str, spare: int | None) -> None:
    """They hold the rows of dropped tokens; what attention gives them is NaN here, and no image reads it."""
    vit, _, seam = seam_of(name, Score.MEAN, exactly(COUNTS))
    total = int(seam.cu_seqlens[-1])
    assert total == sum(COUNTS) + len(COUNTS) * vit.model.prefix
    wanted = vit.trunk(seam, seam.rows[:total])
    found = vit.trunk(seam, seam.rows if spare is None else seam.rows[: total + spare])
    assert relative_difference(found, wanted) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_dense_and_a_fixed_number_answer_as_the_model_does(name: str) -> None:
    images = images_for(family(name))
    for pruning in (None, FixedPruning(Score.MEAN, 1, 5)):
        found, model = flash(name, pruning).whole(images), PrunableViT(family(name), pruning)
        wanted = model.trace(images, keep=found.keep)
        assert relative_difference(found.logits, wanted.logits) < TOLERANCE
        assert (found.counts is None) == (pruning is None)


def test_importance_that_is_not_a_number_leaves_no_answer() -> None:
    vit, _, seam = seam_of("deit", Score.MEAN, exactly(COUNTS))
    importance = seam.importance.clone()
    importance[2] = float("nan")
    logits = vit.trunk(seam._replace(importance=importance), seam.rows)
    assert logits.isnan().all(dim=1).tolist() == [False, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit", "siglip", "dinov3"])
def test_it_is_compiled_without_a_break_and_once_for_all_numbers_of_rows(name: str) -> None:
    """As on a GPU, up to the code that is generated: torch traces the functions and runs their fake kernels."""
    graphs: list[Any] = []

    def counting(module: Any, inputs: Any) -> Any:
        graphs.append(module)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    torch._dynamo.reset()
    limits = exactly(COUNTS)
    vit, images, seam = seam_of(name, Score.MEAN, limits)
    dense, fixed = flash(name, None), flash(name, FixedPruning(Score.MEAN, 1, 5))
    stem, trunk = (compiled_by_size(part, backend=counting) for part in (vit.stem, vit.trunk))
    found = stem(images, torch.full((len(COUNTS),), 0.6), limits)
    assert torch.equal(found.keep, seam.keep)
    total = int(seam.cu_seqlens[-1])
    for rows in (total, total + 3, len(seam.rows)):
        first = seam.rows[:rows]
        torch._dynamo.mark_dynamic(first, 0)
        assert relative_difference(trunk(seam, first), vit.trunk(seam, seam.rows[:total])) < 1e-5
    for form in (fixed.whole, dense.whole, dense.plain):
        compiled_by_size(form, backend=counting)(images)
    assert len(graphs) == 5
