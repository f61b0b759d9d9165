"""``sait-deploy predict``: files and folders in, classes and kept tokens out, and pictures of what was kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.folder import MANIFEST_FILE
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.prediction import CONTACT_SHEET
from sait_deploy.runtime import Runner, RunOptions, load
from tests.cli.calls import Outcome, Sait
from tests.exported import TinyExport
from tests.siblings import with_int8

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
POINTS = (mass_point(0.97), PointRequest("fast", 0.9, 4, 40))
"""The first keeps 57 to 98 of the images in ``digits``, the other 7 to 52 where nothing limits it."""

KEPT = 87
"""ceil(0.6 * 144)."""


@pytest.fixture
def predicted(sait: Sait, demo_workspace: Path) -> Sait:
    """Predicts with what was exported last, which is the pruned artifact."""

    def call(*arguments: object) -> Outcome:
        return sait("predict", "--workspace", demo_workspace, "--threads", "1", *arguments)

    return call


@pytest.fixture(scope="module")
def adaptive(demo_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model's adaptive artifact, and beside it the dense one."""
    place = tmp_path_factory.mktemp("adaptive") / "artifacts"
    shutil.copytree(demo_workspace / DENSE, place / DENSE)
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    return export_model(model, ExportOptions(points=POINTS, output=place))[-1].path


@pytest.fixture(scope="module")
def runner(adaptive: Path) -> Runner:
    return load(adaptive, options=RunOptions(threads=1))


def test_a_file_gets_its_likeliest_classes_and_kept_tokens(predicted: Sait, digits: Path) -> None:
    done = predicted(digits / "3" / "digit.png", "--top", "2")
    assert done.code == 0, done.err
    folder, heading, row = done.out.splitlines()
    assert folder == f"in {digits / '3'}"
    assert heading.split() == ["image", "kept", "of", "144", "top", "2"]
    path, kept, *classes = row.split()
    assert (path, kept) == ("digit.png", str(KEPT))
    assert len(classes) == 4
    assert done.err.splitlines() == [f"- {PRUNED} on onnxruntime, 1 image"]


def test_json_is_all_of_stdout(predicted: Sait, digits: Path) -> None:
    done = predicted(digits, "--json", "--top", "99")
    answers = json.loads(done.out)
    assert [answer["path"] for answer in answers] == [str(path) for path in sorted(digits.rglob("*.png"))]
    for answer in answers:
        assert answer["kept"] == KEPT
        assert sorted(answer["labels"]) == [str(digit) for digit in range(10)]
        assert answer["probabilities"] == sorted(answer["probabilities"], reverse=True)
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_files_and_folders_in_their_order_each_image_once(predicted: Sait, digits: Path) -> None:
    file = digits / "3" / "digit.png"
    done = predicted(file, digits / "3", digits / "2" / ".." / "3", digits / "1", "--json")
    assert [answer["path"] for answer in json.loads(done.out)] == [str(file), str(digits / "1" / "digit.png")]


def test_answers_do_not_depend_on_the_batch_that_an_image_was_in(predicted: Sait, digits: Path, tmp_path: Path) -> None:
    """More images than a batch holds: the answer to each is the one it gets alone."""
    many = tmp_path / "many"
    many.mkdir()
    for index in range(20):
        shutil.copy(digits / str(index % 10) / "digit.png", many / f"{index:02d}.png")
    together = json.loads(predicted(many, "--json").out)
    assert len(together) == 20
    alone = json.loads(predicted(many / "17.png", "--json").out)[0]
    assert together[17]["labels"] == alone["labels"]
    assert together[17]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)


def test_a_picture_of_dense_shows_the_whole_image_kept(sait: Sait, demo_workspace: Path, digits: Path) -> None:
    options = ("--artifact", demo_workspace / DENSE, "--visualize", "pictures")
    done = sait("predict", digits / "3", *options)
    assert done.code == 0, done.err
    assert done.out.splitlines()[2].split()[1] == "144"
    with Image.open("pictures/0000-digit.png") as picture:
        pixels = np.asarray(picture)
    assert 2 * 224 < pixels.shape[1] < 3 * 224, "two panels: dense has no importance to show"
    assert len(list(Path("pictures").iterdir())) == 1


def test_an_adaptive_artifact_keeps_what_each_image_needs(sait: Sait, adaptive: Path, digits: Path) -> None:
    done = sait("predict", digits, "--artifact", adaptive)
    assert done.code == 0, done.err
    _, heading, *rows = done.out.splitlines()
    assert heading.split()[:4] == ["image", "kept", "of", "144"]
    assert len({row.split()[1] for row in rows}) > 3, "images should keep numbers of their own"
    assert done.err.splitlines() == [f"- {adaptive.name} on onnxruntime, 10 images"]


CHOICES: list[tuple[dict[str, Any], int, int]] = [
    ({}, 45, 120),
    ({"point": "fast"}, 4, 40),
    ({"mass": 1}, 144, 144),
    ({"min_keep": 80}, 80, 120),
    ({"mass": 0.9, "min_keep": 10, "max_keep": 20}, 10, 20),
]


