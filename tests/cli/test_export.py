"""``sait-deploy export``: what it prints and where, what it writes, and what it refuses before writing anything."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file, save_file

from sait_deploy import demo
from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE
from sait_deploy.models.weights import SparseTraining, metadata_of
from sait_deploy.tokens import Score
from tests.cli.calls import Sait, child_environment
from tests.exported import IMAGE_SIZE, TinyExport
from tests.tiny import save_weights

DENSE, PRUNED, ADAPTIVE = "sait_demo_digits-dense", "sait_demo_digits-density0.6", "sait_demo_digits-adaptive"
REFUSED = [
    (["--density", "0"], 2, "density 0 is outside (0, 1]"),
    (["--density", "0.5", "--density", "-1"], 2, "density -1 is outside (0, 1]"),
    (["--dense", "--density", "0.5"], 2, "--dense asks for the baseline alone"),
    (["--mass", "half"], 2, "mass 'half' is not a number"),
    (["--point", "fast"], 2, "point 'fast' is not NAME=mass[,min[,max]]"),
    (["--mass", "0.5", "--point", "mass0.5=0.6"], 2, "two points are called 'mass0.5'"),
    (["--min-keep", "4"], 2, "--min-keep and --max-keep limit what --mass, --point and --threshold keep"),
    (
        ["--density", "0.5", "--max-keep", "4"],
        2,
        "--min-keep and --max-keep limit what --mass, --point and --threshold keep",
    ),
    (["--mass", "0.5", "--min-keep", "0"], 2, "'mass0.5' keeps 0 to all"),
    (["--mass", "0.5", "--max-keep", "145"], 2, "'mass0.5' keeps 1 to 145 patch tokens; the model has 144"),
    (["--mass", "0.5", "--max-keep", "4.5"], 2, "'4.5' is not a valid integer"),
    (["--weights", "w.pt", "--pretrained"], 2, "--weights and --pretrained name different weights"),
    (["--pretrained", "--random-weights"], 2, "--pretrained and --random-weights name different weights"),
    (["--model", "deit_small_patch16_224"], 2, "no weights were named for deit_small_patch16_224"),
    (["--model", "deit_smal_patch16_224", "--random-weights"], 4, "unknown model 'deit_smal_patch16_224'"),
    (["--model", "resnet18", "--random-weights"], 4, "a model of class ResNet cannot be pruned"),
    (["--pretrained"], 2, "the demonstration model ships its weights"),
    (["--imgsz", "128"], 2, "the demonstration model has no image size 128"),
    (["--imgsz", "96x128"], 2, "the demonstration model has no image size 96x128"),
    (["--imgsz", "0"], 2, "'0' is no image size"),
    (["--imgsz", "96x"], 2, "'96x' is no image size"),
    (["--imgsz", "1x2x3"], 2, "'1x2x3' is no image size"),
    (["--model", "test_vit", "--random-weights", "--imgsz", "64x90"], 2, "image size 90 is no multiple"),
    (["--prune-at", "6"], 2, "6 is no block of a model of depth 6"),
    (["--opset", "16"], 2, "opset 16 is not supported"),
    (["--weights", "nowhere.pt"], 4, "weights file nowhere.pt does not exist"),
    (["--labels", "nowhere.txt"], 2, "labels file nowhere.txt cannot be read"),
    (["--images", "nowhere"], 8, "there is no image or folder nowhere"),
    (["--score", "max"], 2, "'max' is not one of"),
    (["--precision", "int8"], 2, "'int8' is not one of"),
]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_input_gets_one_line_and_writes_no_artifact(
    sait: Sait, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = sait("export", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("*.onnx")), "something was written"
    assert not list(tmp_path.rglob(".partial*")), "something half-written is left"


@pytest.mark.parametrize(
    "arguments",
    [["--model", "deit_smal_patch16_224", "--random-weights"], ["--density", "7"], ["--opset", "99"], ["--mass", "x"]],
)
def test_refusals_say_what_to_do(sait: Sait, arguments: list[str]) -> None:
    assert sait("export", *arguments).err.splitlines()[-1].startswith("hint: ")


def test_a_misspelt_model_is_told_the_one_meant(sait: Sait) -> None:
    assert (
        "did you mean deit_small_patch16_224"
        in sait("export", "--model", "deit_smal_patch16_224", "--random-weights").err
    )


def test_weights_of_another_architecture_name_the_tensor(sait: Sait) -> None:
    done = sait("export", "--model", "deit_tiny_patch16_224", "--weights", demo.WEIGHTS)
    assert (done.code, done.out) == (4, "")
    assert re.search(
        r"error: weights model.safetensors do not fit.*: \w+ is \[1, .*\], the model's \[1, .*\]", done.err
    )


@pytest.mark.parametrize("content", [b"", b"\x80\x02K\x01."])
def test_weights_that_are_no_checkpoint(sait: Sait, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    done = sait("export", "--weights", file)
    assert (done.code, done.out) == (4, "")
    assert str(file) in done.err


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_made(sait: Sait, tmp_path: Path, place: str) -> None:
    """A file in its way stands for what permissions refuse: tests may run as root, whom nothing is refused."""
    (tmp_path / "file").write_text("in the way")
    done = sait("export", "--output", place)
    assert (done.code, done.out) == (9, "")
    assert f"cannot write {place}: " in done.err
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_artifact_that_is_there_already_is_kept(sait: Sait, workspace: Path) -> None:
    before = {path: sha256_of(path) for path in workspace.rglob("*") if path.is_file()}
    done = sait("export", "--output", workspace)
    assert (done.code, done.out) == (9, "")
    assert f"{workspace / PRUNED} is already there" in done.err
    assert "--overwrite" in done.err
    assert {path: sha256_of(path) for path in workspace.rglob("*") if path.is_file()} == before


def test_several_densities_share_the_baseline_that_is_there(sait: Sait, workspace: Path) -> None:
    """Names of folders, the table on stdout, progress on stderr, a density named twice made once."""
    kept = (workspace / DENSE / MANIFEST_FILE).read_text()
    made = ["sait_demo_digits-cls-density0.25", "sait_demo_digits-cls-density0.5"]
    options = ["--density", "0.25", "--density", "0.5", "--density", "0.50", "--score", "cls"]
    done = sait("export", *options, "--output", workspace)
    assert done.code == 0, done.err
    folder, heading, *rows = done.out.splitlines()
    assert folder == f"in {workspace}"
    assert heading.split()[:3] == ["artifact", "tokens", "kept"]
    assert [Path(row.split()[0]).name for row in rows] == [DENSE, *made]
    assert [" ".join(row.split()[1:4]) for row in rows] == ["144 of 144", "36 of 144", "72 of 144"]
    said = done.err.splitlines()
    assert f"- {DENSE}: already there, kept" in said
    assert f"- {made[0]}: tracing" in said
    other = "pruned in block 1 by score cls, but the weights were trained to be in block 1 by score mean"
    assert [line for line in said if line.startswith("warning: ")] == [f"warning: {other}"], "and trained sparse"
    assert (workspace / DENSE / MANIFEST_FILE).read_text() == kept
    assert names(workspace) == sorted(["last-export.json", DENSE, PRUNED, *made])
    assert [path.name for path in (workspace / made[0]).iterdir() if path.name == MODEL_FILE]
    assert sait("inspect", "--workspace", workspace, "--json").out.count('"manifest"') == 3


def test_masses_and_points_are_one_adaptive_artifact(sait: Sait, workspace: Path) -> None:
    """The limits given go to points that name none; the table shows what each of them keeps."""
    points = ["--mass", "0.9", "--mass", "0.8", "--mass", "0.90", "--point", "fast=0.6,4,40", "--point", "low=0.3"]
    done = sait("export", *points, "--min-keep", "2", "--max-keep", "100", "--output", workspace)
    assert done.code == 0, done.err
    assert names(workspace) == sorted(["last-export.json", DENSE, PRUNED, ADAPTIVE])
    manifest = json.loads((workspace / ADAPTIVE / MANIFEST_FILE).read_text())
    assert manifest["form"] == "adaptive"
    found = {info["name"]: info["point"] for info in manifest["pruning"]["points"]}
    assert list(found.items()) == [
        ("mass0.9", {"mass": 0.9, "min_keep": 2, "max_keep": 100}),
        ("mass0.8", {"mass": 0.8, "min_keep": 2, "max_keep": 100}),
        ("fast", {"mass": 0.6, "min_keep": 4, "max_keep": 40}),
        ("low", {"mass": 0.3, "min_keep": 2, "max_keep": 100}),
    ]
    lines = done.out.splitlines()
    default = manifest["pruning"]["points"][0]["kept"]
    (summary,) = [line for line in lines if Path(line.partition(" ")[0]).name == ADAPTIVE]
    assert f"{default['mean']:.1f} of 144" in summary
    title = next(i for i, line in enumerate(lines) if line.startswith(f"{ADAPTIVE}: patch tokens kept on 24 images"))
    assert [line.split()[0] for line in lines[title + 1 :]] == ["point", *found]
    for line, info in zip(lines[title + 2 :], manifest["pruning"]["points"], strict=True):
        assert f"{info['kept']['mean']:.1f} ± {info['kept']['sd']:.1f}" in line
        assert f"{info['macs']['ratio']:.2f}" in line
    said = done.err.splitlines()
    assert f"- {DENSE}: already there, kept" in said and f"- {ADAPTIVE}: tracing" in said
    assert not [line for line in said if line.startswith("warning: ")], "its weights were trained sparse"


@pytest.mark.parametrize(
    ("options", "made"),
    [
        (["--density", "0.5", "--density", "0.25"], ["test_vit-96px-density0.5", "test_vit-96px-density0.25"]),
        (["--mass", "0.6", "--mass", "0.9"], ["test_vit-96px-adaptive"]),
        (["--dense"], []),
    ],
    ids=" ".join,
)
def test_each_pruned_artifact_of_weights_never_trained_sparse_is_warned_of(
    sait: Sait, tiny: TinyExport, options: list[str], made: list[str]
) -> None:
    done = sait("export", "--model", "test_vit", "--weights", tiny.weights, "--imgsz", IMAGE_SIZE, *options)
    assert done.code == 0, done.err
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {name}: never trained sparse; accuracy unmeasured" for name in made]
    assert "warning" not in done.out


def test_pruning_otherwise_than_trained_is_warned_of_in_one_line(sait: Sait, tiny: TinyExport, tmp_path: Path) -> None:
    weights, trained = tmp_path / "trained.safetensors", SparseTraining(Score.CLS, 2, 0.3, 1.0)
    save_file(load_file(tiny.weights), weights, metadata_of(trained, "abcde"))
    model = ("--model", "test_vit", "--weights", weights, "--imgsz", IMAGE_SIZE, "--density", "0.5")
    done = sait("export", *model, "--json", "-o", "made")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert made["warnings"] == []
    (pruned,) = [artifact["pruning"] for artifact in made["artifacts"][1:]]
    assert (pruned["score"], pruned["prune_at"]) == ("cls", 2)
    done = sait("export", *model, "--density", "0.25", "--score", "mean", "-o", "made")
    assert done.code == 0, done.err
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    said = "pruned in block 2 by score mean, but the weights were trained to be in block 2 by score cls"
    assert warnings == [f"warning: {said}"]


def test_images_that_are_wider_than_high(sait: Sait, tmp_path: Path) -> None:
    """From the weights to the picture of kept tokens, on every runtime that rebuilds the model too."""
    weights = save_weights(timm.create_model("test_vit", num_classes=3, img_size=(64, 96)), tmp_path / "w.safetensors")
    model = ("--model", "test_vit", "--weights", weights, "--imgsz", "64x96", "--prune-at", "1")
    done = sait("export", *model, "--density", "0.5", "--mass", "0.8", "-o", "made")
    assert done.code == 0, done.err
    for form in ("density0.5", "adaptive"):
        found = next(place for place in Path("made").iterdir() if form in place.name)
        assert "64x96px" in found.name
        assert json.loads((found / MANIFEST_FILE).read_text())["model"]["image_size"] == [64, 96]
        for runtime in ("onnxruntime", "torch"):
            answered = sait("predict", demo.IMAGES / "7", "--artifact", found, "--runtime", runtime, "--visualize", "p")
            assert answered.code == 0, answered.err


def test_json_of_an_adaptive_artifact_with_every_option(sait: Sait, tmp_path: Path) -> None:
    """Inlined, in half precision, with features; the model is one of random weights."""
    form = ["--inline", "--precision", "fp16", "--features", "--score", "cls", "--prune-at", "2"]
    points = ["--mass", "0.5", "--point", "default=0.7"]
    model = ["--model", "test_vit", "--random-weights", "--imgsz", "64"]
    done = sait("export", *model, *form, *points, "--json", "-o", "made")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [artifact["name"] for artifact in result["artifacts"]] == [
        "test_vit-64px-fp16-inline-features-dense",
        "test_vit-64px-block2-cls-fp16-inline-features-adaptive",
    ]
    for artifact in result["artifacts"]:
        manifest = json.loads((Path(artifact["path"]) / MANIFEST_FILE).read_text())
        assert {key: value for key, value in artifact.items() if key != "path"} == manifest
    adaptive = result["artifacts"][-1]
    assert (adaptive["inlined"], adaptive["dtype"], adaptive["pruning"]["prune_at"]) == (True, "fp16", 2)
    assert [info["name"] for info in adaptive["pruning"]["points"]] == ["default", "mass0.5"]
    assert [output["name"] for output in adaptive["outputs"]] == ["logits", "token_features", "counts"]
    assert adaptive["parity"]["points"] == ["default", "mass0.5", "mass 1", "mixed points"]


def test_tokens_of_blocks_beside_what_was_kept(sait: Sait, tmp_path: Path) -> None:
    """Non-square, in a size that is not the model's own; a file of options says the same."""
    model = ["--model", "test_vit", "--random-weights", "--imgsz", "64x96"]
    done = sait("export", *model, "--features", "2,0", "--density", "0.5", "-o", "made")
    assert done.code == 0, done.err
    name = "test_vit-64x96px-blocks_0_2-density0.5"
    manifest = json.loads((Path("made") / name / MANIFEST_FILE).read_text())
    names = ["logits", "block0_features", "block2_features", "keep", "counts"]
    assert [output["name"] for output in manifest["outputs"]] == names
    assert manifest["outputs"][1]["shape"] == ["batch", 25, 64]
    Path("options.toml").write_text('model = "test_vit"\nrandom-weights = true\nimgsz = "64"\nfeatures = "9"\n')
    done = sait("export", "--config", "options.toml")
    assert (done.code, done.out) == (2, "")
    assert "features of block 9: the model has 6 blocks" in done.err and "give 0 to 5" in done.err


