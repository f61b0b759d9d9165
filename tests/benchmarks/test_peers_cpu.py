"""The comparison with other methods in its short form: a small model, few images, hardly any time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import graphs
from benchmarks.peers_cpu import Method, accuracies, methods, times
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.precision import RunPrecision
from tests.tiny import HALF, small_vit

ALL = {"dense", "density", "adaptive", "padded", "merging", "fused", "lower resolution"}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return describe(small_vit(img_size=64, depth=4), "small", WeightsSource.FILE, "w.pth")


@pytest.fixture(scope="module")
def found(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Method]]:
    folder = tmp_path_factory.mktemp("peers")
    return folder, methods(model, HALF, folder / f"sait_demo_digits-{HALF}")


@pytest.mark.slow
def test_all_methods_cost_about_as_much(found: tuple[Path, dict[str, Method]]) -> None:
    assert set(found[1]) == ALL
    wanted = found[1]["density"].mac_ratio
    for name in ("adaptive", "padded"):
        assert found[1][name].mac_ratio == pytest.approx(wanted, rel=0.1), name
    for name in ("merging", "fused"):
        assert wanted <= found[1][name].mac_ratio < 1.4 * wanted, name
    assert 1 < found[1]["lower resolution"].mac_ratio <= wanted


@pytest.mark.slow
def test_graphs_that_are_there_are_taken(
    model: LoadedModel, found: tuple[Path, dict[str, Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "trace", lambda *_: pytest.fail("a graph was exported again"))
    again = methods(model, HALF, found[0] / f"sait_demo_digits-{HALF}")
    hashes = [{name: one.artifact.manifest.files for name, one in each.items()} for each in (found[1], again)]
    assert hashes[0] == hashes[1]
    assert len({one["model.onnx"] for one in hashes[0].values()}) == len(ALL)


@pytest.mark.slow
def test_times_are_of_all_in_turns_and_what_is_missing_is_named(
    found: tuple[Path, dict[str, Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (("onnxruntime", RunPrecision.FP32), ("onnxruntime", RunPrecision.BF16))
    monkeypatch.setattr("benchmarks.peers_cpu.SETTINGS", settings)
    measured = times(found[1], 32, (1, 3), 0.01)
    assert [(cell["runtime"], cell["batch"]) for cell in measured["cells"]] == [("onnxruntime", 1), ("onnxruntime", 3)]
    assert all(set(cell["methods"]) == ALL for cell in measured["cells"])
    assert measured["cells"][0]["methods"]["dense"]["speedup"]["median"] == 1
    (skipped,) = measured["skipped"]
    assert (skipped["runtime"], skipped["precision"]) == ("onnxruntime", "bf16")
    assert "bf16" in skipped["reason"]
    json.dumps(measured)


@pytest.mark.slow
def test_accuracies_are_of_all_and_padding_answers_as_packing_does(
    model: LoadedModel, found: tuple[Path, dict[str, Method]]
) -> None:
    rows = accuracies(model, (HALF,), 24, found[0])["rows"]
    by_name = {row["method"]: row for row in rows}
    assert set(by_name) == ALL
    assert by_name["padded"]["top1_percent"] == by_name["adaptive"]["top1_percent"]
    assert by_name["adaptive"]["mac_ratio"] == pytest.approx(by_name["density"]["mac_ratio"], rel=0.2)
    assert by_name["dense"]["change_from_dense"]["value"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_graphs_answer_alike_on_all_runtimes(found: tuple[Path, dict[str, Method]], runtime: str) -> None:
    for name, method in found[1].items():
        model = method.artifact.manifest.model
        images = np.random.default_rng(5).standard_normal((3, 3, *model.image_size), dtype=np.float32)
        try:
            runner = load(method.artifact, runtime, RunOptions(threads=1))
        except RuntimeUnavailable as error:
            pytest.skip(error.message)
        wanted = load(method.artifact).run(images).logits
        np.testing.assert_allclose(runner.run(images).logits, wanted, rtol=0, atol=1e-3, err_msg=name)
