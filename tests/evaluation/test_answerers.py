"""What answers: a model in memory at points, controls and smaller sizes, and runners, against the model itself."""

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
from sait_deploy.evaluation.answerers import Answerer, Control
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rows import of_density, of_point, of_size
from sait_deploy.evaluation.sources import DENSE, ModelSource
from sait_deploy.models.prunable_vit import geometry_of
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import describe
from sait_deploy.runtime import Output, RunOptions, load
from sait_deploy.runtime.torch import ModelInMemory, TorchRunner
from sait_deploy.tokens import Score, dense_macs, pruned_macs
from tests.exported import TinyExport
from tests.tiny import (
    FAMILIES,
    HALF,
    family,
    images_for,
    importance_of,
    kept_tokens,
    plainly_pruned,
    random_batch,
    small_vit,
)

PRUNE_AT = 1
ONE_THREAD = RunOptions(threads=1)


def model_of(vit: VisionTransformer) -> ModelSource:
    """A model in memory, pruned by the mean score."""
    return ModelSource(describe(vit, "small", WeightsSource.MEMORY, None), (Score.MEAN, PRUNE_AT), ONE_THREAD)


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
    answerer = model_of(vit).dense()

    output = answerer.answer(images)

    assert close(output.logits, vit(torch.from_numpy(images)))
    assert output.kept.tolist() == [16] * 5
    assert answerer.macs(output.kept).tolist() == [dense_macs(geometry_of(vit))] * 5