@pytest.mark.parametrize("blocks", ["three", "1,,2", "1.5", ","])
def test_features_that_are_no_list_of_blocks(sait: Sait, blocks: str) -> None:
    done = sait("export", "--features", blocks)
    assert (done.code, done.out) == (2, "")
    assert f"--features {blocks!r} is no list of blocks" in done.err and "--features 3,5,8,11" in done.err


def test_json_is_all_of_stdout_and_dense_is_all_that_is_made(sait: Sait, tmp_path: Path) -> None:
    """With random weights, whose warning is on stderr and in the JSON."""
    done = sait("export", "--dense", "--random-weights", "--json", "--images", demo.IMAGES / "3", "-o", "made")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    (artifact,) = result["artifacts"]
    folder = Path(artifact["path"])
    assert folder == Path("made") / DENSE
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert {key: value for key, value in artifact.items() if key != "path"} == manifest
    assert manifest["weights"]["source"] == "random"
    assert manifest["pruning"] is None
    assert names(tmp_path / "made") == ["last-export.json", DENSE]
    assert names(folder) == ["golden.npz", "manifest.json", "model.onnx"]
    assert result["warnings"] == ["random weights: the answers mean nothing, only the speed does"]
    assert f"warning: {result['warnings'][0]}" in done.err.splitlines()


