"""Weights from files: every wrapping that training scripts use, and the digest."""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sait_deploy.models.weights import load_weights, read_state_dict, sha256_of_weights
from tests.tiny import assert_same, family, randomised, save_weights, some_tensors


def test_safetensors(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "w.safetensors")
    assert_same(read_state_dict(tmp_path / "w.safetensors").tensors, some_tensors())


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dict(checkpoint: Path, zipped: bool) -> None:
    torch.save(OrderedDict(some_tensors()), checkpoint, _use_new_zipfile_serialization=zipped)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors())


@pytest.mark.parametrize("key", ["model", "state_dict", "state_dict_ema", "model_ema", "ema", "module"])
def test_wrapping_dictionaries_come_off(checkpoint: Path, key: str) -> None:
    torch.save({"epoch": 3, key: some_tensors(), "optimizer": {"lr": 0.1}}, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors())


@pytest.mark.parametrize(
    ("averaged", "trained"), [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("ema", "model")]
)
def test_the_average_is_preferred(checkpoint: Path, averaged: str, trained: str) -> None:
    torch.save({trained: some_tensors(1), averaged: some_tensors(2)}, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors(2))


def test_wrappings_inside_each_other_come_off(checkpoint: Path) -> None:
    torch.save({"model": {"state_dict": {"module": some_tensors()}}}, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model."])
def test_prefixes_come_off(checkpoint: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in some_tensors().items()}}, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors())


def test_a_prefix_that_not_all_names_have_stays(checkpoint: Path) -> None:
    tensors = {"module.a": torch.ones(1), "b": torch.zeros(1)}
    torch.save(tensors, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, tensors)


def test_timms_own_checkpoints_hold_a_namespace(checkpoint: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1, name="deit"), "state_dict": some_tensors()}, checkpoint)
    assert_same(read_state_dict(checkpoint).tensors, some_tensors())


class Bag(nn.Module):
    """Buffers in the order given."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_the_digest_does_not_depend_on_order() -> None:
    a, b = torch.arange(6.0), torch.ones(2, dtype=torch.int64)
    assert sha256_of_weights(Bag({"a": a, "b": b})) == sha256_of_weights(Bag({"b": b, "a": a}))


def test_the_digest_does_not_depend_on_layout_in_memory() -> None:
    a = torch.arange(6.0).reshape(2, 3)
    assert sha256_of_weights(Bag({"a": a})) == sha256_of_weights(Bag({"a": a.t().contiguous().t()}))


def test_the_digest_changes_with_every_byte() -> None:
    data = bytearray(torch.arange(3.0).numpy().tobytes())
    digests = set()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        digests.add(sha256_of_weights(Bag({"a": torch.frombuffer(changed, dtype=torch.float32)})))
    assert len(digests | {sha256_of_weights(Bag({"a": torch.arange(3.0)}))}) == len(data) + 1


def test_the_digest_changes_with_name_dtype_shape_and_neighbours() -> None:
    zeros = torch.zeros(4)
    bags = [
        Bag({"a": zeros}),
        Bag({"b": zeros}),
        Bag({"a": zeros.view(torch.int32)}),
        Bag({"a": zeros.reshape(2, 2)}),
        Bag({"a": zeros.reshape(4, 1)}),
        Bag({"a": zeros[:2], "b": zeros[2:]}),
        Bag({"a": zeros, "b": zeros[:0]}),
        Bag({"a": zeros.to(torch.bfloat16)}),
        Bag({"a": torch.tensor(0.0)}),
    ]
    assert len({sha256_of_weights(bag) for bag in bags}) == len(bags)


def test_the_digest_survives_a_file(tmp_path: Path) -> None:
    vit, twin = family("vit"), randomised(copy.deepcopy(family("vit")), seed=1)
    assert sha256_of_weights(twin) != sha256_of_weights(vit)
    load_weights(twin, read_state_dict(save_weights(vit, tmp_path / "w.safetensors")).tensors, "w")
    assert sha256_of_weights(twin) == sha256_of_weights(vit)
