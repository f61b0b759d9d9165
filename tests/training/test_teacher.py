"""The dense teacher: it is not trained, its images are renormalised, and teachers that do not fit are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing, normalised
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.losses import losses_of
from sait_deploy.training.options import Distillation
from sait_deploy.training.student import Student
from sait_deploy.training.teacher import Renormalisation, Teacher, check_pair
from tests.tiny import images_for, relative_difference, small_vit


def test_a_teacher_stays_in_inference_mode_and_is_not_trained() -> None:
    vit = small_vit(attn_drop_rate=0.5, proj_drop_rate=0.5, pos_drop_rate=0.5, drop_rate=0.5, drop_path_rate=0.5)
    images = images_for(vit)
    teacher = Teacher(vit.train(), 2, Score.CLS)
    whole = nn.ModuleList([teacher]).train()
    assert not teacher.training and not vit.training
    assert torch.equal(teacher(images).logits, teacher(images).logits)
    assert not any(parameter.requires_grad for parameter in whole.parameters())
    student_vit = small_vit(embed_dim=48, num_heads=3)
    student = Student(student_vit, Score.MEAN, 1).train()
    losses = losses_of(
        student(images, OperatingPoint(1.0, 8, 8)), torch.tensor([0, 1, 2]), teacher(images), Distillation(), 0.0
    )
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student_vit.parameters())


def test_images_normalised_for_the_student_are_as_the_teacher_wants_them() -> None:
    own = Preprocessing(
        (32, 32), (32, 32), CropMode.CENTER, Interpolation.BILINEAR, True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    )
    other = dataclasses.replace(own, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    vit = small_vit()
    wanted = Teacher(vit, 1, Score.CLS)(torch.from_numpy(normalised(pixels, other)))
    renormalising = Teacher(vit, 1, Score.CLS, Renormalisation.between(own, other))
    found = renormalising(torch.from_numpy(normalised(pixels, own)))
    assert relative_difference(found.logits, wanted.logits) < 1e-4
    plain = Teacher(vit, 1, Score.CLS)(torch.from_numpy(normalised(pixels, own)))
    assert relative_difference(plain.logits, wanted.logits) > 1e-2


@pytest.mark.parametrize("blocks", [4, 100])
def test_more_blocks_than_there_are(blocks: int) -> None:
    with pytest.raises(InvalidArgument, match=f"the teacher has 3 blocks, not {blocks}"):
        Teacher(small_vit(), blocks, Score.CLS)


def test_a_teacher_without_a_class_token() -> None:
    vit = small_vit(class_token=False, global_pool="avg")
    with pytest.raises(InvalidArgument, match="no class token") as refused:
        Teacher(vit, 2, Score.CLS)
    assert "--teacher-score mean" in refused.value.hint
    assert Teacher(vit, 2, Score.MEAN)(images_for(vit)).importance.shape == (3, 16)


@pytest.mark.parametrize(
    "other",
    [
        {"embed_dim": 64, "num_heads": 4},
        {"depth": 5},
        {"reg_tokens": 4},
        {"class_token": False, "global_pool": "avg"},
        {"mlp_ratio": 2.0, "qk_norm": True},
    ],
    ids=str,
)
def test_widths_depths_and_prefixes_may_differ(other: dict[str, Any]) -> None:
    check_pair(small_vit(), small_vit(**other))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_classes": 11}, "the teacher has classes 11, the model 10"),
        ({"num_classes": 0}, "the teacher has classes 0, the model 10"),
        ({"img_size": 64}, r"the teacher has image size \(64, 64\), the model \(32, 32\)"),
        ({"img_size": (16, 64)}, r"the teacher has image size \(16, 64\), the model \(32, 32\)"),
        ({"patch_size": 16}, r"the teacher has patch grid \(2, 2\), the model \(4, 4\)"),
    ],
    ids=str,
)
def test_a_teacher_whose_answers_cannot_be_compared(other: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        check_pair(small_vit(), small_vit(**other))
    assert refused.value.hint
