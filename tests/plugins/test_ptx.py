"""The kernels compiled for every kind of GPU, and fit to be loaded by something other than Triton."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from sait_deploy.errors import BuilderUnavailable, InvalidArgument
from sait_deploy.plugins.mass_token_select import triton_kernel as select_kernel
from sait_deploy.plugins.pack_rows import triton_kernel as pack_kernel
from sait_deploy.plugins.ptx import MOST_SHARED_BYTES, NEWEST_ISA, CompiledKernel, isa_for, portable
from tests.plugins.assembled import assemble

SMS = (75, 80, 86, 89, 90, 100, 120)
KERNELS = {"MassTokenSelect": (select_kernel, 196), "PackRows": (pack_kernel, 197)}
every_kernel = pytest.mark.parametrize("name", list(KERNELS))
every_sm = pytest.mark.parametrize("sm", SMS)

PARAMETER_TYPES = {"*fp32": ".u64", "*i32": ".u64", "i32": ".u32"}


def compiled(name: str, sm: int) -> CompiledKernel:
    kernel, tokens = KERNELS[name]
    built: CompiledKernel = kernel.compiled(tokens, sm)
    return built


def parameters(kernel: CompiledKernel) -> list[str]:
    """The declared type of each parameter, in order."""
    listed = re.search(rf"\.entry {kernel.entry}\((.*?)\)", kernel.ptx, re.DOTALL)
    assert listed is not None
    return [line.split()[1] for line in listed[1].split(",")]


@every_kernel
@every_sm
def test_only_the_declared_parameters_are_left(name: str, sm: int) -> None:
    kernel = compiled(name, sm)
    signature = KERNELS[name][0].SIGNATURE
    assert parameters(kernel) == [PARAMETER_TYPES[kind] for kind in signature.values()]
    read = {int(number) for number in re.findall(rf"{kernel.entry}_param_(\d+)\]", kernel.ptx)}
    assert read == set(range(len(signature)))


@every_kernel
@every_sm
def test_what_a_loader_is_asked_for(name: str, sm: int) -> None:
    kernel = compiled(name, sm)
    major, minor = isa_for(sm)
    assert (major, minor) <= NEWEST_ISA
    assert f"\n.version {major}.{minor}\n.target sm_{sm}\n" in kernel.ptx
    assert kernel.ptx.count(".entry") == 1
    assert f".reqntid {kernel.threads}" in kernel.ptx
    assert kernel.shared_bytes <= MOST_SHARED_BYTES


@every_kernel
@every_sm
@pytest.mark.parametrize("assembler", ["ptxas", "ptxas_blackwell"])
def test_it_is_assembled_again_without_memory_of_its_own(name: str, sm: int, assembler: str, tmp_path: Path) -> None:
    kernel = compiled(name, sm)
    said = assemble(kernel.ptx, getattr(triton.knobs.nvidia, assembler), tmp_path)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said
    assert "0 bytes gmem" in said
    assert ".local" not in kernel.ptx


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokens"), [("MassTokenSelect", 4096), ("PackRows", 4101)])
def test_the_largest_rows_fit_too(name: str, tokens: int, tmp_path: Path) -> None:
    kernel = KERNELS[name][0].compiled(tokens, 90)
    assert kernel.threads <= 1024
    assert kernel.shared_bytes <= MOST_SHARED_BYTES
    assert "0 bytes stack frame, 0 bytes spill" in assemble(kernel.ptx, triton.knobs.nvidia.ptxas_blackwell, tmp_path)


@every_kernel
def test_a_kernel_says_nothing_of_the_machine_that_compiled_it(name: str) -> None:
    ptx = compiled(name, 90).ptx
    assert not re.search(r"^\s*\.(loc|file|section)\b", ptx, re.MULTILINE)
    assert str(Path(__file__).parents[2]) not in ptx
    assert "triton_kernel" not in ptx


@every_sm
def test_the_rounding_survives_the_compiler(sm: int) -> None:
    """A sum and a difference for each of a thread's two tokens, apart from the product; nothing is flushed to zero."""
    ptx = compiled("MassTokenSelect", sm).ptx
    assert len(re.findall(r"\badd\.rn\.f32\b", ptx)) + 2 * len(re.findall(r"\badd\.rn\.f32x2\b", ptx)) == 4
    assert "fma." not in ptx
    assert "ftz" not in ptx
    assert "approx" not in ptx


def hidden(kernel: CompiledKernel, instruction: str = "") -> str:
    """The text as Triton writes it: two more parameters, an exact GPU."""
    count = len(parameters(kernel))
    last = f"{kernel.entry}_param_{count - 1}\n"
    more = "".join(f",\n\t.param .u64 .ptr .global .align 1 {kernel.entry}_param_{count + i}" for i in (0, 1))
    ptx = kernel.ptx.replace(last, f"{last[:-1]}{more}\n").replace(".target sm_90\n", ".target sm_90a\n")
    return ptx.replace("\tret;", f"{instruction}\tret;")


def test_hidden_parameters_are_dropped() -> None:
    kernel = compiled("PackRows", 90)
    assert "_param_7" in hidden(kernel)
    assert portable(hidden(kernel), kernel.entry, 6, 90) == kernel.ptx


def test_a_hidden_parameter_that_is_read_is_an_error() -> None:
    kernel = compiled("PackRows", 90)
    reads = f"\tld.param.b64 %rd1, [{kernel.entry}_param_7];\n"
    with pytest.raises(BuilderUnavailable, match="reads a parameter that only Triton's own launcher passes"):
        portable(hidden(kernel, reads), kernel.entry, 6, 90)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (".version 8.0", ".version 9.4", "ISA 9.4, newer than asked for"),
        (".target sm_90", ".target sm_100a", "not in the form"),
        (".entry sait_pack_rows", ".entry other", "not in the form"),
        (".version 8.0", "", "not in the form"),
    ],
)
def test_ptx_of_another_form_is_an_error(old: str, new: str, says: str) -> None:
    kernel = compiled("PackRows", 90)
    with pytest.raises(BuilderUnavailable, match=says):
        portable(kernel.ptx.replace(old, new), kernel.entry, 6, 90)


def test_too_few_parameters_are_an_error() -> None:
    kernel = compiled("PackRows", 90)
    with pytest.raises(BuilderUnavailable, match="not in the form"):
        portable(kernel.ptx, kernel.entry, 7, 90)


def test_a_gpu_too_old_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match=r"compute capability 7\.0") as raised:
        pack_kernel.compiled(197, 70)
    assert "Turing" in raised.value.hint


def test_more_tokens_than_a_kernel_covers_are_an_error() -> None:
    with pytest.raises(InvalidArgument, match="4097 patch tokens"):
        select_kernel.compiled(4097, 90)


def test_compiling_twice_gives_the_same_text() -> None:
    code = (
        "from sait_deploy.plugins.pack_rows.triton_kernel import compiled; import sys; "
        "sys.stdout.write(compiled(197, 90).ptx)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == compiled("PackRows", 90).ptx
