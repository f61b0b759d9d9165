"""Compiles a Triton kernel to PTX that something other than Triton can load: the TensorRT builder, or the driver.

No GPU is needed. Three things in the PTX that Triton writes for itself stand in the way elsewhere:

- it ends the parameter list with pointers to scratch memory that Triton's own launcher would pass, and TensorRT passes
  the declared arguments alone: they are dropped, once nothing is seen to read them;
- it is written in the newest instruction set (ISA) that the assembler beside Triton knows, which an older loader or
  driver refuses: here it is the oldest that the GPU has. TensorRT's loader is reported to stop at 9.0
  (https://github.com/pytorch/TensorRT/pull/4147);
- it asks for one exact GPU where there is such a target (``sm_90a``), which nothing in these kernels needs.

``tests/plugins/test_ptx.py`` has the result assembled again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sait_deploy.errors import BuilderUnavailable, InvalidArgument, MissingDependency

OLDEST_SM: Final = 75
NEWEST_ISA: Final = (9, 0)
"""The newest ISA that TensorRT's loader is reported to take."""

MOST_SHARED_BYTES: Final = 48 * 1024
"""What a launch may ask for without the opt-in that only the caller of the driver could make."""

_BASE_ISA: Final = (8, 0)
# PTX ISA manual, table of target architectures: the first version with each target that 8.0 does not have.
_FIRST_ISA: Final = {88: (9, 0), 100: (8, 6), 101: (8, 6), 103: (8, 8), 110: (9, 0), 120: (8, 7), 121: (8, 8)}
_FIRST_WITHOUT_BASE: Final = 100


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel for one kind of GPU.

    Attributes:
        entry: name of the entry point in the PTX.
        ptx: the text, whose parameters are the declared ones alone.
        shared_bytes: dynamic shared memory of a block of threads.
        threads: threads of a block, all in x.
    """

    entry: str
    ptx: str
    shared_bytes: int
    threads: int


def compile_kernel(
    kernel: Any, signature: Mapping[str, str], constants: Mapping[str, int], *, warps: int, sm: int
) -> CompiledKernel:
    """Compiles a Triton kernel for one compute capability.

    Args:
        kernel: the jitted function.
        signature: Triton type (``*fp32``, ``*i32``, ``i32``) of every parameter that is passed at launch, in order.
        constants: value of every parameter that is compiled in.
        warps: warps of 32 threads in a block.
        sm: compute capability as major * 10 + minor: 75, 80, 86, 89, 90, 100, 120 …

    Raises:
        MissingDependency: Triton is not installed.
        InvalidArgument: the compute capability is older than 7.5.
        BuilderUnavailable: Triton's PTX cannot be loaded by anyone but Triton.
    """
    if sm < OLDEST_SM:
        raise InvalidArgument(
            f"the GPU kernels cannot be compiled for compute capability {sm / 10:.1f}",
            f"use a GPU of compute capability {OLDEST_SM / 10:.1f} (Turing) or newer",
        )
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ModuleNotFoundError as error:
        raise MissingDependency("triton", "compiling the GPU kernels", "tensorrt") from error
    major, minor = isa_for(sm)
    options = {"num_warps": warps, "enable_fp_fusion": False, "ptx_version": 10 * major + minor}
    source = ASTSource(
        fn=kernel,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=dict(constants),
    )
    # Fusing would let one rounding do the work of two; line information would put this machine's paths into engines.
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True
        built = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    about = built.metadata
    scratch = about.global_scratch_size + about.profile_scratch_size
    if scratch or about.shared > MOST_SHARED_BYTES or about.num_ctas != 1:
        raise BuilderUnavailable(
            f"Triton {triton.__version__} compiled {about.name} to need {scratch} bytes of scratch memory, "
            f"{about.shared} of shared memory and clusters of {about.num_ctas}, which TensorRT does not provide",
            "try another version of triton",
        )
    text = portable(built.asm["ptx"], about.name, len(signature), sm)
    return CompiledKernel(about.name, text, int(about.shared), 32 * int(about.num_warps))


def portable(ptx: str, entry: str, parameters: int, sm: int) -> str:
    """Returns Triton's PTX with its first ``parameters`` parameters alone, for every GPU of the compute capability.

    Raises:
        BuilderUnavailable: a parameter to be dropped is read, the ISA is newer than asked for, or the text has another
            form than Triton's.
    """
    found = re.search(rf"\.entry\s+{re.escape(entry)}\s*\((.*?)\)", ptx, re.DOTALL)
    version = re.search(r"^\.version (\d+)\.(\d+)$", ptx, re.MULTILINE)
    target = re.search(rf"^\.target sm_{sm}([af]?)$", ptx, re.MULTILINE)
    listed = [line.strip() for line in found[1].split(",")] if found else []
    if version is None or target is None or len(listed) < parameters:
        raise _unknown_form(entry, sm, "is not in the form that Triton was known to write")
    if (int(version[1]), int(version[2])) > isa_for(sm):
        raise _unknown_form(entry, sm, f"is in ISA {version[1]}.{version[2]}, newer than asked for")
    for declared in listed[parameters:]:
        # Once where it is declared; any other place reads it.
        if len(re.findall(rf"\b{re.escape(declared.split()[-1])}\b", ptx)) != 1:
            raise _unknown_form(entry, sm, "reads a parameter that only Triton's own launcher passes")
    assert found is not None
    kept = ",".join(f"\n\t{line}" for line in listed[:parameters])
    ptx = ptx[: found.start(1)] + kept + "\n" + ptx[found.end(1) :]
    return ptx.replace(target[0], f".target sm_{sm}", 1)


def _unknown_form(entry: str, sm: int, what: str) -> BuilderUnavailable:
    return BuilderUnavailable(f"the PTX of {entry} for sm_{sm} {what}", "try another version of triton")


def isa_for(sm: int) -> tuple[int, int]:
    """Returns the oldest PTX ISA version that these kernels and a compute capability allow."""
    return _FIRST_ISA.get(sm, _BASE_ISA if sm < _FIRST_WITHOUT_BASE else NEWEST_ISA)
