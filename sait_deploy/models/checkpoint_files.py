"""Weights files as people have them, a folder or an index of shards among them, read without running code from them."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sait_deploy.errors import ModelError, first_line
from sait_deploy.system.reading import check_regular, parse_json, read_text

_INDEX: Final = (".safetensors.index.json", ".bin.index.json")
_SUFFIXES: Final = ((*_INDEX[:1],), (".safetensors",), (*_INDEX[1:],), (".bin", ".pth", ".pt", ".ckpt", ".npz", ".tar"))
"""Ends of names that a folder is searched for; the first of these groups that it has is read."""

_TRAINERS: Final = ("optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args")
"""How names begin of what training programs save beside weights in files of their own."""

_LONGEST_HEADER: Final = 100_000_000
"""Bytes of a safetensors file's header at most, by its specification."""

_MOST_TENSORS: Final = 50_000
"""In a file; large models have a few thousand, and names of many more take longer to match than weights to read."""

_MOST_UNPACKED: Final = 256 << 20
_MOST_RATIO: Final = 20
"""Bytes that an archive may unpack to: so many, and so many times its own. Weights compress by half at best."""

_NOT_WEIGHTS: Final = (
    (b"version https://git-lfs", "is a Git LFS pointer, which only names the file", "fetch the file: git lfs pull"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them, which is not read", "save the weights as safetensors"),
    (b"\x1f\x8b", "is compressed by gzip", "unpack it"),
    (b"BZh", "is compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "is compressed by xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unpack it"),
    (b"\x93NUMPY", "is a single array of NumPy's", "save all weights by name, with safetensors or numpy.savez"),
    (b"GGUF", "is a GGUF file, whose weights are quantised", "use the weights it was made from"),
    (b"<", "is a web page, not weights", "download the file itself: a page for logging in is often saved instead"),
)
"""How files begin that are no weights, what they are, and what to do."""

_TAR: Final = slice(257, 262)
"""Where a tar archive says that it is one."""

_VALUES: Final = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.ndarray", "numpy.dtype"),
    *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "_local.PosixPath")),
)
"""Classes of values that training code saves beside weights, such as the best accuracy: none is made or read."""


class _Unread:
    """Stands for a value that is not read."""

    def __init__(self, *parts: object) -> None:
        """Takes whatever makes the value."""

    def __setstate__(self, state: object) -> None:
        """Takes whatever is set on it afterwards."""


_UNREAD: Final = [(_Unread, name) for name in _VALUES]


class _Kind(StrEnum):
    SAFETENSORS = "safetensors"
    TORCH = "torch"
    NPZ = "npz"
    INDEX = "index"


def weights_file(path: Path) -> Path:
    """Returns the file to read: the path itself, or of a folder its only weights file, safetensors first.

    Raises:
        ModelError: nothing is there, or the folder holds no weights file or several.
    """
    if not path.is_dir():
        if path.is_file():
            _check_regular(path)
            return path
        if path.is_symlink():
            raise ModelError(f"weights file {path} is a link to {path.readlink()}, which is not there", "mend the link")
        if path.exists():
            raise ModelError(f"weights file {path} is no regular file", "save the weights to a file first")
        raise ModelError(f"weights file {path} does not exist", "check the path given to --weights")
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(_TRAINERS))
    for suffixes in _SUFFIXES:
        found = [name for name in names if name.endswith(suffixes)]
        if len(found) == 1:
            _check_regular(path / found[0])
            return path / found[0]
        if found:
            raise ModelError(
                f"{path} is a folder that holds {len(found)} weights files: {', '.join(found[:3])}…", "name one of them"
            )
    raise ModelError(f"{path} is a folder that holds no weights file", "give the path of the file to --weights")


def _check_regular(path: Path) -> None:
    try:
        check_regular(path)
    except OSError as error:
        raise ModelError(f"weights file {path} cannot be read: {error.strerror}", "give a whole weights file") from None


