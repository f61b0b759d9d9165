"""That lowered graphs can be built: by TensorRT for RTX where it is installed, which needs no GPU to build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from sait_deploy.exporters.names import CU_SEQLENS, GUARD, KEPT, LANES, TOKENS, AttentionForm, EnginePrecision
from sait_deploy.exporters.packed_lengths import moved_lengths
from tests.exporters.graphs import vit_named
from tests.exporters.lowerings import CASES, made, original

FP16, BF16, FP32 = EnginePrecision.FP16, EnginePrecision.BF16, EnginePrecision.FP32
FUSED, LENGTHS, DECOMPOSED = AttentionForm.FUSED, AttentionForm.FUSED_LENGTHS, AttentionForm.DECOMPOSED
Form = tuple[str, EnginePrecision, AttentionForm]
BUILT: Final[list[Form]] = [
    *((case, FP16, FUSED) for case in CASES),
    ("dense", BF16, FUSED),
    ("trunk", BF16, FUSED),
    ("trunk", BF16, LENGTHS),
    *((case, FP16, LENGTHS) for case in ("stem", "trunk", "trunk-of-attention-pool")),
    ("dense", FP32, DECOMPOSED),
    ("stem", FP32, DECOMPOSED),
    ("trunk", FP32, DECOMPOSED),
]
ON_ROWS: Final[list[Form]] = [("trunk", precision, AttentionForm.PACKED) for precision in (FP16, BF16)]
"""Attention on packed rows: the parser knows it, and TensorRT for RTX has no kernel for it."""

NOT_BUILT: Final[Form] = ("dense", FP32, FUSED)
"""There is no fused kernel for float32, and nothing falls back to another form in silence."""


def profile(case: str) -> dict[str, list[list[int]]]:
    """Least, usual and most of every input's shape, for batches of 1 to 8."""
    vit = vit_named(CASES[case][0])
    tokens, batches = vit.num_prefix_tokens + vit.patch_embed.num_patches, (1, 4, 8)
    shapes = {
        "images": [[n, 3, *vit.patch_embed.img_size] for n in batches],
        "mass": [[n] for n in batches],
        "keep_limits": [[n, 2] for n in batches],
        TOKENS: [[n * tokens, vit.embed_dim] for n in batches],
        CU_SEQLENS: [[n + 1] for n in batches],
        GUARD: [[n, 1] for n in batches],
        KEPT: [[2], [2 * tokens], [8 * tokens]],
        LANES: [[2], [tokens // 2], [tokens]],
    }
    return {value.name: shapes[value.name] for value in original(case).graph.input}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, dict[str, Any]]:
    """What TensorRT for RTX says of each form, all built in one process of their own."""
    pytest.importorskip("tensorrt_rtx")
    folder, jobs = tmp_path_factory.mktemp("engines"), []
    forms = [*BUILT, NOT_BUILT, *ON_ROWS]
    for form in forms:
        path: Path | None = folder / f"{'-'.join(form)}.onnx"
        assert path is not None
        path.write_bytes(made(*form).SerializeToString())
        path = moved_lengths(path) or path
        jobs.append({"model": str(path), "profile": profile(form[0])})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).parent / "rtx_build.py"), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(forms, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", BUILT, ids="-".join)
def test_tensorrt_for_rtx_builds_it_with_its_attentions_fused(form: Form, engines: dict[Form, dict[str, Any]]) -> None:
    engine, (case, _, attention) = engines[form], form
    assert engine["errors"] == [] and engine["bytes"] > 0
    assert engine["attention"] == (0 if attention is DECOMPOSED else CASES[case][3])
    for taken, given in engine["casts"]:
        low, whole_numbers = ({taken, given} & names for names in ({"HALF", "BF16"}, {"INT32", "INT64"}))
        assert not (low and whole_numbers), "no index passes through a float"


@pytest.mark.slow
@pytest.mark.parametrize("form", ON_ROWS, ids="-".join)
def test_the_parser_takes_attention_on_packed_rows_told_where_images_begin(
    form: Form, engines: dict[Form, dict[str, Any]]
) -> None:
    engine = engines[form]
    assert engine["errors"] == [] and engine["attention"] == CASES["trunk"][3]
    assert engine["forms"] == [["PACKED_NHD", "PACKED_NHD", True, True]]
    assert engine["bytes"] == 0


@pytest.mark.slow
def test_attention_that_has_no_fused_kernel_is_not_built(engines: dict[Form, dict[str, Any]]) -> None:
    engine = engines[NOT_BUILT]
    assert (engine["errors"], engine["attention"], engine["bytes"]) == ([], 3, 0)
