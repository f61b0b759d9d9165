"""Weights files that are no plain file: folders, shards, files without suffix, and what is no weights file at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sait_deploy.errors import ModelError
from sait_deploy.models.weights import metadata_of, read_class_names, read_state_dict
from tests.tiny import assert_same, some_tensors


def write(path: Path, kind: str) -> None:
    """Writes some tensors as one kind of file."""
    if kind == "safetensors":
        save_file(some_tensors(), path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in some_tensors().items()})
    else:
        torch.save(some_tensors(), path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "npz"])
@pytest.mark.parametrize("name", ["0123abcd", "weights.pth", "weights.bin"])
def test_a_file_is_read_by_its_content_whatever_it_is_called(tmp_path: Path, kind: str, name: str) -> None:
    write(tmp_path / name, kind)
    assert_same(read_state_dict(tmp_path / name).tensors, some_tensors())


def test_metadata_is_read_from_a_file_without_suffix(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "blob", metadata_of(None, ["cat", "dog"]))
    assert read_class_names(tmp_path / "blob") == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "is a web page"),
        (b"\xef\xbb\xbf\n  <HTML>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 60, "is compressed by gzip"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 60, "is an HDF5 file"),
        (b"\x93NUMPY\x01\x00" + b"\0" * 60, "is a single array of NumPy's"),
        (b"model.pth".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
        (b"Access to model x is restricted. You must log in.", "is text, not weights: it begins 'Access to model x"),
        (b"", "is empty"),
        (b'{"error": "Repository not found"}', "no index of weights files"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w"])
def test_what_is_something_else_is_named_for_what_it_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(tmp_path / name)
    assert said in caught.value.message and name in caught.value.message
    assert "run code" not in caught.value.message
    assert caught.value.hint


def test_text_is_not_said_to_run_code(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("Not Found")
    with pytest.raises(ModelError, match="is text, not weights: it begins 'Not Found'"):
        read_state_dict(tmp_path / "w.pth")


def test_values_beside_weights_are_passed_over(tmp_path: Path) -> None:
    values = {"best": np.float64(0.9), "confusion": np.ones((3, 3)), "random": np.random.default_rng(0).random(2)}
    torch.save({"state_dict": some_tensors(), "folder": tmp_path, **values}, tmp_path / "w.pth")
    assert_same(read_state_dict(tmp_path / "w.pth").tensors, some_tensors())


def test_what_would_run_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": some_tensors(), "head": torch.nn.Linear(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"more than tensors \(torch\.nn\.modules\.linear\.Linear\)"):
        read_state_dict(tmp_path / "w.pth")


def test_a_torch_checkpoint_that_is_called_safetensors_is_read(tmp_path: Path) -> None:
    torch.save(some_tensors(), tmp_path / "w.safetensors")
    assert_same(read_state_dict(tmp_path / "w.safetensors").tensors, some_tensors())


def test_a_link_that_leads_nowhere_and_a_device_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(ModelError, match=r"w\.pth is a link to .*gone\.pth, which is not there"):
        read_state_dict(tmp_path / "w.pth")
    with pytest.raises(ModelError, match="/dev/null is no regular file"):
        read_state_dict(Path("/dev/null"))


def test_what_a_training_program_saves_beside_weights_is_none_of_them(tmp_path: Path) -> None:
    torch.save(some_tensors(), tmp_path / "pytorch_model.bin")
    for other in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({}, tmp_path / other)
    assert_same(read_state_dict(tmp_path).tensors, some_tensors())


def test_the_keys_of_a_checkpoint_without_weights_are_shown(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no tensors by name; its keys are optimizer, epoch"):
        read_state_dict(tmp_path / "w.pth")


def test_a_program_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="TorchScript"):
        read_state_dict(tmp_path / "w.pt")


def test_an_archive_with_pickled_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ModelError, match=r"no whole \.npz file of numbers"):
        read_state_dict(tmp_path / "w.npz")


@pytest.mark.parametrize("others", [[], ["README.md", "config.json"], ["training_args.bin", "optimizer.pt"]])
def test_a_folder_with_one_weights_file_stands_for_it(tmp_path: Path, others: list[str]) -> None:
    save_file(some_tensors(), tmp_path / "model.safetensors")
    for other in others:
        (tmp_path / other).write_text("{}")
    assert_same(read_state_dict(tmp_path).tensors, some_tensors())


@pytest.mark.parametrize(("names", "said"), [([], "holds no weights file"), (["a.pth", "b.pth"], "holds 2 weights")])
def test_a_folder_with_no_or_several_weights_files_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        torch.save(some_tensors(), tmp_path / name)
    with pytest.raises(ModelError, match="is a folder that") as caught:
        read_state_dict(tmp_path)
    assert said in caught.value.message


def sharded(folder: Path, suffix: str = "safetensors") -> Path:
    """Writes some tensors into a file each, and returns their index."""
    listed = {}
    for number, (name, tensor) in enumerate(some_tensors().items()):
        shard = f"model-{number}.{suffix}"
        if suffix == "safetensors":
            save_file({name: tensor}, folder / shard)
        else:
            torch.save({name: tensor}, folder / shard)
        listed[name] = shard
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_and_by_their_folder(tmp_path: Path, suffix: str) -> None:
    index = sharded(tmp_path, suffix)
    assert_same(read_state_dict(index).tensors, some_tensors())
    assert_same(read_state_dict(tmp_path).tensors, some_tensors())


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "/etc/hostname", "..", "", "sub/w.safetensors", "a\0b", "index.json", "none"]
)
def test_an_index_reads_plain_names_of_its_folder_only(tmp_path: Path, shard: str) -> None:
    (tmp_path / "in").mkdir()
    save_file(some_tensors(), tmp_path / "outside.safetensors")
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(some_tensors(), shard)}))
    with pytest.raises(ModelError) as caught:
        read_state_dict(index)
    assert "lists" in caught.value.message


def test_a_shard_that_links_out_of_the_folder_is_refused_and_one_into_the_caches_blobs_is_read(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    index = sharded(snapshot)
    for shard in snapshot.glob("*.safetensors"):
        shard.rename(blobs / f"{shard.stem}-blob")
        shard.symlink_to(f"../../blobs/{shard.stem}-blob")
    assert_same(read_state_dict(index).tensors, some_tensors())
    first = min(snapshot.glob("*.safetensors"))
    (blobs / f"{first.stem}-blob").rename(tmp_path / "outside")
    first.unlink()
    first.symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="link that leaves its folder"):
        read_state_dict(index)


def test_shards_hold_what_their_index_lists(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    listed = json.loads(index.read_text())["weight_map"]
    for changed in ({**listed, "another": "model-0.safetensors"}, dict(list(listed.items())[:1])):
        wrong = changed if len(changed) > 1 else {"another": "model-0.safetensors"}
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(ModelError, match="does not hold the tensors"):
            read_state_dict(index)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_what_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match="no index of weights files"):
        read_state_dict(tmp_path)
