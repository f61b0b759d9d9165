"""What answers: a model at points, controls, lower resolutions, and runners, against the model itself."""

from __future__ import annotations

import copy
from decimal import Decimal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import PointChoice, PointRequest, mass_point
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.controls import (
    Control,
    DenseTorch,
    LowerResolution,
    TorchFamily,
    TorchSubject,
    resized,
    resized_preprocessing,
)
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rows import of_density, of_point, of_size
from sait_deploy.evaluation.sources import DENSE
from sait_deploy.evaluation.subjects import RunnerSubject
from sait_deploy.models.prunable_vit import PrunableViT, Traced, geometry_of
from sait_deploy.models.registry import describe
from sait_deploy.runtime import load
from sait_deploy.tokens import Score, dense_macs, pruned_macs
from tests.exported import TinyExport
from tests.tiny import (
    FAMILIES,
    HALF,
    family,
    images_for,
    importance_of,
    kept_tokens,
    plainly_adaptive,
    plainly_pruned,
    random_batch,
    small_vit,
)

PRUNE_AT = 1


def family_of(vit: VisionTransformer, score: Score = Score.MEAN) -> TorchFamily:
    """A model's family with the preprocessing that its configuration names."""
    return TorchFamily(vit, score, PRUNE_AT, describe(vit, "small", WeightsSource.MEMORY, None).preprocessing)


def batch_for(vit: VisionTransformer, count: int = 5) -> NDArray[np.float32]:
    """Random images."""
    images: NDArray[np.float32] = images_for(vit, count).numpy()
    return images


def close(found: NDArray[np.float32], wanted: torch.Tensor) -> bool:
    """Whether two forms of the same computation agree."""
    return bool(np.allclose(found, wanted.detach().numpy(), rtol=2e-4, atol=2e-4))


def test_dense_answers_as_timm_does() -> None:
    vit = small_vit()
    images = batch_for(vit)
    subject = DenseTorch(DENSE, family_of(vit))

    logits, kept = subject.answer(images)

    assert close(logits, vit(torch.from_numpy(images)))
    assert kept.tolist() == [16] * 5
    assert subject.macs(kept).tolist() == [dense_macs(geometry_of(vit))] * 5


