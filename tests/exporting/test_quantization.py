"""ONNX Runtime's own preparation for quantisation accepts exported graphs, and ONNX Runtime quantises them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.stage import export_model
from sait_deploy.runtime import load
from tests.exported import POINTS, TinyExport
from tests.exporting.exports import HALVES, ONE_THREAD
from tests.runtime.cases import GOOD
from tests.shared import made_once

POINT = {"mass": np.full(len(GOOD), 0.6, np.float32), "keep_limits": np.full((len(GOOD), 2), (1, 36), np.int32)}


@pytest.fixture(scope="session")
def plain(tiny: TinyExport) -> list[Artifact]:
    """The model without model-local functions: dense, at density 0.5, adaptive."""
    options = dataclasses.replace(HALVES, points=POINTS, operators=OperatorForm.INLINE)
    return made_once("plain", lambda folder: export_model(tiny.model, dataclasses.replace(options, output=folder)))


def check_quantised(artifact: Artifact, folder: Path, **options: Any) -> None:
    """Prepares and quantises an artifact's graph with ONNX Runtime, and compares answers with the artifact's."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    known = [value.name for value in artifact.manifest.inputs]
    feeds = {name: array for name, array in ({"images": GOOD} | POINT).items() if name in known}

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([feeds])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared, quantised = folder / "prepared.onnx", folder / "quantised.onnx"
    quant_pre_process(str(artifact.model_path), str(prepared), **options)
    # Weights of 7 bits, as sums of products overflow on processors that have no instructions for them (VNNI).
    how: dict[str, Any] = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    quantize_static(str(prepared), str(quantised), Images(), **how)
    session = onnxruntime.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    (logits, *_) = session.run(None, feeds)
    wanted = load(artifact, options=ONE_THREAD).run(GOOD).logits
    assert np.abs(logits - wanted).max() < 0.3 * np.abs(wanted).max()


@pytest.mark.parametrize("form", ["dense", "half"])
def test_a_graph_is_prepared_and_quantised(tiny: TinyExport, tmp_path: Path, form: str) -> None:
    check_quantised(getattr(tiny, form), tmp_path, skip_symbolic_shape=True)


@pytest.mark.parametrize("form", ["dense", "density", "adaptive"])
def test_a_graph_of_standard_operators_needs_no_option(plain: list[Artifact], tmp_path: Path, form: str) -> None:
    (artifact,) = (artifact for artifact in plain if artifact.manifest.form == form)
    check_quantised(artifact, tmp_path)