def test_density_answers_as_blocks_on_the_most_important_tokens() -> None:
    vit = small_vit()
    images = batch_for(vit)
    answerer = model_of(vit).at(of_density(HALF, 16))

    output = answerer.answer(images)

    chosen = kept_tokens(importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images)), 8)
    assert close(output.logits, plainly_pruned(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert output.kept.tolist() == [8] * 5
    assert answerer.macs(output.kept).tolist() == [pruned_macs(geometry_of(vit), PRUNE_AT, 8)] * 5


@pytest.mark.parametrize("request_", [mass_point(0.6), PointRequest("narrow", 0.6, 7, 8)], ids=["mass", "limits"])
def test_mass_keeps_numbers_of_tokens_by_image(request_: PointRequest) -> None:
    vit = small_vit()
    images = batch_for(vit, 8)
    answerer = model_of(vit).at(of_point(request_, 16))

    output = answerer.answer(images)

    kept, importance = output.kept, importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images))
    chosen = [row[0] for row in (kept_tokens(one[None], count) for one, count in zip(importance, kept, strict=True))]
    assert close(output.logits, plainly_pruned(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert len(set(kept.tolist())) > 1
    point = request_.resolve(16)
    for one, count in zip(importance, kept.tolist(), strict=True):
        mass = one.sort(descending=True).values.cumsum(0)
        needed = int((mass < request_.mass).sum()) + 1
        assert count == min(max(needed, point.min_keep), point.max_keep)
    wanted = [pruned_macs(geometry_of(vit), PRUNE_AT, count) for count in kept.tolist()]
    assert answerer.macs(kept).tolist() == wanted


def test_least_important_keeps_the_other_end() -> None:
    vit = small_vit()
    images = batch_for(vit)

    output = model_of(vit).control(of_density(Decimal("0.25"), 16, Kind.LEAST_IMPORTANT)).answer(images)

    chosen = kept_tokens(-importance_of(vit, PRUNE_AT, Score.MEAN, torch.from_numpy(images)), 4)
    assert close(output.logits, plainly_pruned(vit, torch.from_numpy(images), PRUNE_AT, chosen))
    assert output.kept.tolist() == [4] * 5


def test_least_important_does_not_take_the_importance_of_another_batch() -> None:
    vit = small_vit()
    model, one, other = model_of(vit), batch_for(vit, 3), batch_for(vit, 5)[2:]
    density, control = model.at(of_density(HALF, 16)), model.control(of_density(HALF, 16, Kind.LEAST_IMPORTANT))

    density.answer(one)
    after_another = control.answer(other).logits
    density.answer(other)
    after_the_same = control.answer(other).logits

    wanted = model_of(vit).control(control.identity).answer(other).logits
    assert np.allclose(after_another, wanted, atol=1e-5)
    assert np.allclose(after_the_same, wanted, atol=1e-5)


def test_random_tokens_are_drawn_by_image_whatever_the_batch() -> None:
    vit = small_vit()
    images, model = batch_for(vit, 6), model_of(vit)
    control = model.control(of_density(HALF, 16, Kind.RANDOM))
    assert isinstance(control, Control)

    whole = control.answer(images)
    parts = [control.answer(images[start : start + 4], start).logits for start in (0, 4)]
    another = Control(control.identity, control.runner, seed=1).answer(images).logits
    same_image = control.answer(np.repeat(images[:1], 6, axis=0)).logits

    assert np.allclose(np.concatenate(parts), whole.logits, atol=1e-5)
    assert whole.kept.tolist() == [8] * 6
    assert not np.allclose(another, whole.logits, atol=1e-3)
    assert not np.allclose(same_image[0], same_image[1], atol=1e-3)
    assert not np.allclose(whole.logits, model.dense().answer(images).logits, atol=1e-3)


class Recording(TorchRunner):
    """A runner in torch that remembers what it was to keep."""

    def __init__(self, vit: VisionTransformer, kept: int) -> None:
        loaded = describe(vit, "small", WeightsSource.MEMORY, None)
        super().__init__(ModelInMemory(loaded, FixedPruning(Score.MEAN, PRUNE_AT, kept)), ONE_THREAD)
        self.forced: list[NDArray[np.int32]] = []

    def run_keeping(self, images: NDArray[np.float32], keep: NDArray[np.int32]) -> Output:
        self.forced.append(keep)
        return super().run_keeping(images, keep)


def test_random_tokens_are_all_of_the_image_sooner_or_later() -> None:
    vit = small_vit(reg_tokens=2)
    runner = Recording(vit, 8)
    control = Control(of_density(HALF, 16, Kind.RANDOM), runner)

    for first in (0, 50):
        control.answer(batch_for(vit, 50), first)

    keep = np.concatenate(runner.forced)
    counts = keep.sum(0).tolist()
    assert keep.sum(1).tolist() == [3 + 8] * 100
    assert counts[:3] == [100] * 3
    assert 30 <= min(counts[3:]) <= max(counts[3:]) <= 70


@pytest.mark.parametrize("name", FAMILIES)
def test_smaller_images_are_answered_by_timms_model_of_that_size(name: str) -> None:
    vit = family(name)
    before = {key: value.clone() for key, value in vit.state_dict().items()}
    patch = vit.patch_embed.patch_size
    size = (vit.patch_embed.img_size[0] - patch[0], vit.patch_embed.img_size[1] - patch[1])
    answerer = model_of(vit).on_smaller_images(of_size(size), size)
    images = random_batch((2, 3, *size))

    output = answerer.answer(images)

    wanted = copy.deepcopy(vit)
    wanted.set_input_size(img_size=size)
    assert close(output.logits, wanted(torch.from_numpy(images)))
    patches = wanted.patch_embed.num_patches
    assert output.kept.tolist() == [patches, patches]
    assert answerer.macs(output.kept).tolist() == [dense_macs(geometry_of(wanted))] * 2
    assert answerer.runner.description.preprocessing.image_size == size
    assert all(torch.equal(value, before[key]) for key, value in vit.state_dict().items())
    assert vit.patch_embed.img_size != size


def test_an_artifact_answers_as_it_runs(tiny: TinyExport) -> None:
    runner = load(tiny.half, "onnxruntime")
    images = random_batch((3, 3, 96, 96))
    answerer = Answerer(of_density(HALF, 36), runner)

    found, output = answerer.answer(images), runner.run(images)

    assert np.array_equal(found.logits, output.logits)
    assert found.kept.tolist() == output.kept.tolist() == [18, 18, 18]
    assert answerer.macs(found.kept).tolist() == [tiny.half.manifest.macs.per_image] * 3


def test_an_artifact_is_asked_at_the_point_chosen(tiny: TinyExport) -> None:
    runner = load(tiny.half, "onnxruntime")
    answerer = Answerer(of_density(HALF, 36), runner, PointChoice(mass=1.0, min_keep=7, max_keep=7))

    with pytest.raises(InvalidArgument, match="its operating point is fixed"):
        answerer.answer(random_batch((1, 3, 96, 96)))


def test_a_runner_of_a_few_batch_sizes_is_asked_in_parts(tiny: TinyExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine that was built for two to four images is."""
    runner = load(tiny.dense, "onnxruntime")
    monkeypatch.setattr(type(runner), "batch_range", property(lambda _: (2, 4)))
    answerer = Answerer(DENSE, runner)

    for count in (1, 4, 5, 9):
        images = random_batch((count, 3, 96, 96))
        output = answerer.answer(images)
        assert np.allclose(output.logits, runner.run(images).logits, atol=1e-5)
        assert output.kept.tolist() == [36] * count


def test_answerers_of_a_model_run_its_first_blocks_once_for_a_batch_and_answer_as_if_each_were_alone() -> None:
    vit, calls = small_vit(), 0
    images = batch_for(vit)
    asked = [of_density(Decimal("0.5"), 16), of_density(Decimal("0.2"), 16), of_point(mass_point(0.7), 16)]
    alone = [Answerer(DENSE, model_of(vit).dense().runner), *(model_of(vit).at(one) for one in asked)]
    expected = [one.answer(images) for one in alone]
    source = model_of(vit)
    together = [source.dense(), *map(source.at, asked), source.control(of_density(Decimal("0.5"), 16, Kind.RANDOM))]

    def counted(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = vit.patch_embed.register_forward_hook(counted)
    spared = together[0].runner.spared_seconds
    found = [one.answer(images) for one in together]
    handle.remove()

    assert calls == 1
    assert together[0].runner.spared_seconds > spared
    for one, wanted in zip(found, expected, strict=False):
        assert np.array_equal(one.logits, wanted.logits) and np.array_equal(one.kept, wanted.kept)
    other = batch_for(vit) + 1
    assert np.array_equal(together[1].answer(other).logits, model_of(vit).at(asked[0]).answer(other).logits)