def is_safetensors(path: Path) -> bool:
    """Returns whether a file is safetensors, by its content: files in a hub's cache have no suffix."""
    with path.open("rb") as file:
        return _begins_as_safetensors(file.read(9))


def read_checkpoint(path: Path) -> Any:
    """Returns what a weights file holds: a state dict, or whatever the training code wrapped it in.

    Args:
        path: as ``weights_file`` returns it.

    Raises:
        ModelError: the file cannot be read, is something else, or holds code to run.
    """
    readers: dict[_Kind, Callable[[Path], Any]] = {
        _Kind.SAFETENSORS: _read_safetensors,
        _Kind.TORCH: _read_torch,
        _Kind.NPZ: _read_npz,
        _Kind.INDEX: _read_shards,
    }
    try:
        content = readers[_kind_of(path)](path)
        _check_tensors(content, path)
        return content
    except OSError as error:
        raise ModelError(f"weights file {path} cannot be read ({error.strerror or error})") from None


def is_plain(tensor: Tensor) -> bool:
    """Returns whether a tensor has a number of its own in memory for each of its elements."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        return False
    return tensor.numel() * tensor.itemsize <= tensor.untyped_storage().nbytes()


def _check_tensors(content: Any, path: Path) -> None:
    """Refuses tensors that are sparse, nested, quantised, or of more elements than the file holds numbers, and many."""
    pending, seen, tensors = [content], set(), 0
    while pending:
        value = pending.pop()
        tensors += isinstance(value, Tensor)
        _check_number(tensors, path)
        if isinstance(value, Tensor) and not is_plain(value):
            sizes = "nested" if value.is_nested else list(value.shape)
            raise ModelError(
                f"weights file {path} has a tensor {sizes} that is sparse, nested, quantised or repeats its numbers",
                "save the weights as plain tensors, with safetensors",
            )
        if isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, Mapping) else value


def _check_number(tensors: int, path: Path) -> None:
    if tensors > _MOST_TENSORS:
        raise ModelError(f"weights file {path} holds more than {_MOST_TENSORS} tensors", "give a model's weights alone")


def _begins_as_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _kind_of(path: Path) -> _Kind:
    """Returns what a file is by how it begins, else by its suffix."""
    with path.open("rb") as file:
        start = file.read(_TAR.stop)
    if _begins_as_safetensors(start):
        return _Kind.SAFETENSORS
    if not start:
        raise ModelError(f"weights file {path} is empty", "save or download it again")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for begin, what, hint in _NOT_WEIGHTS:
        if text.startswith(begin):
            raise ModelError(f"weights file {path} {what}", hint)
    if text.startswith(b"{"):
        return _Kind.INDEX
    if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        return _kind_of_archive(path)
    if start[_TAR] == b"ustar":
        raise ModelError(f"weights file {path} is a tar archive", "unpack it")
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"weights file {path} is an ONNX graph, not weights", "give the weights it was exported from")
    if _is_prose(start):
        words = start.decode("ascii").split("\n")[0][:60]
        raise ModelError(f"weights file {path} is text, not weights: it begins {words!r}", "download the file itself")
    return _Kind.SAFETENSORS if path.suffix == ".safetensors" else _Kind.TORCH


def _is_prose(start: bytes) -> bool:
    """Returns whether a file begins as a sentence does, such as a server's refusal; pickles of old protocols do not."""
    text = start.decode("latin-1")
    return re.match(r"[A-Za-z\d]{2,}[,:]? [A-Za-z\d]", text) is not None and text.isascii() and "\0" not in text


