"""Which artifact runs where a precision is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.runtime.precision import RunPrecision
from tests.exported import TinyExport
from tests.siblings import with_int8

ORT, OPENVINO, TORCH = "onnxruntime", "openvino", "torch"


@pytest.mark.parametrize(
    ("runtime", "precision", "wants_int8"),
    [
        (ORT, None, None),
        (ORT, RunPrecision.FP32, False),
        (ORT, RunPrecision.INT8, True),
        (OPENVINO, RunPrecision.BF16, False),
        (OPENVINO, RunPrecision.INT8, True),
        (OPENVINO, RunPrecision.INT8_BF16, True),
        ("tensorrt", RunPrecision.FP16, False),
    ],
)
def test_either_artifact_leads_to_the_one_that_runs(
    tiny: TinyExport, tmp_path: Path, runtime: str, precision: RunPrecision | None, wants_int8: bool | None
) -> None:
    (quantised,) = with_int8(tmp_path, tiny.half)
    exported = open_artifact(tmp_path / tiny.half.path.name)
    for given in (quantised, exported):
        wanted = given if wants_int8 is None else quantised if wants_int8 else exported
        assert artifact_for(given, runtime, precision).manifest == wanted.manifest


@pytest.mark.parametrize(
    ("runtime", "precision", "message"),
    [
        (ORT, RunPrecision.BF16, "onnxruntime does not run fp32 artifacts in bf16"),
        (TORCH, RunPrecision.INT8, "torch does not run int8 artifacts in int8"),
        (ORT, RunPrecision.INT8_BF16, r"onnxruntime does not run int8 artifacts in int8\+bf16"),
        ("tvm", RunPrecision.FP32, "unknown runtime 'tvm'"),
    ],
)
def test_what_a_runtime_cannot_run_is_refused(
    tiny: TinyExport, tmp_path: Path, runtime: str, precision: RunPrecision, message: str
) -> None:
    for given in (*with_int8(tmp_path, tiny.half), open_artifact(tmp_path / tiny.half.path.name)):
        with pytest.raises(InvalidArgument, match=message) as caught:
            artifact_for(given, runtime, precision)
        assert caught.value.hint


def test_without_an_int8_artifact_there_is_none_to_run(tiny: TinyExport) -> None:
    with pytest.raises(ArtifactError, match="no int8 artifact"):
        artifact_for(tiny.half, ORT, RunPrecision.INT8)