@pytest.mark.parametrize(("choice", "least", "most"), CHOICES, ids=str)
def test_an_adaptive_artifact_runs_at_the_point_asked_for(
    sait: Sait, adaptive: Path, runner: Runner, digits: Path, choice: dict[str, Any], least: int, most: int
) -> None:
    options = [part for name, value in choice.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = sait("predict", digits, "--artifact", adaptive, "--json", "--threads", "1", *options)
    assert done.code == 0, done.err
    kept = [answer["kept"] for answer in json.loads(done.out)]
    assert kept == runner.run(runner.preprocess(sorted(digits.rglob("*.png"))), **choice).kept.tolist()
    assert least <= min(kept) <= max(kept) <= most


REFUSED = [
    (["--point", "slow"], "has no point 'slow'"),
    (["--mass", "much"], "mass 'much' is not a number"),
    (["--min-keep", "9", "--max-keep", "3"], "is above max_keep"),
    (["--max-keep", "145"], "is outside 1 to 144"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_point_that_cannot_be_is_refused_before_any_image_is_read(
    sait: Sait, adaptive: Path, digits: Path, arguments: list[str], message: str
) -> None:
    (digits / "0" / "digit.png").write_text("no image")
    done = sait("predict", digits, "--artifact", adaptive, "--visualize", "pictures", *arguments)
    assert (done.code, done.out) == (2, "")
    error, *hint = done.err.splitlines()
    assert error.startswith("error: ") and message in error
    assert [line[:6] for line in hint] == ["hint: "] or "outside 1 to 144" in error, "what to give is said"
    assert not Path("pictures").exists()


@pytest.mark.parametrize(("name", "option"), [(DENSE, ("--mass", "0.9")), (PRUNED, ("--point", "default"))])
def test_a_fixed_point_takes_no_other(
    sait: Sait, demo_workspace: Path, digits: Path, name: str, option: tuple[str, str]
) -> None:
    (digits / "0" / "digit.png").write_text("no image")
    done = sait("predict", digits, "--artifact", demo_workspace / name, *option)
    assert (done.code, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert error.startswith(f"error: {name} is a den") and "its operating point is fixed" in error
    assert "--mass" in hint


def test_visualize_of_an_adaptive_artifact_adds_a_sheet(sait: Sait, adaptive: Path, digits: Path) -> None:
    options = ("--artifact", adaptive, "--point", "fast")
    plain, done = sait("predict", digits, *options), sait("predict", digits, *options, "--visualize", "pictures")
    assert (done.code, done.out) == (0, plain.out)
    assert done.err.splitlines()[-1] == f"- pictures are in pictures, from easy to difficult in {CONTACT_SHEET}"
    names = [f"{index:04d}-digit.png" for index in range(10)]
    assert sorted(path.name for path in Path("pictures").iterdir()) == [*names, CONTACT_SHEET]


def test_torch_gives_the_same_answers(predicted: Sait, digits: Path) -> None:
    ours, torch = (
        json.loads(predicted(digits / "3", "--json", "--runtime", name).out) for name in ("onnxruntime", "torch")
    )
    assert torch[0]["labels"] == ours[0]["labels"]
    assert torch[0]["probabilities"] == pytest.approx(ours[0]["probabilities"], abs=1e-4)


def test_random_weights_are_warned_of(sait: Sait, workspace: Path, digits: Path) -> None:
    manifest = workspace / PRUNED / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"source": "demo"', '"source": "random"'))
    done = sait("predict", digits / "3", "--artifact", workspace / PRUNED)
    assert done.code == 0
    assert "warning: random weights: these answers mean nothing" in done.err.splitlines()


def test_a_file_that_is_no_image(predicted: Sait, digits: Path, tmp_path: Path) -> None:
    (digits / "3" / "notes.png").write_text("no image")
    done = predicted(digits / "3" / "notes.png")
    assert (done.code, done.out) == (8, "")
    assert f"error: image {digits / '3' / 'notes.png'} is damaged or of an unknown format" in done.err
    (tmp_path / "words.txt").write_text("no image")
    assert predicted(tmp_path / "words.txt").code == 8


def test_images_that_cannot_be_read_are_named_and_the_others_answered(predicted: Sait, digits: Path) -> None:
    whole = predicted(digits, "--json")
    for number in (1, 3):
        (digits / str(number) / "broken.png").write_text("no image")
    done = predicted(digits, "--json", "--visualize", "pictures")
    assert done.code == 8
    assert [answer["path"] for answer in json.loads(done.out)] == [answer["path"] for answer in json.loads(whole.out)]
    lines = done.err.splitlines()
    for number in (1, 3):
        place = digits / str(number) / "broken.png"
        assert f"warning: image {place} is damaged or of an unknown format" in lines
    assert lines[-2] == "error: 2 of 12 images could not be read"
    assert lines[-1].startswith("hint: readable are JPEG, PNG")
    pictures = sorted(path.name for path in Path("pictures").iterdir())
    assert len(pictures) == 10 and pictures[2] == "0003-digit.png", "numbers are those of the files"
    strict = predicted(digits, "--strict")
    assert (strict.code, strict.out) == (8, "")
    assert f"error: image {digits / '1' / 'broken.png'} is damaged or of an unknown format" in strict.err


def test_a_folder_of_broken_images_alone(predicted: Sait, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    done = predicted(tmp_path)
    assert (done.code, done.out) == (8, "")
    assert "error: 2 of 2 images could not be read" in done.err


def test_files_of_other_suffixes_are_counted(predicted: Sait, digits: Path) -> None:
    for name in ("x.heic", "y.heic", "notes.txt"):
        (digits / name).touch()
    done = predicted(digits)
    assert done.code == 0
    assert "- passed over, as no image here has such a suffix: 2 .heic, 1 .txt" in done.err.splitlines()


def test_a_large_image_prints_no_line_of_pillows(process: Sait, demo_workspace: Path, tmp_path: Path) -> None:
    Image.new("L", (10_000, 9_000)).save(tmp_path / "large.png")
    done = process("predict", tmp_path / "large.png", "--artifact", demo_workspace / DENSE)
    assert done.code == 0, done.err
    knows = "warning: the demonstration model knows the digits 0 to 9 alone, and calls any other picture one of them"
    assert done.err.splitlines() == [f"- {DENSE} on onnxruntime, 1 image", knows]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_pictures_that_cannot_be_written(sait: Sait, adaptive: Path, digits: Path, folder: str) -> None:
    Path("file").write_text("in the way")
    done = sait("predict", digits / "3", "--artifact", adaptive, "--visualize", folder)
    assert (done.code, done.out) == (9, "")
    error, hint = done.err.splitlines()  # before anything else is done
    assert error.startswith("error: cannot write file") and hint.startswith("hint: ")
    assert Path("file").read_text() == "in the way"


def test_a_sheet_that_cannot_be_written(sait: Sait, adaptive: Path, digits: Path) -> None:
    (Path("pictures") / CONTACT_SHEET).mkdir(parents=True)
    done = sait("predict", digits / "3", "--artifact", adaptive, "--visualize", "pictures")
    assert (done.code, done.out) == (9, "")
    assert done.err.splitlines()[1].startswith(f"error: cannot write {Path('pictures') / CONTACT_SHEET}: ")
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["0000-digit.png", CONTACT_SHEET]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--artifact", "nowhere"], 5, "artifact nowhere does not exist"),
        (["--workspace", "nowhere"], 5, "nothing was exported to nowhere yet"),
        (["--runtime", "tvm"], 2, "unknown runtime 'tvm'"),
        (["--top", "0"], 2, "0 is not in the range"),
        (["--device", "cuda"], 2, "onnxruntime runs on one kind of device alone, not on 'cuda'"),
        (["--runtime", "openvino", "--device", "GPU.9"], 7, "OpenVINO has no device GPU.9 here"),
    ],
)
def test_bad_options(predicted: Sait, digits: Path, arguments: list[str], code: int, message: str) -> None:
    done = predicted(digits, *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_gpu_that_is_not_there(predicted: Sait, digits: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    done = predicted(digits, "--runtime", "onnxruntime-cuda")
    assert (done.code, done.out) == (7, "")
    assert "hint: " in done.err


def test_torch_takes_weights_from_a_file(predicted: Sait, digits: Path, tmp_path: Path) -> None:
    moved = shutil.copy(demo.WEIGHTS, tmp_path / "moved.safetensors")
    image = digits / "3" / "digit.png"
    done = predicted(image, "--runtime", "torch", "--weights", moved)
    assert done.code == 0, done.err
    assert str(KEPT) in done.out
    gone = predicted(image, "--runtime", "torch", "--weights", tmp_path / "gone.safetensors")
    assert gone.code == 4 and "gone.safetensors does not exist" in gone.err
    refused = predicted(image, "--weights", moved)
    assert refused.code == 2 and "give --runtime torch too" in refused.err


def test_a_precision_chooses_the_int8_artifact(sait: Sait, tiny: TinyExport, digits: Path, tmp_path: Path) -> None:
    (quantised,) = with_int8(tmp_path, tiny.half)
    place = tmp_path / tiny.half.path.name
    for given, precision, ran in ((place, "int8", quantised.path), (quantised.path, "fp32", place)):
        done = sait("predict", digits / "3", "--artifact", given, "--precision", precision, "--threads", "1")
        assert done.code == 0, done.err
        assert f"- {ran.name} on onnxruntime, 1 image" in done.err.splitlines()
    done = sait("predict", digits / "3", "--artifact", place, "--precision", "bf16")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == "error: onnxruntime does not run fp32 artifacts in bf16"
