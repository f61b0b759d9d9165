"""int8 artifacts on OpenVINO: every form compiles, its layers run in int8, and answers are close to ONNX Runtime's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.exporting.plan import DEFAULT_OPTIONS
from sait_deploy.exporting.stage import export
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.runtime.openvino_sums import EXACT
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import OPENVINO
from tests.quantization.conftest import ANY_AGREEMENT
from tests.runtime.cases import GOOD, KEPT, ONE_THREAD
from tests.tiny import family, random_batch

openvino = pytest.importorskip("openvino")


def close_to_onnxruntime(artifact: Artifact, images: np.ndarray) -> None:  # type: ignore[type-arg]
    asked = {"mass": 1} if artifact.manifest.form is Form.ADAPTIVE else {}
    runner, reference = load(artifact, OPENVINO, ONE_THREAD), load(artifact, options=ONE_THREAD)
    assert runner.precision == "int8"
    layers = artifact.manifest.quantization
    assert layers is not None
    assert f"{len(layers.quantized)} i8" in runner.environment["matrix products"]
    wanted = reference.run(images, **asked)
    found = runner.run(images, **asked)
    np.testing.assert_array_equal(found.kept, wanted.kept)
    assert bool(runner.doubts) == (runner.environment["int8 sums"] != EXACT)
    # Without VNNI OpenVINO's sums saturate, and ONNX Runtime's do not.
    most = 0.1 if runner.environment["int8 sums"] == EXACT else 0.25
    assert np.abs(found.logits - wanted.logits).max() < most * np.abs(wanted.logits).max()


def test_every_form_of_the_small_model(quantised: list[Artifact]) -> None:
    for artifact in quantised:
        if artifact.manifest.form is not Form.DENSITY:  # its selection may differ where scores nearly tie
            close_to_onnxruntime(artifact, GOOD)
        else:
            assert load(artifact, OPENVINO, ONE_THREAD).run(GOOD).kept.tolist() == [KEPT] * len(GOOD)


@pytest.mark.parametrize("name", ["average-register", "siglip", "dinov3"])
def test_dense_models_of_other_readouts(name: str, tmp_path: Path) -> None:
    options = dataclasses.replace(DEFAULT_OPTIONS, densities=(), images=demo.IMAGES / "3", output=tmp_path)
    (artifact,) = quantize(export(family(name), options), ANY_AGREEMENT)
    close_to_onnxruntime(artifact, random_batch((3, 3, *artifact.manifest.model.image_size)))


def test_the_rest_of_an_int8_artifact_runs_in_bf16_where_asked(quantised: list[Artifact]) -> None:
    options = RunOptions(threads=1, precision=RunPrecision.INT8_BF16)
    if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(RuntimeUnavailable, match="int8"):
            load(quantised[0], OPENVINO, options)
        return
    for artifact in quantised:
        products = load(artifact, OPENVINO, options).environment["matrix products"]
        assert "bf16" in products and "i8" in products and " f32" not in products