def test_without_a_model_it_says_that_it_takes_the_demonstration(sait: Sait) -> None:
    assert "no --model: exporting the demonstration model" in sait("export", "--opset", "1").err
    assert "demonstration" not in sait("export", "--opset", "1", "--model", "test_vit", "--random-weights").err


def test_ctrl_c_while_overwriting_keeps_the_old_artifact_until_the_new_one_is_whole(workspace: Path) -> None:
    """Interrupted in the middle, then run to its end."""
    before = {path.name: sha256_of(path) for path in (workspace / PRUNED).iterdir()}
    command = [sys.executable, "-m", "sait_deploy", "export", "--overwrite", "--output", str(workspace)]
    with subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None and child.stdout is not None
        for line in child.stderr:
            if line == f"- {DENSE}: tracing\n":
                break
        child.send_signal(signal.SIGINT)
        said, out = child.stderr.read(), child.stdout.read()
    assert child.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted: nothing half-written was left"
    assert "Traceback" not in said
    assert out == ""
    assert {path.name: sha256_of(path) for path in (workspace / PRUNED).iterdir()} == before
    assert names(workspace) == ["last-export.json", DENSE, PRUNED]


def test_overwrite_replaces_the_artifact(sait: Sait, workspace: Path) -> None:
    """And what a crash left behind is put right on the way."""
    shutil.copytree(workspace / PRUNED, workspace / f".partial-{PRUNED}@999999999")
    old = (workspace / DENSE / MODEL_FILE).stat().st_ino
    done = sait("export", "--dense", "--overwrite", "--images", demo.IMAGES / "3", "--output", workspace)
    assert done.code == 0, done.err
    manifest = json.loads((workspace / DENSE / MANIFEST_FILE).read_text())
    assert manifest["parity"]["image_source"] == str(demo.IMAGES / "3")
    assert manifest["files"][MODEL_FILE] == sha256_of(workspace / DENSE / MODEL_FILE)
    assert (workspace / DENSE / MODEL_FILE).stat().st_ino != old
    assert names(workspace) == ["last-export.json", DENSE, PRUNED]
