"""Exported graphs pass ONNX Runtime's own preparation for quantisation, and are quantised by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import load
from tests.exported import TinyExport
from tests.exporting.exports import ONE_THREAD
from tests.runtime.cases import GOOD


@pytest.mark.parametrize("form", ["dense", "half"])
def test_a_graph_is_prepared_and_quantised(tiny: TinyExport, tmp_path: Path, form: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    artifact: Artifact = getattr(tiny, form)

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([{"images": GOOD}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared, quantised = tmp_path / "prepared.onnx", tmp_path / "quantised.onnx"
    quant_pre_process(str(artifact.model_path), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(quantised), Images(), weight_type=QuantType.QInt8, per_channel=True)
    session = onnxruntime.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    (logits, *_) = session.run(None, {"images": GOOD})
    wanted = load(artifact, options=ONE_THREAD).run(GOOD).logits
    assert np.abs(logits - wanted).max() < 0.3 * np.abs(wanted).max()