def _kind_of_archive(path: Path) -> _Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names, unpacked = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError):
        return _Kind.TORCH  # whose reader names what is wrong with it
    if unpacked > _MOST_UNPACKED + _MOST_RATIO * path.stat().st_size:
        raise ModelError(f"weights file {path} would unpack to {unpacked} bytes", "save the weights as safetensors")
    if names and all(name.endswith(".npy") for name in names):
        return _Kind.NPZ
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"weights file {path} is a TorchScript program, which is code", "save model.state_dict()")
    if names and not any(name.endswith("data.pkl") for name in names):
        raise ModelError(f"weights file {path} is a zip archive that holds no torch checkpoint", "unpack it")
    return _Kind.TORCH


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as opened:
            _check_number(len(opened.keys()), path)
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"weights file {path} is no whole safetensors file ({error})", "save or download it again"
        ) from None
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.serialization.safe_globals([argparse.Namespace, *_UNREAD]))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # advice about pickle protocols says nothing about the weights
            # By a name torch would take the file for safetensors.
            named = path.suffix == ".safetensors"
            return torch.load(
                stack.enter_context(path.open("rb")) if named else path, map_location="cpu", weights_only=True
            )
    except pickle.UnpicklingError as error:
        if _names_code(path, str(error)):
            found = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({found[1]})" if found else ""
            raise ModelError(
                f"weights file {path} holds more than tensors{what} and was not loaded: unpickling it could run code",
                "if you trust it, load it yourself and save its state dict with safetensors.torch.save_file",
            ) from None
        raise ModelError(f"weights file {path} is no whole torch checkpoint", "save or download it again") from None
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        first = first_line(error).partition(". ")[0]
        raise ModelError(
            f"weights file {path} is no whole torch checkpoint ({first})", "save or download it again"
        ) from None


def _names_code(path: Path, error: str) -> bool:
    """Returns whether the unpickler met something to run, not bytes that are no pickle at all."""
    with path.open("rb") as file:
        is_pickle = file.read(6).startswith((b"\x80", b"PK", b"L11954"))  # the last: torch's first number, as text
    return "GLOBAL" in error or "allowed" in error or ("Unsupported" in error and is_pickle)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _tensor(arrays[name]) for name in arrays.files}
    except Exception as error:  # damaged archives make zipfile, zlib and NumPy raise nearly anything
        raise ModelError(
            f"weights file {path} is no whole .npz file of numbers ({first_line(error)})", "save or download it again"
        ) from None


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype == np.dtype("V2"):  # NumPy has no bfloat16: JAX's is saved as two bytes
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Reads the shards that an index lists, plain names of files in its folder, each with what the index says."""
    tensors: dict[str, Tensor] = {}
    listed = _listed(path)
    for name in sorted(set(listed.values())):
        read = read_checkpoint(_shard(path, name))
        wanted = {tensor for tensor, shard in listed.items() if shard == name}
        if not isinstance(read, Mapping) or set(read) != wanted:
            raise ModelError(f"{name} does not hold the tensors that {path} lists for it", "download both again")
        tensors.update(read)
    return tensors


def _listed(path: Path) -> dict[str, str]:
    try:
        listed = parse_json(read_text(path, encoding="utf-8-sig"))["weight_map"]
        if not listed or not all(isinstance(name, str) for name in listed.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"weights file {path} is JSON without a weight_map, and so no index of weights files",
            "name the weights file itself",
        ) from None
    return dict(listed)


def _shard(index: Path, name: str) -> Path:
    """Returns a shard's path, that of a file in the index's folder, or of one it links to in the same hub cache."""
    folder, shard = index.parent, index.parent / name
    if Path(name).name != name or name.endswith(".json") or "\0" in name:
        raise ModelError(f"{index} lists {name!r}, which is no plain name of a weights file", "download it again")
    if not shard.is_file():
        raise ModelError(f"{index} lists {name}, which is not in its folder", "download all shards")
    _check_regular(shard)
    real = shard.resolve().parent
    if real not in (folder.resolve(), folder.resolve().parent.parent / "blobs"):
        raise ModelError(f"{shard} is a link that leaves its folder", "put the file itself there")
    return shard
