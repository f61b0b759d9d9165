"""The C++ consumer: its golden reader agrees with NumPy, and it runs engines of a stand-in for TensorRT as it should.

No engine runs without a GPU. So the whole program is compiled against ``tensorrt_double``, whose engines are text and
compute sums, and, where NVIDIA's headers are to be found, checked by the compiler against those.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import GOLDEN_FILE
from sait_deploy.artifacts.golden import write_golden
from tests.exported import TinyExport
from tests.samples.cpp_parts import (
    CLASSES,
    COMPILE,
    IMAGES,
    LIMITS,
    MODEL,
    PROGRAM,
    SAMPLE,
    STEM,
    TOKENS,
    TRUNK,
    adaptive_golden,
    artifact,
    dense_golden,
    refusal,
    run,
    trunk,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def list_golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("list_golden") / "list_golden"
    subprocess.run([*COMPILE, "list_golden.cpp", "golden.cpp", "-o", program], cwd=SAMPLE, check=True)
    return program


def check_listing(list_golden: Path, place: Path) -> None:
    done = run(list_golden, place)
    assert done.returncode == 0, done.stderr
    with np.load(place, allow_pickle=False) as arrays:
        lines = {line.split()[0]: line for line in done.stdout.splitlines()}
        assert lines.keys() == set(arrays.files)
        for name, array in arrays.items():
            before, _, total = lines[name].rpartition(" sum ")
            assert before == f"{name} {array.dtype} {list(array.shape)}"
            np.testing.assert_allclose(float(total), array.sum(dtype=np.float64), rtol=1e-6, atol=1e-4)


def test_golden_files_of_exports_read_as_numpy_reads_them(list_golden: Path, tiny: TinyExport) -> None:
    for exported in (tiny.dense, tiny.half):
        check_listing(list_golden, exported.path / GOLDEN_FILE)


def test_every_array_of_a_golden_file_is_read(list_golden: Path, tmp_path: Path) -> None:
    features = np.arange(IMAGES * TOKENS * 3, dtype=np.float32).reshape(IMAGES, TOKENS, 3)
    write_golden(tmp_path / GOLDEN_FILE, dataclasses.replace(adaptive_golden(), token_features=features))
    check_listing(list_golden, tmp_path / GOLDEN_FILE)


def test_arrays_of_any_rank_and_size_are_read(list_golden: Path, tmp_path: Path) -> None:
    place = tmp_path / "other.npz"
    arrays: dict[str, Any] = {"scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.int32), "one": np.ones(1, "u1")}
    np.savez(place, **arrays)
    check_listing(list_golden, place)


def damaged(place: Path, how: str) -> None:
    """Changes a golden file as the tests below name it."""
    golden, whole = adaptive_golden(), place.read_bytes()
    if how == "cut short":
        place.write_bytes(whole[:-30])
    elif how == "one bit flipped":
        at = whole.index(golden.images.tobytes()) + 5
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif how == "compressed":
        np.savez_compressed(place, images=golden.images)
    elif how == "of another type":
        np.savez(place, images=golden.images.astype(np.float64))
    elif how == "in Fortran's order":
        np.savez(place, images=np.asfortranarray(golden.images))
    elif how == "no archive":
        place.write_bytes(b"x" * 5000)
    elif how == "a header that promises more":
        place.write_bytes(whole.replace(b"(2, 3, 4, 4)", b"(9, 3, 4, 4)"))
    else:
        place.write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut short", "no zip archive, or not all of one"),
        ("one bit flipped", "images.npy: its checksum is another"),
        ("compressed", "images.npy: it is compressed"),
        ("of another type", "its elements are <f8"),
        ("in Fortran's order", "it is in Fortran's order"),
        ("no archive", "no zip archive"),
        ("a header that promises more", "checksum"),
        ("empty", "no zip archive"),
    ],
)
def test_a_damaged_golden_file_is_named(list_golden: Path, tmp_path: Path, how: str, why: str) -> None:
    place = tmp_path / GOLDEN_FILE
    write_golden(place, adaptive_golden())
    damaged(place, how)
    line = refusal(run(list_golden, place))
    assert line.startswith(f"{place} cannot be read (")
    assert why in line


def test_no_truncation_of_a_golden_file_crashes_the_reader(list_golden: Path, tmp_path: Path) -> None:
    write_golden(tmp_path / GOLDEN_FILE, adaptive_golden())
    whole = (tmp_path / GOLDEN_FILE).read_bytes()
    for size in np.linspace(1, len(whole) - 1, 40).astype(int):
        (tmp_path / "part.npz").write_bytes(whole[-size:])
        refusal(run(list_golden, tmp_path / "part.npz"))


def test_an_engine_of_one_part_agrees(run_engine: Path, tmp_path: Path) -> None:
    done = run(run_engine, artifact(tmp_path, dense_golden(), model=MODEL))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "they agree"
    assert [line.partition(" image ")[2] for line in lines if line.startswith("golden")] == [
        line.partition(" image ")[2] for line in lines if line.startswith("engine")
    ]
    assert "engine image 1: 6.00000 of class 4, 5.00000 of class 3, 4.00000 of class 2; 19 tokens kept" in lines
    assert "model.plan: profile 0 of 1" in lines


def test_an_engine_of_embeddings_agrees_too(run_engine: Path, tmp_path: Path) -> None:
    model = MODEL.replace("output logits", "output embeddings")
    golden = dense_golden()
    done = run(run_engine, artifact(tmp_path, golden, model=model))
    assert done.returncode == 0, done
    shown = ", ".join(f"{value:.5f}" for value in golden.logits[0, :3])
    assert f"engine image 0: {shown}, ... of {CLASSES}; 19 tokens kept" in done.stdout
    assert "embeddings: differ by at most 0, within 0.02" in done.stdout
    golden.logits[1, 3] += 0.25
    assert run(run_engine, artifact(tmp_path / "other", golden, model=model)).returncode == 1


def test_stem_and_trunk_agree_and_one_small_copy_lies_between_them(run_engine: Path, tmp_path: Path) -> None:
    done = run(run_engine, artifact(tmp_path, adaptive_golden(), stem=STEM, trunk=trunk((1, 32, 1184))))
    assert done.returncode == 0, done
    assert f"seam: {LIMITS[:, 1].sum() + 2} rows kept, 21 of the longest image" in done.stdout
    assert "counts: differ by at most 0, within 0" in done.stdout
    steps = done.stderr.splitlines()
    between = steps[steps.index("run stem with profile 0") + 1 : steps.index("run trunk with profile 0")]
    assert between == [f"download {(IMAGES + 1) * 4} bytes", f"upload {TOKENS * 4} bytes"]


@pytest.mark.parametrize(
    ("profiles", "chosen"),
    [
        (((1, 16, 30), (31, 60, 1184)), 1),
        (((1, 16, 32), (33, 60, 1184)), 0),
        (((1, 4, 1184), (1, 30, 1184), (1, 300, 1184)), 1),
        (((1, 32, 1184), (1, 32, 1184)), 0),
    ],
)
def test_the_profile_tuned_nearest_runs_the_trunk(
    run_engine: Path, tmp_path: Path, profiles: tuple[tuple[int, int, int], ...], chosen: int
) -> None:
    done = run(run_engine, artifact(tmp_path, adaptive_golden(), stem=STEM, trunk=trunk(*profiles)))
    assert done.returncode == 0, done
    assert f"trunk.plan: profile {chosen} of {len(profiles)}" in done.stdout
    assert f"run trunk with profile {chosen}" in done.stderr


def test_logits_that_differ_fail_and_a_tolerance_lets_them_pass(run_engine: Path, tmp_path: Path) -> None:
    golden = dense_golden()
    golden.logits[1, 3] += 0.25
    engine = artifact(tmp_path, golden, model=MODEL)
    done = run(run_engine, engine)
    assert done.returncode == 1
    assert "logits: differ by at most 0.25, over 0.02" in done.stdout
    assert done.stdout.splitlines()[-1] == "they differ"
    assert run(run_engine, engine, "--tolerance", "0.3").returncode == 0


def test_counts_that_differ_fail_and_a_tolerance_lets_them_pass(run_engine: Path, tmp_path: Path) -> None:
    golden = adaptive_golden()
    golden.counts[0] -= 1
    engine = artifact(tmp_path, golden, stem=STEM, trunk=trunk((1, 32, 1184)))
    done = run(run_engine, engine)
    assert done.returncode == 1
    assert "counts: differ by at most 1, over 0" in done.stdout
    assert run(run_engine, engine, "--count-tolerance", "1").returncode == 0


def test_a_logit_that_is_no_number_never_agrees(run_engine: Path, tmp_path: Path) -> None:
    golden = dense_golden()
    golden.logits[0, 0] = np.nan
    assert run(run_engine, artifact(tmp_path, golden, model=MODEL), "--tolerance", "1e9").returncode == 1


def test_the_golden_file_may_lie_elsewhere_and_host_code_is_allowed_only_when_asked(
    run_engine: Path, tmp_path: Path
) -> None:
    engine = artifact(tmp_path / "artifact", dense_golden(), model=MODEL)
    elsewhere = (tmp_path / "artifact" / GOLDEN_FILE).rename(tmp_path / "other.npz")
    assert str(GOLDEN_FILE) in refusal(run(run_engine, engine))
    done = run(run_engine, "--golden", elsewhere, engine)
    assert done.returncode == 0
    assert "host code" not in done.stderr
    assert "host code allowed" in run(run_engine, engine, "--golden", elsewhere, "--allow-host-code").stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "give an engine folder: run_engine ARTIFACT/engines/NAME"),
        (("one", "two"), "give one engine folder, not two as well"),
        (("--fast",), "there is no option --fast"),
        (("one", "--tolerance"), "--tolerance takes a value"),
        (("one", "--tolerance", "much"), "--tolerance takes a number from 0, not 'much'"),
        (("one", "--count-tolerance", "-1"), "--count-tolerance takes a number from 0, not '-1'"),
        (("one", "--tolerance", "nan"), "--tolerance takes a number from 0, not 'nan'"),
        (("/does/not/exist",), "/does/not/exist is no folder"),
    ],
)
def test_what_it_is_given_is_checked(run_engine: Path, words: tuple[str, ...], why: str) -> None:
    assert refusal(run(run_engine, *words)) == why


def without(plan: str, tensor: str) -> str:
    return "".join(line for line in plan.splitlines(keepends=True) if tensor not in line.split())


@pytest.mark.parametrize(
    ("stem", "last", "why"),
    [
        (STEM, "", "lacks model.plan, or stem.plan and trunk.plan"),
        ("an engine", "", "lacks model.plan, or stem.plan and trunk.plan"),
        ("an engine", TRUNK, "stem.plan cannot be deserialised, it may be damaged or built for another GPU or "
         "TensorRT: the magic number is another"),
        (STEM.replace("3 4 4", "3 8 8"), TRUNK, "stem.plan takes images of shape [-1, 3, 8, 8], not [2, 3, 4, 4]"),
        (STEM.replace("mass float32", "mass float16"), TRUNK, "takes mass as float16, the golden file has float32"),
        (STEM.replace("mass", "warmth"), TRUNK, "takes warmth as float32, which the golden file lacks"),
        (STEM.replace("8 3 4 4 : 32", "1 3 4 4 : 1"), TRUNK, "no profile of stem.plan takes images of shape "
         "[2, 3, 4, 4], but [1, 3, 4, 4] to [1, 3, 4, 4]; build it with a wider --batch"),
        (STEM.replace("counts int32", "counts int8"), TRUNK, "knows no tensors of TensorRT's type"),
        (STEM, TRUNK.replace("tokens float32", "tokens float16"), "trunk.plan takes tokens as float16, stem.plan gives "
         "float32: they are of two engines"),
        (STEM, TRUNK.replace("guard", "sentry"), "trunk.plan takes sentry as float32, which stem.plan lacks"),
        (without(STEM, "cu_seqlens"), TRUNK, "stem.plan has no cu_seqlens: it is no stem"),
        (STEM, TRUNK.replace("float32 -1 5", "float32 -1 6"), "the engine gives logits as float32 [2, 6], the golden "
         "file as float32 [2, 5]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(run_engine: Path, tmp_path: Path, stem: str, last: str, why: str) -> None:
    plans = {"stem": stem} | ({"trunk": last + trunk((1, 32, 1184)).removeprefix(TRUNK)} if last else {})
    assert why in refusal(run(run_engine, artifact(tmp_path, adaptive_golden(), **plans)))


@pytest.mark.parametrize("limit", [-1, 37])
def test_counts_that_cannot_be_stop_before_the_trunk(run_engine: Path, tmp_path: Path, limit: int) -> None:
    limits = np.array([[1, 10], [1, limit]], np.int32)
    golden = dataclasses.replace(adaptive_golden(), keep_limits=limits)
    done = run(run_engine, artifact(tmp_path, golden, stem=STEM, trunk=trunk((1, 32, 1184))))
    assert "run trunk" not in done.stderr
    assert refusal(done) == "stem.plan counted kept tokens that cannot be: check its selection"


def test_without_a_gpu_it_says_so(run_engine: Path, tmp_path: Path) -> None:
    done = run(run_engine, artifact(tmp_path, dense_golden(), model=MODEL), DOUBLE_WITHOUT_GPU="1")
    assert "no CUDA-capable device is detected (100); an NVIDIA GPU and a driver" in refusal(done)


def nvidia_headers() -> tuple[Path, Path] | None:
    """Returns the folders of TensorRT's and CUDA's headers, from the environment or where systems keep them."""
    trt = [Path(p) for p in (os.environ.get("TENSORRT_INCLUDE", ""), "/usr/local/tensorrt/include") if p]
    trt += [Path("/opt/tensorrt/include"), *Path("/usr/include").glob("*-linux-gnu"), Path("/usr/include")]
    cuda = [Path(p) for p in (os.environ.get("CUDA_INCLUDE", ""), "/usr/local/cuda/include", "/usr/include") if p]
    found_trt = next((p for p in trt if (p / "NvInferRuntime.h").is_file()), None)
    found_cuda = next((p for p in cuda if (p / "cuda_runtime_api.h").is_file()), None)
    return None if found_trt is None or found_cuda is None else (found_trt, found_cuda)


@pytest.mark.slow
def test_it_compiles_against_nvidias_headers() -> None:
    headers = nvidia_headers()
    if headers is None:
        pytest.skip("no headers of TensorRT and CUDA: name their folders in TENSORRT_INCLUDE and CUDA_INCLUDE")
    places = [word for folder in headers for word in ("-isystem", str(folder))]
    done = subprocess.run(
        [*COMPILE, *places, "-fsyntax-only", *PROGRAM], cwd=SAMPLE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
