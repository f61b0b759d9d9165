"""``sait-deploy inspect``: manifest, graph and multiply-accumulates, and the comparison with torch made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sait_deploy import demo
from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import LAST_EXPORT_FILE, MANIFEST_FILE, MODEL_FILE, Artifact
from tests.cli.calls import Sait
from tests.exported import POINTS, copied, graph_of, with_graph

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"


def rows(out: str) -> dict[str, str]:
    """Returns the lines of a listing by their first column, which two spaces end."""
    lines = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in out.splitlines() if line.strip())
    return {name: "".join(rest) for name, *rest in lines}


def test_a_pruned_artifact(sait: Sait, demo_workspace: Path) -> None:
    done = sait("inspect", demo_workspace / PRUNED)
    assert (done.code, done.err) == (0, "")
    shown = rows(done.out.partition("\n")[2])
    assert shown["id"].startswith(f"{PRUNED}-")
    assert shown["input"] == "96 × 96, 144 patch + 1 prefix tokens"
    assert shown["pruning"] == "density 0.6: keeps 87 of 144, in block 1 by mean score"
    assert shown["functions"] == "ai.sait::MassTokenSelect, ai.sait::PackRows, ai.sait::UniformAttention"
    assert shown["opsets"] == "ai.onnx 20, ai.sait 1"
    assert "1 ai.sait::MassTokenSelect" in done.out
    assert "MAC ratio 1.4" in shown["MACs per image"]
    assert shown["attention"].startswith("of 6, ONNX Runtime CPU fuses ")
    assert "checked again" not in shown
    assert "point" not in shown, "its one point is in the listing"
    assert shown["accuracy"].endswith(" images"), "its weights were trained sparse"


def test_an_adaptive_artifact(sait: Sait, tiny_adaptive: Artifact) -> None:
    done = sait("inspect", tiny_adaptive.path)
    assert (done.code, done.err) == (0, "")
    shown = rows(done.out.partition("\n")[2])
    assert shown["accuracy"] == "unmeasured; never trained sparse"
    assert re.fullmatch(r"adaptive: keeps \d+\.\d of 36 on average, in block \d by mean score", shown["pruning"])
    operators = ("MassTokenSelect", "PackPlan", "PackRows", "PackedAttention", "ReadExtents", "UniformAttention")
    assert shown["functions"] == ", ".join(f"ai.sait::{name}" for name in operators)
    assert shown["parity"].endswith(f"at {', '.join(request.name for request in POINTS)}, mass 1, mixed points")


def test_the_points_of_an_adaptive_artifact_are_a_table(sait: Sait, tiny_adaptive: Artifact) -> None:
    """What is shown is what the manifest says, and that is what its own figures come to."""
    lines = [line.rstrip() for line in sait("inspect", tiny_adaptive.path).out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{tiny_adaptive.manifest.name}: patch tokens"))
    assert re.fullmatch(r".*: patch tokens kept on \d+ images \(.+\)", lines[start])
    assert re.split(r"  +", lines[start + 1]) == [
        *("point", "mass", "limits", "images", "mean ± sd", "p5 – p95", "most", "share"),
        *("GMACs/image", "MAC ratio ×"),
    ]
    assert lines[start + 2 + len(POINTS) :] == []
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    for line, info, request in zip(lines[start + 2 :], pruning.points, POINTS, strict=False):
        kept, macs = info.kept, info.macs
        assert re.split(r"  +", line) == [
            request.name,
            f"{request.mass}",
            f"{request.min_keep} – {request.max_keep or 36}",
            f"{kept.images}",
            f"{kept.mean:.1f} ± {kept.sd:.1f}",
            f"{kept.p5:.0f} – {kept.p95:.0f}",
            f"{kept.most}",
            f"{100 * kept.mean / 36:.0f} %",
            f"{macs.per_image / 1e9:.3f}",
            f"{macs.ratio:.2f}",
        ]
        assert macs.ratio == pytest.approx(macs.dense / macs.per_image)


def test_attention_is_counted(sait: Sait, demo_workspace: Path, tiny_adaptive: Artifact) -> None:
    for path in (demo_workspace / DENSE, demo_workspace / PRUNED, tiny_adaptive.path):
        (entry,) = json.loads(sait("inspect", path, "--json").out)
        counts = entry["attention"]
        assert counts["blocks"] == entry["manifest"]["model"]["geometry"]["depth"]
        assert 0 <= counts["fused"] <= counts["blocks"]
        assert counts["fused"] + counts["products"] >= counts["blocks"], "every product should take its scale in"
        shown = rows(sait("inspect", path).out.partition("\n")[2])["attention"]
        assert [int(number) for number in re.findall(r"\d+", shown)] == list(counts.values())


def test_without_onnxruntime_only_attention_is_unknown(
    sait: Sait, process: Sait, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text("raise ImportError('hidden')")
    done = process("inspect", tiny_adaptive.path, PYTHONPATH=str(hidden))
    assert (done.code, done.err) == (0, "")
    unknown = "unknown: running an artifact needs onnxruntime, which is not installed"
    assert rows(done.out.partition("\n")[2])["attention"] == unknown
    whole = sait("inspect", tiny_adaptive.path).out
    pattern = re.compile(r"^attention .*$", re.MULTILINE)
    assert pattern.sub("", done.out) == pattern.sub("", whole)
    (entry,) = json.loads(process("inspect", tiny_adaptive.path, "--json", PYTHONPATH=str(hidden)).out)
    assert entry["attention"] == unknown


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
    assert dense["graph"]["functions"] == ["ai.sait::UniformAttention"]


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


def test_check_of_an_adaptive_artifact_runs_all_its_points(sait: Sait, tiny_adaptive: Artifact, digits: Path) -> None:
    done = sait("inspect", tiny_adaptive.path, "--check", "--images", digits, "--json")
    assert done.code == 0, done.err
    (entry,) = json.loads(done.out)
    assert entry["check"]["points"] == [*(request.name for request in POINTS), "mass 1", "mixed points"]
    assert entry["check"]["images"] == 10
    assert entry["check"]["largest_difference"] < entry["check"]["tolerance"]


def test_check_runs_on_another_runtime(sait: Sait, tiny_adaptive: Artifact, digits: Path) -> None:
    pytest.importorskip("openvino")
    call = ("inspect", tiny_adaptive.path, "--check", "--runtime", "openvino", "--images", digits, "--json")
    done = sait(*call)
    assert done.code == 0, done.err
    (entry,) = json.loads(done.out)
    assert entry["check"]["runtime"] == "openvino"
    assert entry["check"]["largest_difference"] < entry["check"]["tolerance"]


def test_a_runtime_is_for_comparing(sait: Sait, tiny_adaptive: Artifact) -> None:
    done = sait("inspect", tiny_adaptive.path, "--runtime", "openvino")
    assert done.code == 2 and "--check" in done.err


def test_check_finds_an_attention_that_computes_something_else(
    sait: Sait, tiny_adaptive: Artifact, digits: Path, tmp_path: Path
) -> None:
    changed = copied(tiny_adaptive, tmp_path)
    model = graph_of(changed)
    last = [node for node in model.graph.node if node.op_type == "PackedAttention"][-1]
    (scale,) = [attribute for attribute in last.attribute if attribute.name == "scale"]
    scale.f *= 1.5
    done = sait("inspect", with_graph(changed, model).path, "--check", "--images", digits)
    assert (done.code, done.out) == (6, "")
    assert "differ from the reference's by" in done.err


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


def test_a_graph_that_onnxruntime_cannot_load_ends_with_an_error(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    """Below the listing, which says all that is known."""
    changed = copied(tiny_adaptive, tmp_path)
    model = graph_of(changed)
    del next(node for node in model.graph.node if node.op_type == "Add").input[1:]
    done = sait("inspect", with_graph(changed, model).path)
    assert done.code == 7
    assert "onnxruntime cannot load the model" in done.err
    assert rows(done.out.partition("\n")[2])["attention"].startswith("unknown: onnxruntime cannot load the model")
    done = sait("inspect", changed.path, tiny_adaptive.path, "--json")
    assert done.code == 7
    assert len(json.loads(done.out)) == 2, "an artifact that cannot be loaded hides no other"


@pytest.mark.parametrize("lacking", ["opset", "kernel"])
def test_a_graph_for_another_version_of_onnxruntime_is_no_error(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path, lacking: str
) -> None:
    changed = copied(tiny_adaptive, tmp_path)
    model = graph_of(changed)
    if lacking == "opset":
        next(entry for entry in model.opset_import if entry.domain == "").version = 99
    else:
        cast = helper.make_node("Cast", ["images"], ["rounded"], to=TensorProto.BFLOAT16)
        model.graph.node.extend([cast, helper.make_node("Add", ["rounded", "rounded"], ["unused"])])
    done = sait("inspect", with_graph(changed, model).path)
    assert (done.code, done.err) == (0, "")
    assert rows(done.out.partition("\n")[2])["attention"].startswith("unknown: onnxruntime")


@pytest.mark.parametrize("text", ["[]", "{}", "", "[1]"])
def test_a_damaged_record_of_the_last_export_is_said(sait: Sait, tmp_path: Path, text: str) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / LAST_EXPORT_FILE).write_text(text)
    done = sait("inspect")
    assert (done.code, done.out) == (5, "")
    assert "last-export.json lists no artifacts beside it: it is damaged" in done.err
