"""``sait-deploy inspect``: manifest, graph and multiply-accumulates, and the comparison with torch made again."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from sait_deploy import demo
from sait_deploy.artifact import MANIFEST_FILE, MODEL_FILE, sha256_of
from tests.cli.calls import Sait

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"


def rows(out: str) -> dict[str, str]:
    """Returns the lines of a listing by their first column, which is 15 wide."""
    return {line[:17].strip(): line[17:].strip() for line in out.splitlines() if line.strip()}


def test_a_pruned_artifact(sait: Sait, demo_workspace: Path) -> None:
    done = sait("inspect", demo_workspace / PRUNED)
    assert (done.code, done.err) == (0, "")
    shown = rows(done.out.partition("\n")[2])
    assert shown["id"].startswith(f"{PRUNED}-")
    assert shown["input"] == "96 × 96, 144 patch + 1 prefix tokens"
    assert shown["pruning"] == "density 0.6 keeps 87 of 144, in block 1 by mean score"
    assert shown["functions"] == "ai.sait::MassTokenSelect, ai.sait::PackRows"
    assert shown["opsets"] == "ai.onnx 20, ai.sait 1"
    assert "1 ai.sait::MassTokenSelect" in done.out
    assert "MAC ratio 1.4" in shown["MACs per image"]
    assert "checked again" not in shown


def test_without_an_artifact_the_last_export_is_shown(sait: Sait, demo_workspace: Path) -> None:
    out = sait("inspect", "--workspace", demo_workspace).out
    assert out.index(str(demo_workspace / DENSE)) < out.index(str(demo_workspace / PRUNED))


def test_json_holds_manifest_and_graph(sait: Sait, demo_workspace: Path) -> None:
    done = sait("inspect", "--json", "--workspace", demo_workspace)
    dense, pruned = json.loads(done.out)
    for entry, name in ((dense, DENSE), (pruned, PRUNED)):
        assert entry["path"] == str(demo_workspace / name)
        assert entry["manifest"] == json.loads((demo_workspace / name / MANIFEST_FILE).read_text())
        assert entry["check"] is None
        model = onnx.load(str(demo_workspace / name / MODEL_FILE))
        assert sum(entry["graph"]["operators"].values()) == len(model.graph.node)
        weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
        assert entry["graph"]["weight_bytes"] == weights
    assert dense["graph"]["functions"] == []


def test_check_compares_with_torch_again(sait: Sait, demo_workspace: Path, digits: Path) -> None:
    done = sait("inspect", demo_workspace / PRUNED, "--check", "--images", digits, "--json")
    assert done.code == 0, done.err
    assert done.err == f"- {PRUNED}: comparing with torch\n"
    (entry,) = json.loads(done.out)
    assert entry["check"]["images"] == 10
    assert entry["check"]["image_source"] == str(digits)
    assert entry["check"]["largest_difference"] < entry["check"]["tolerance"]
    shown = sait("inspect", demo_workspace / PRUNED, "--check", "--images", digits).out
    assert "10 images" in rows(shown)["checked again"]


def test_check_finds_a_graph_that_computes_something_else(sait: Sait, workspace: Path) -> None:
    """Its hashes are in order, its head's bias is not the checkpoint's."""
    file = workspace / PRUNED / MODEL_FILE
    model = onnx.load(str(file))
    (bias,) = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [10]]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    before = sha256_of(file)
    onnx.save(model, str(file))
    manifest = workspace / PRUNED / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace(before, sha256_of(file)))
    assert sait("inspect", workspace / PRUNED).code == 0
    done = sait("inspect", workspace / PRUNED, "--check")
    assert (done.code, done.out) == (6, "")
    assert "differ from the reference's by" in done.err


def test_check_wants_the_weights_it_was_exported_from(sait: Sait, workspace: Path) -> None:
    manifest = workspace / PRUNED / MANIFEST_FILE
    fields = json.loads(manifest.read_text())
    fields["weights"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(fields))
    done = sait("inspect", workspace / PRUNED, "--check")
    assert (done.code, done.out) == (5, "")
    assert "name the weights file" in done.err


def test_check_takes_weights_from_a_file(sait: Sait, workspace: Path, tmp_path: Path) -> None:
    manifest = workspace / PRUNED / MANIFEST_FILE
    fields = json.loads(manifest.read_text())
    fields["weights"] |= {"source": "file", "origin": str(tmp_path / "gone.safetensors")}
    manifest.write_text(json.dumps(fields))
    assert sait("inspect", workspace / PRUNED, "--check").code == 4
    assert sait("inspect", workspace / PRUNED, "--check", "--weights", demo.WEIGHTS).code == 0


@pytest.mark.parametrize("option", ["--images", "--weights"])
def test_options_of_check_alone_are_not_passed_over(sait: Sait, demo_workspace: Path, option: str) -> None:
    done = sait("inspect", demo_workspace / PRUNED, option, "somewhere")
    assert (done.code, done.out) == (2, "")
    assert "--check" in done.err


def test_what_is_no_artifact(sait: Sait, workspace: Path) -> None:
    (workspace / PRUNED / MODEL_FILE).write_bytes(b"no model")
    for path, message in (("nowhere", "does not exist"), (workspace, "manifest.json"), (workspace / PRUNED, "SHA-256")):
        done = sait("inspect", path)
        assert (done.code, done.out) == (5, "")
        assert message in done.err


def test_a_file_that_is_no_onnx_model(sait: Sait, workspace: Path) -> None:
    """Though its manifest says that it is."""
    file, manifest = workspace / DENSE / MODEL_FILE, workspace / DENSE / MANIFEST_FILE
    before = sha256_of(file)
    file.write_bytes(b"\x00 no model")
    manifest.write_text(manifest.read_text().replace(before, sha256_of(file)))
    done = sait("inspect", workspace / DENSE)
    assert (done.code, done.out) == (5, "")
    assert "is no ONNX model" in done.err