def test_density_answers_as_blocks_on_the_most_important_tokens() -> None:
    vit = small_vit()
    images = batch_for(vit)
    subject = TorchSubject(of_density(HALF, 16), family_of(vit))

    logits, kept = subject.answer(images)

    chosen = kept_tokens(importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images)), 8)
    assert close(logits, plainly_pruned(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert kept.tolist() == [8] * 5
    assert subject.macs(kept).tolist() == [pruned_macs(geometry_of(vit), PRUNE_AT, 8)] * 5


@pytest.mark.parametrize("request_", [mass_point(0.6), PointRequest("narrow", 0.6, 7, 8)], ids=["mass", "limits"])
def test_mass_keeps_numbers_of_tokens_by_image(request_: PointRequest) -> None:
    vit = small_vit()
    images = batch_for(vit, 8)
    subject = TorchSubject(of_point(request_, 16), family_of(vit))

    logits, kept = subject.answer(images)

    importance = importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images))
    chosen = [row[0] for row in (kept_tokens(one[None], count) for one, count in zip(importance, kept, strict=True))]
    assert close(logits, plainly_adaptive(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert len(set(kept.tolist())) > 1
    point = request_.resolve(16)
    for one, count in zip(importance, kept.tolist(), strict=True):
        mass = one.sort(descending=True).values.cumsum(0)
        needed = int((mass < request_.mass).sum()) + 1
        assert count == min(max(needed, point.min_keep), point.max_keep)
    wanted = [pruned_macs(geometry_of(vit), PRUNE_AT, count) for count in kept.tolist()]
    assert subject.macs(kept).tolist() == wanted


def test_least_important_keeps_the_other_end() -> None:
    vit = small_vit()
    images = batch_for(vit)
    subject = Control(of_density(Decimal("0.25"), 16, Kind.LEAST_IMPORTANT), family_of(vit))

    logits, kept = subject.answer(images)

    importance = importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images))
    chosen = kept_tokens(-importance, 4)
    assert close(logits, plainly_pruned(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert kept.tolist() == [4] * 5


def test_least_important_does_not_take_the_importance_of_another_batch() -> None:
    vit = small_vit()
    shared, alone = family_of(vit), family_of(vit)
    one, other = batch_for(vit, 3), batch_for(vit, 5)[2:]
    point = TorchSubject(of_density(HALF, 16), shared)
    identity = of_density(HALF, 16, Kind.LEAST_IMPORTANT)

    point.answer(one)
    after_another = Control(identity, shared).answer(other)[0]
    point.answer(other)
    after_the_same = Control(identity, shared).answer(other)[0]

    wanted = Control(identity, alone).answer(other)[0]
    assert np.allclose(after_another, wanted, atol=1e-5)
    assert np.allclose(after_the_same, wanted, atol=1e-5)


def test_random_tokens_are_drawn_by_image_whatever_the_batch() -> None:
    vit = small_vit()
    images = batch_for(vit, 6)
    subject = Control(of_density(HALF, 16, Kind.RANDOM), family_of(vit))

    whole, kept = subject.answer(images)
    parts = [subject.answer(images[start : start + 4], start)[0] for start in (0, 4)]
    another = Control(of_density(HALF, 16, Kind.RANDOM), family_of(vit), seed=1).answer(images)[0]
    same_image = subject.answer(np.repeat(images[:1], 6, axis=0))[0]

    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)
    assert kept.tolist() == [8] * 6
    assert not np.allclose(another, whole, atol=1e-3)
    assert not np.allclose(same_image[0], same_image[1], atol=1e-3)
    dense = DenseTorch(DENSE, family_of(vit)).answer(images)[0]
    assert not np.allclose(whole, dense, atol=1e-3)


def test_random_tokens_are_all_of_the_image_sooner_or_later(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = small_vit(reg_tokens=2)
    control, forced = Control(of_density(HALF, 16, Kind.RANDOM), family_of(vit)), []
    trace = PrunableViT.trace

    def recording(model: PrunableViT, images: torch.Tensor, *, keep: torch.Tensor) -> Traced:
        forced.append(keep)
        return trace(model, images, keep=keep)

    monkeypatch.setattr(PrunableViT, "trace", recording)
    for first in (0, 50):
        control.answer(batch_for(vit, 50), first)

    keep = torch.cat(forced)
    counts = keep.sum(0).tolist()
    assert keep.sum(1).tolist() == [3 + 8] * 100
    assert counts[:3] == [100] * 3
    assert 30 <= min(counts[3:]) <= max(counts[3:]) <= 70


@pytest.mark.parametrize(
    "identity",
    [of_density(HALF, 16), of_point(mass_point(0.6), 16), DENSE],
    ids=["a density", "a mass", "dense"],
)
def test_what_is_no_control_is_refused(identity: object) -> None:
    with pytest.raises(InvalidArgument, match="cannot be a control"):
        Control(identity, family_of(small_vit()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_lower_resolution_is_timms_model_of_that_size(name: str) -> None:
    vit = family(name)
    before = {key: value.clone() for key, value in vit.state_dict().items()}
    patch = vit.patch_embed.patch_size
    size = (vit.patch_embed.img_size[0] - patch[0], vit.patch_embed.img_size[1] - patch[1])
    subject = LowerResolution(of_size(size), family_of(vit), size)
    images = random_batch((2, 3, *size))

    logits, kept = subject.answer(images)

    wanted = copy.deepcopy(vit)
    wanted.set_input_size(img_size=size)
    assert close(logits, wanted(torch.from_numpy(images)))
    patches = wanted.patch_embed.num_patches
    assert kept.tolist() == [patches, patches]
    assert subject.macs(kept).tolist() == [dense_macs(geometry_of(wanted))] * 2
    assert subject.preprocessing.image_size == size
    assert all(torch.equal(value, before[key]) for key, value in vit.state_dict().items())
    assert vit.patch_embed.img_size != size


def test_lower_resolution_shares_all_weights_but_the_position_embedding() -> None:
    vit = small_vit()

    smaller = resized(vit, (16, 16))

    own = {name for name, parameter in smaller.named_parameters() if parameter is not vit.get_parameter(name)}
    assert own == {"pos_embed"}
    assert not smaller.training


@pytest.mark.parametrize("size", [(20, 24), (24, 20), (0, 8)])
def test_a_size_of_broken_patches_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument, match="no multiple of the patch size 8 x 8"):
        resized(small_vit(), size)


def test_smaller_images_show_as_much() -> None:
    """The share of the resized image that the crop keeps is the same."""
    vit = small_vit(img_size=224)
    vit.pretrained_cfg = {"crop_pct": 0.9}
    whole = describe(vit, "small", WeightsSource.MEMORY, None).preprocessing

    smaller = resized_preprocessing(whole, (160, 160))

    assert whole.resize == (248, 248)
    assert smaller.resize == (177, 177)
    assert (smaller.image_size, smaller.mean, smaller.crop_mode) == ((160, 160), whole.mean, whole.crop_mode)


def test_runner_answers_as_it_runs(tiny: TinyExport) -> None:
    runner = load(tiny.half, "onnxruntime")
    images = random_batch((3, 3, 96, 96))
    subject = RunnerSubject(of_density(HALF, 36), runner)

    logits, kept = subject.answer(images)

    output = runner.run(images)
    assert np.array_equal(logits, output.logits)
    assert kept.tolist() == output.kept.tolist() == [18, 18, 18]
    assert subject.macs(kept).tolist() == [tiny.half.manifest.macs.per_image] * 3
    assert subject.preprocessing == tiny.half.manifest.preprocessing


def test_runner_is_asked_at_its_point(tiny: TinyExport) -> None:
    runner = load(tiny.half, "onnxruntime")
    subject = RunnerSubject(of_density(HALF, 36), runner, PointChoice(mass=1.0, min_keep=7, max_keep=7))

    with pytest.raises(InvalidArgument, match="its operating point is fixed"):
        subject.answer(random_batch((1, 3, 96, 96)))


def test_runner_of_a_few_batch_sizes_is_asked_in_parts(tiny: TinyExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine that was built for two to four images is."""
    runner = load(tiny.dense, "onnxruntime")
    monkeypatch.setattr(type(runner), "batch_range", property(lambda _: (2, 4)))
    subject = RunnerSubject(DENSE, runner)

    for count in (1, 4, 5, 9):
        images = random_batch((count, 3, 96, 96))
        logits, kept = subject.answer(images)
        assert np.allclose(logits, runner.run(images).logits, atol=1e-5)
        assert kept.tolist() == [36] * count
