"""Two stages against one and against the whole, what they cost, and what charged training changes."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.graphs import graph_in_place, own_forms
from benchmarks.learned_count import Charge, ChargedStudent, soft_keep
from benchmarks.selection_parts import (
    Reading,
    Rest,
    Stem,
    answered,
    counts_at,
    in_groups,
    in_torch,
    kept,
    mean_macs,
    reading,
)
from benchmarks.stages import EVEN, Between, Twice, mean_staged_macs, staged_macs
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.models.prunable_vit import PrunableViT, geometry_of
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import describe
from sait_deploy.runtime import load
from sait_deploy.system.progress import no_progress
from sait_deploy.tokens import OperatingPoint, Score, density_point, parse_density, pruned_macs
from sait_deploy.training.student import Student
from tests.tiny import HALF, images_for, small_vit


def test_two_stages_in_parts_answer_as_the_whole() -> None:
    vit = small_vit(depth=4)
    images = images_for(vit, 3)
    tokens, importance = in_torch(Stem(vit, 1))(images.numpy())
    keep = kept(reading(importance, Reading.MEAN), np.full(3, 9, np.int32), 1)
    between = in_groups(in_torch(Between(vit, 1, 2, Score.MEAN)), tokens, keep, 2)
    later, seen = [outputs[0] for outputs in between], np.stack([outputs[1] for outputs in between])
    found = answered(in_torch(Rest(vit, 2)), later, kept(seen, np.full(3, 4, np.int32), 1), 2)
    with torch.no_grad():
        whole = Twice(vit, Score.MEAN, {1: 9, 2: 4})(images)[0]
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-5)


def test_a_second_stage_that_drops_nothing_is_one_stage() -> None:
    vit = small_vit(depth=4)
    images = images_for(vit, 3)
    with torch.no_grad():
        twice = Twice(vit, Score.MEAN, {1: 6, 2: 6})(images)[0]
        once = PrunableViT(vit, FixedPruning(Score.MEAN, 1, 6))(images)[0]
    np.testing.assert_allclose(twice.numpy(), once.numpy(), atol=1e-5)
    geometry = geometry_of(vit)
    assert staged_macs(geometry, 1, 2, 6, 6) == pruned_macs(geometry, 1, 6)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_even_numbers_of_tokens_meet_a_cost(share: float) -> None:
    geometry, images = geometry_of(small_vit(depth=4)), 200
    first = np.full(images, 12, np.int32)
    low, high = staged_macs(geometry, 1, 2, 12, 1), staged_macs(geometry, 1, 2, 12, 12)
    most = low + share * (high - low)
    cost = functools.partial(mean_staged_macs, geometry, 1, 2, first)
    _, counts = counts_at(EVEN, np.zeros((images, geometry.patch_tokens), np.float32), cost, most)
    assert np.ptp(counts) <= 1
    assert most - (high - low) / images <= cost(counts) <= most
    assert mean_macs(geometry, 1, first) == high


def test_charging_leaves_answers_and_gives_spread_importance_a_price() -> None:
    vit = small_vit()
    images = images_for(vit, 4)
    plain, charged = Student(vit, Score.MEAN, 1), ChargedStudent(vit, Score.MEAN, 1, charge=Charge(1.0, 1.0))
    point = OperatingPoint(0.6, 1, 16)
    for one in (None, density_point(parse_density("0.5"), 16), point):
        np.testing.assert_allclose(plain(images, one).logits.detach(), charged(images, one).logits.detach(), atol=1e-5)
    share = charged(images, point).share
    assert share is not None
    (gradient,) = torch.autograd.grad(share, [vit.blocks[1].attn.qkv.weight])
    assert gradient.abs().sum() > 0
    assert charged(images, None).share is None


def test_concentrated_importance_keeps_fewer_tokens_softly() -> None:
    scores = torch.linspace(0, 1, 16)[None].requires_grad_()
    shares = [soft_keep(F.softmax(scale * scores, dim=1), 0.6).mean() for scale in (1.0, 8.0)]
    assert shares[1] < shares[0]
    (gradient,) = torch.autograd.grad(shares[1], scores)
    assert gradient[0, -1] < 0 < gradient[0, 0]


def test_gates_follow_the_answer() -> None:
    vit = small_vit()
    images, labels = images_for(vit, 4), torch.arange(4)
    point, gradients = OperatingPoint(0.6, 1, 16), []
    for gate in (0.0, 1.0):
        student = ChargedStudent(vit, Score.MEAN, 1, charge=Charge(0.0, gate))
        loss = F.cross_entropy(student(images, point).logits, labels)
        gradients.append(torch.autograd.grad(loss, [vit.blocks[0].mlp.fc1.weight])[0])
    assert not torch.allclose(*gradients)


@pytest.mark.slow
def test_the_graph_of_two_stages_answers_as_the_module(tmp_path: Path) -> None:
    model = describe(small_vit(img_size=64, depth=4), "small", WeightsSource.FILE, "w.pth")
    dense = own_forms(model, HALF, tmp_path, no_progress)[0]
    module, images = Twice(model.vit, Score.MEAN, {1: 9, 2: 4}), images_for(model.vit, 3)
    graph = graph_in_place(module, dense.manifest, tmp_path / "twice", no_progress)
    with torch.no_grad():
        wanted = module(images)[0].numpy()
    np.testing.assert_allclose(load(graph).run(images.numpy()).logits, wanted, atol=1e-4)
