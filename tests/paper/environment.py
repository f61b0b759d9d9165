"""The environment of the tests on paper: onnxruntime-gpu in a folder of its own, and stand-ins where pip puts CUDA."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Final

from filelock import FileLock

from tests.own_folder import NotMade, folder_of

VERSION: Final = "1.31.1"
"""Of onnxruntime-gpu: counts of launches are those of one version."""

_CUDA: Final = "13"
_SOURCES: Final = Path(__file__).parent / "standins"
_OWN_SOURCES: Final = {"libcudart": "runtime.c", "libcublas.": "blas.c", "libcudnn": "dnn.c"}
_HEADERS: Final = ("cuda_runtime_api.h", "crt/host_defines.h")


def folder() -> Path:
    """Returns the folder to put before ``PYTHONPATH``, made when it is first asked for and kept between runs.

    Raises:
        NotMade: there is no network, no compiler, or no header of CUDA's.
    """
    made = folder_of("onnxruntime-gpu", VERSION)
    with FileLock(f"{made}.lock"):
        stamp, built = _digest(), made / "standins.sha256"
        if not built.is_file() or built.read_text() != stamp:
            _build(made)
            built.write_text(stamp)
    return made


def _digest() -> str:
    sources = (Path(__file__), *sorted(_SOURCES.iterdir()))
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _build(made: Path) -> None:
    """Compiles the stand-ins where NVIDIA's packages would lie, so that nothing but pip's layout leads to them."""
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            raise NotMade(f"{tool} is not installed")
    provider, include = made / "onnxruntime/capi/libonnxruntime_providers_cuda.so", _headers()
    symbols = _needed(provider)
    shutil.rmtree(made / "nvidia", ignore_errors=True)
    for library in sorted({*symbols, *_linked(provider), "libcudnn.so.9"}):
        target = _home(made, library) / library
        target.parent.mkdir(parents=True, exist_ok=True)
        _compile(library, symbols.get(library, []), include, target)


def driver_folder(made: Path) -> Path:
    """Returns where the stand-in of the driver lies: on a machine with one, the loader finds it."""
    return made / "driver"


def _home(made: Path, library: str) -> Path:
    if library.startswith("libcuda."):
        return driver_folder(made)
    return made / "nvidia" / ("cudnn" if library.startswith("libcudnn") else f"cu{_CUDA}") / "lib"


def _headers() -> Path:
    spec = importlib.util.find_spec("triton")
    places = [Path(spec.origin).parent / "backends/nvidia/include"] if spec and spec.origin else []
    for place in (*places, Path("/usr/local/cuda/include")):
        if all((place / name).exists() for name in _HEADERS):
            return place
    raise NotMade("there are no headers of CUDA: triton and a CUDA toolkit have them")


def _needed(provider: Path) -> dict[str, list[str]]:
    """Returns the CUDA functions that the provider leaves open, by the library in their version tag."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in _output("nm", "-D", "--undefined-only", provider).splitlines():
        match = re.match(r"((?:__)?(?:cuda|cublas|curand|cu)\w*)(?:@+(\S+))?$", line.split()[-1])
        if match:
            found[match[2] or "libcuda.so.1"].append(match[1])
    return found


def _linked(provider: Path) -> list[str]:
    names = r"\[(lib(?:cudart|cublas|cublasLt|curand|cudnn|cufft|nvrtc|cuda)[^\]]*)\]"
    return re.findall(names, _output("readelf", "-d", provider))


def _compile(library: str, symbols: list[str], include: Path, target: Path) -> None:
    source = next((_SOURCES / name for prefix, name in _OWN_SOURCES.items() if library.startswith(prefix)), None)
    own = set(re.findall(r"\b((?:__)?(?:cuda|cublas|cudnn)\w+)\s*\(", source.read_text())) if source else set()
    empty = target.with_suffix(".c")
    empty.write_text(
        "".join(f"int {name}() {{ return 0; }}\n" for name in symbols if name not in own) + "int on_paper;"
    )
    versions = target.with_suffix(".map")
    tagged = library.startswith(("libcudart", "libcublas"))
    versions.write_text(f"{library if tagged else ''} {{ global: *; }};")
    sources = [str(empty), *([str(source)] if source else [])]
    linker = [f"-Wl,--version-script={versions}", f"-Wl,-soname,{library}"]
    command = ["gcc", "-w", f"-I{include}", "-shared", "-fPIC", "-O1", "-o", str(target), *sources, *linker]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMade(f"{library} cannot be compiled: {done.stderr.strip().splitlines()[0]}")


def _output(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
