"""Weights from files: every wrapping that training scripts use, files that are damaged or hostile, and the digest."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.models.weights import load_weights, read_state_dict, sha256_of_weights
from tests.tiny import assert_same, family, randomised, save_weights, small_vit, some_tensors


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


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


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_not_run(checkpoint: Path, zipped: bool, protocol: int) -> None:
    marker = checkpoint.parent / "it-ran"
    torch.save(
        {"model": some_tensors(), "extra": Marker(marker)},
        checkpoint,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(ModelError) as caught:
        read_state_dict(checkpoint)
    assert not marker.exists()
    assert "run code" in caught.value.message
    assert "safetensors" in caught.value.hint


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_bare_pickle_is_not_run_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it-ran"
    (tmp_path / name).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(ModelError):
        read_state_dict(tmp_path / name)
    assert not marker.exists()


def test_a_whole_module_is_not_unpickled(checkpoint: Path) -> None:
    torch.save(small_vit(), checkpoint)
    with pytest.raises(ModelError, match="run code"):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0", b"garbage" * 50, b"PK\x03\x04" + b"\0" * 40, b"\x80\x02.", b"{}"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    if name.endswith("safetensors"):
        save_file(some_tensors(), whole)
    else:
        torch.save(some_tensors(), whole)
    data = whole.read_bytes()
    for end in sorted({*range(0, len(data), max(1, len(data) // 60)), len(data) - 1}):
        (tmp_path / name).write_bytes(data[:end])
        with pytest.raises(ModelError):
            read_state_dict(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_changed_bytes_are_refused_or_read_and_never_crash(tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(some_tensors(), file)
    elif kind == "pickle":
        file.write_bytes(b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u.")
    else:
        torch.save(some_tensors(), file, _use_new_zipfile_serialization=kind == "zip")
    data, draw = file.read_bytes(), random.Random(kind)
    refused = 0
    for _ in range(250):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 2, 5])):
            changed[draw.randrange(min(len(data), 900))] = draw.randrange(256)
        file.write_bytes(changed)
        try:
            assert read_state_dict(file).tensors
        except ModelError as error:
            refused += 1
            assert "\n" not in error.message
    assert refused > 0


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), 7, "text", None])
def test_what_is_no_dictionary_is_refused(checkpoint: Path, content: object) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(ModelError, match=f"holds a {type(content).__name__}, not a state dict"):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"state_dict": {"a": 1}}])
def test_a_dictionary_without_tensors_is_refused(checkpoint: Path, content: object) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(ModelError, match="no tensors"):
        read_state_dict(checkpoint)


def test_a_wrapper_that_holds_itself_ends(checkpoint: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, checkpoint)
    with pytest.raises(ModelError):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "folder/none.pth"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_state_dict(tmp_path / name)


def test_load_weights_names_the_first_tensors_that_do_not_fit() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(ModelError) as caught:
        load_weights(model, {"weight": torch.ones(5, 4), "extra": torch.ones(1)}, "w.pth")
    message = caught.value.message
    assert "w.pth" in message and "Linear" in message
    assert "weight is [5, 4], the model's [3, 4]" in message
    assert "bias is missing" in message
    assert "extra is not the model's" in message


def test_load_weights_counts_what_it_does_not_name() -> None:
    with pytest.raises(ModelError, match="and 1 more"):
        load_weights(nn.Linear(4, 3), {name: torch.ones(1) for name in "abcd"}, "w.pth")


def test_load_weights_changes_nothing_when_it_refuses() -> None:
    model = nn.Linear(4, 3)
    before = model.weight.clone()
    with pytest.raises(ModelError):
        load_weights(model, {"weight": torch.ones(3, 4)}, "w.pth")
    assert torch.equal(model.weight, before)


def from_file(path: Path, name: str = "test_vit", image_size: int | None = None) -> VisionTransformer:
    return load_model(name, WeightsRequest(WeightsSource.FILE, path), image_size).vit


@pytest.fixture(scope="module")
def trained() -> VisionTransformer:
    """A test_vit of 5 classes at its own 160 pixels."""
    return randomised(timm.create_model("test_vit", num_classes=5))


def test_a_model_gets_the_weights_of_the_file(tmp_path: Path, trained: VisionTransformer) -> None:
    loaded = from_file(save_weights(trained, tmp_path / "w.safetensors"))
    assert_same(dict(loaded.state_dict()), dict(trained.state_dict()))


@pytest.mark.parametrize("classes", [0, 1, 5, 21])
def test_classes_are_inferred(tmp_path: Path, classes: int) -> None:
    vit = timm.create_model("test_vit", num_classes=classes, img_size=96)
    loaded = load_model(
        "test_vit", WeightsRequest(WeightsSource.FILE, save_weights(vit, tmp_path / "w.safetensors")), 96
    )
    assert loaded.info.classes == classes
    assert loaded.vit.num_classes == classes


def test_another_image_size_is_named_and_taken_only_when_asked_for(tmp_path: Path) -> None:
    path = save_weights(
        randomised(timm.create_model("test_vit", num_classes=5, img_size=96)), tmp_path / "w.safetensors"
    )
    with pytest.raises(ModelError, match="pos_embed") as caught:
        from_file(path)
    assert "--imgsz 96" in caught.value.hint
    exact = from_file(path, image_size=96)
    assert torch.equal(exact.state_dict()["pos_embed"], read_state_dict(path).tensors["pos_embed"])
    resampled = from_file(path, image_size=128)
    assert resampled.state_dict()["pos_embed"].shape == (1, 65, 64)
    assert torch.equal(resampled.state_dict()["cls_token"], read_state_dict(path).tensors["cls_token"])


@pytest.mark.parametrize("other", ["resnet18", "test_vit2", "test_vit3", "vit_tiny_patch16_224", "mixer_s32_224"])
def test_weights_of_another_architecture_name_what_does_not_fit(tmp_path: Path, other: str) -> None:
    path = save_weights(timm.create_model(other, num_classes=4), tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        from_file(path)
    assert "do not fit" in caught.value.message
    assert caught.value.hint


def test_another_width_is_not_blamed_on_the_image_size(tmp_path: Path) -> None:
    path = save_weights(timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=1), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"patch_embed\.proj\.weight is \[192, 3, 16, 16\], the model's \[64"):
        from_file(path)


@pytest.mark.parametrize("name", ["head.weight", "patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"])
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3, 4, 5)])
def test_tensors_of_absurd_shapes_do_not_crash(
    tmp_path: Path, trained: VisionTransformer, name: str, shape: tuple[int, ...]
) -> None:
    tensors = {**trained.state_dict(), name: torch.zeros(shape)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "w.safetensors")
    with pytest.raises((ModelError, InvalidArgument)):
        from_file(tmp_path / "w.safetensors")


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


def test_another_patch_size_is_another_model_and_never_resampled(tmp_path: Path) -> None:
    """As many tokens of patches twice as large: nothing but the patch embedding tells the two apart."""
    own = timm.create_model("test_vit").patch_embed
    path = tmp_path / "weights.safetensors"
    larger = timm.create_model("test_vit", patch_size=2 * own.patch_size[0], img_size=2 * own.img_size[0])
    assert larger.pos_embed.shape[1] == 1 + own.num_patches
    save_weights(larger, path)
    with pytest.raises(ModelError) as caught:
        from_file(path)
    side = 2 * own.patch_size[0]
    assert f"patch_embed.proj.weight is [64, 3, {side}, {side}]" in caught.value.message


def test_advice_about_pickles_stays_off_the_screen(checkpoint: Path, recwarn: pytest.WarningsRecorder) -> None:
    checkpoint.write_bytes(pickle.dumps({"model": os.system}, protocol=4))
    with pytest.raises(ModelError, match="could run code"):
        read_state_dict(checkpoint)
    assert not recwarn.list
