"""The demonstration's commands: what is trained from what, what is asked again, and what is written."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import accuracy_figures, common, demo_training
from benchmarks.demo_runs import composed, load, runs
from sait_deploy import demo
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.results import Evaluation, Stratum
from sait_deploy.images.dataset import Dataset
from sait_deploy.models.registry import LoadedModel
from sait_deploy.tokens import Score
from sait_deploy.training.options import TrainOptions
from sait_deploy.training.state import WEIGHTS_FILE
from tests.benchmarks.documents import make_found, make_shift
from tests.tiny import assert_same, randomised, save_weights

FOUND = make_found()
composed_once = functools.cache(composed)
shipped = functools.cache(lambda: load(demo.WEIGHTS))
CLASS_STRATUM = Stratum("mass0.9", "class", "7", 10, 90.0, Estimate(-1, 0, 1), 30.0)


@dataclasses.dataclass
class Asked:
    """Stands for the evaluations, which take minutes: writes down what is asked, and answers at once."""

    loaded: list[Path] = dataclasses.field(default_factory=list)
    evaluations: list[tuple[Score | None, int, EvaluateOptions]] = dataclasses.field(default_factory=list)
    shifts: list[tuple[Path, int]] = dataclasses.field(default_factory=list)
    fails: bool = False

    def load(self, path: Path) -> LoadedModel:
        """Writes down whose weights are asked about, whatever the file says."""
        assert path.is_file()
        self.loaded.append(path)
        return shipped()

    def evaluate(
        self,
        loaded: LoadedModel,
        dataset: Dataset,
        options: EvaluateOptions,
        groupings: tuple[object, ...] = (),
    ) -> Evaluation:
        if self.fails:
            raise RuntimeError("interrupted")
        assert (loaded.info.name, options.prune_at) == (demo.NAME, 1)
        self.evaluations.append((options.score, len(dataset.images), options))
        made = FOUND["student-0" if groupings else "teacher-0"]
        return dataclasses.replace(made, created=str(len(self.evaluations)), strata=(*made.strata, CLASS_STRATUM))

    def shift(self, weights: Path, images: int) -> dict[str, Any]:
        self.shifts.append((weights, images))
        return make_shift()

    def counts(self) -> tuple[int, int]:
        """How many of both were asked since the last call."""
        found = len(self.evaluations), len(self.shifts)
        self.loaded.clear()
        self.evaluations.clear()
        self.shifts.clear()
        return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(demo_training, "evaluate", made.evaluate)
    monkeypatch.setattr(demo_training, "shifted", made.shift)
    monkeypatch.setattr(demo_training, "composed", composed_once)
    monkeypatch.setattr(demo_training, "load", made.load)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where trainings are."""
    return tmp_path / "trained"


def deliver(folder: Path, names: Iterable[str]) -> None:
    """Writes what stands for weights where trainings have none."""
    for place in (folder / name.partition(" ")[0] for name in names):
        place.mkdir(parents=True, exist_ok=True)
        if not (place / WEIGHTS_FILE).exists():
            (place / WEIGHTS_FILE).write_bytes(b"trained")


@pytest.fixture
def evaluate(folder: Path, asked: Asked) -> Callable[..., Result]:
    def call(*arguments: str, images: int = 100, fails: bool = False) -> Result:
        named = [value for option, value in itertools.pairwise(arguments) if option == "--only"]
        deliver(folder, named or [run.name for run in runs(folder)])
        options = ("evaluate", "--folder", str(folder), "--images", str(images), *arguments)
        result = CliRunner().invoke(demo_training.main, options)
        assert (result.exit_code != 0) == fails, result.output
        return result

    return call


def kept(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_same_question_keeps_the_answer(evaluate: Callable[..., Result], asked: Asked, folder: Path) -> None:
    evaluate("--only", "teacher-0", "--only", "student-0")
    assert asked.counts() == (2, 1)
    files = [folder / "teacher-0" / "evaluation.json", folder / "student-0" / "evaluation.json"]
    files.append(folder / "student-0" / "shift.json")
    before = [file.read_bytes() for file in files]
    evaluate("--only", "teacher-0", "--only", "student-0")
    assert asked.counts() == (0, 0)
    assert [file.read_bytes() for file in files] == before


def test_other_weights_are_asked_about(evaluate: Callable[..., Result], asked: Asked, folder: Path) -> None:
    names = ("--only", "student-0", "--only", "student-1")
    evaluate(*names)
    asked.counts()
    (folder / "student-1" / WEIGHTS_FILE).write_bytes(b"longer")
    evaluate(*names)
    assert asked.loaded == [folder / "student-1" / WEIGHTS_FILE]
    assert asked.shifts == [(folder / "student-1" / WEIGHTS_FILE, 100)]
    assert asked.counts() == (1, 1)
    evaluate(*names)
    assert asked.counts() == (0, 0)


def test_more_images_are_asked_about(evaluate: Callable[..., Result], asked: Asked) -> None:
    evaluate("--only", "student-0")
    asked.counts()
    evaluate("--only", "student-0", images=101)
    assert [images for _, images, _ in asked.evaluations] == [images for _, images in asked.shifts] == [101]
    asked.counts()
    evaluate("--only", "student-0")
    assert asked.counts() == (1, 1)


@pytest.mark.parametrize(("name", "options"), [("teacher-0", "BRIEF"), ("student-0", "WHOLE")])
def test_other_options_are_asked_about(
    evaluate: Callable[..., Result], asked: Asked, monkeypatch: pytest.MonkeyPatch, name: str, options: str
) -> None:
    evaluate("--only", "teacher-0", "--only", "student-0")
    asked.counts()
    changed = dataclasses.replace(getattr(demo_training, options), points=())
    monkeypatch.setattr(demo_training, options, changed)
    evaluate("--only", "teacher-0", "--only", "student-0")
    assert [given.points for _, _, given in asked.evaluations] == [changed.points], name
    assert asked.shifts == []


def test_the_limit_of_the_shift_is_part_of_its_question(
    evaluate: Callable[..., Result], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate("--only", "student-0")
    asked.counts()
    monkeypatch.setattr(demo_training, "LIMIT", 0.5)
    evaluate("--only", "student-0")
    assert asked.counts() == (0, 1)


def test_other_times_are_asked_about_for_the_first_student(
    evaluate: Callable[..., Result], asked: Asked, tmp_path: Path
) -> None:
    bench, moved = tmp_path / "bench.json", tmp_path / "moved.json"
    bench.write_text("{}", encoding="utf-8")
    names = ("--only", "student-0", "--only", "student-1", "--only", "dense-0")
    evaluate(*names, "--bench", str(bench))
    assert [options.bench_report for _, _, options in asked.evaluations] == [bench, None, None]
    assert asked.counts() == (3, 2)
    shutil.copy(bench, moved)
    evaluate(*names, "--bench", str(moved))
    assert asked.counts() == (0, 0)
    bench.write_text('{"rows": []}', encoding="utf-8")
    evaluate(*names, "--bench", str(bench))
    assert asked.counts() == (1, 0)
    evaluate(*names)
    assert [options.bench_report for _, _, options in asked.evaluations] == [None]


def test_one_training_by_two_scores_has_two_answers(
    evaluate: Callable[..., Result], asked: Asked, folder: Path
) -> None:
    evaluate("--only", "teacher-0", "--only", demo_training.BY_CLASS, "--only", "cls-0")
    found = zip(asked.loaded, asked.evaluations, strict=True)
    assert sorted((path.parent.name, str(score)) for path, (score, _, _) in found) == [
        ("cls-0", "cls"),
        ("teacher-0", "cls"),
        ("teacher-0", "mean"),
    ]
    files = sorted(str(file.relative_to(folder)) for file in folder.glob("*/*.json"))
    assert files == ["cls-0/evaluation.json", "teacher-0/evaluation-cls.json", "teacher-0/evaluation.json"]


def test_only_strata_of_composed_images_are_kept(evaluate: Callable[..., Result], asked: Asked, folder: Path) -> None:
    evaluate("--only", "student-0", "--only", "dense-0")
    student, plain = (kept(folder / name / "evaluation.json")["found"] for name in ("student-0", "dense-0"))
    assert {stratum["grouping"] for stratum in student["strata"]} == {"digit size"}
    assert plain["strata"] == []
    assert len(asked.evaluations) == 2


@pytest.mark.parametrize("part", [0, 1, 40])
def test_a_broken_file_is_taken_for_no_answer(
    evaluate: Callable[..., Result], asked: Asked, folder: Path, part: int
) -> None:
    """It is asked again, or the command ends: a document is never made of it."""
    file = folder / "teacher-0" / "evaluation.json"
    evaluate("--only", "teacher-0")
    whole, _ = file.read_bytes(), asked.counts()
    file.write_bytes(whole[:part])
    options = ("evaluate", "--folder", str(folder), "--images", "100", "--only", "teacher-0")
    result = CliRunner().invoke(demo_training.main, options)
    assert (result.exit_code != 0) != (asked.counts() == (1, 0) and kept(file) == json.loads(whole))


def test_a_question_without_an_answer_stays_open(evaluate: Callable[..., Result], asked: Asked, folder: Path) -> None:
    file = folder / "teacher-0" / "evaluation.json"
    evaluate("--only", "teacher-0")
    before, _ = file.read_bytes(), asked.counts()
    asked.fails = True
    assert str(evaluate("--only", "teacher-0", images=101, fails=True).exception) == "interrupted"
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(".partial")] == []
    asked.fails = False
    evaluate("--only", "teacher-0", images=101)
    assert asked.counts() == (1, 0)


def test_all_answers_make_the_result_file_and_its_section(
    evaluate: Callable[..., Result], asked: Asked, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    (folder / "dense-1").mkdir(parents=True)
    (folder / "dense-1" / "log.json").write_text('[{"epoch": 1}]', encoding="utf-8")
    result = evaluate()
    file = tmp_path / "results" / "demo_training.json"
    assert result.output.splitlines()[-1] == str(file)
    names = [run.name for run in runs(folder)]
    assert [path.parent.name for path in asked.loaded] == [*names, "teacher-0"]
    assert asked.counts() == (len(names) + 1, 3)
    document = kept(file)
    assert set(document["evaluations"]) == {run.name for run in runs(folder)} | {demo_training.BY_CLASS}
    assert set(document["shift"]) == {"student-0", "student-1", "student-2"}
    assert document["logs"] == {run.name: None for run in runs(folder)} | {"dense-1": [{"epoch": 1}]}
    assert (document["images"], len(document["summary"]["targets"])) == (100, 18)
    assert document["environment"]["torch"] == version("torch")
    # All students were given the first one's answers here.
    assert document["summary"]["change_mean"]["0.28"]["students"] == {"mean": -0.5, "sd": 0.0}
    assert "| 0.28 | 55 % | -0.50 ± 0.00 | -3.00 ± 0.00 | -3.00 ± 0.00 |" in accuracy_figures.accuracy()


def test_some_answers_make_no_result_file(
    evaluate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    evaluate("--only", "dense-2")
    assert not (tmp_path / "results").exists()


def test_trainings_begin_at_the_weights_of_their_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, tuple[LoadedModel, LoadedModel | None]] = {}

    def train(model: LoadedModel, teacher: LoadedModel | None, options: TrainOptions, _: object) -> None:
        begun[options.output.name] = model, teacher

    monkeypatch.setattr(demo_training, "train", train)
    for seed in (0, 1):
        (folder / f"teacher-{seed}").mkdir(parents=True)
        save_weights(randomised(load(None).vit, seed), folder / f"teacher-{seed}" / WEIGHTS_FILE)
    names = ["teacher-1", "student-0", "student-1", "dense-1", "no-distillation-0"]
    chosen = [part for name in names for part in ("--only", name)]
    result = CliRunner().invoke(demo_training.main, ["train", "--folder", str(folder), *chosen])
    assert result.exit_code == 0, result.output
    assert sorted(begun) == sorted(names)
    for name in names[1:]:
        model, teacher = begun[name]
        weights = load(folder / f"teacher-{name[-1]}" / WEIGHTS_FILE).vit.state_dict()  # seeds 0 and 1 have their own
        assert_same(model.vit.state_dict(), weights)
        assert (teacher is not None) == name.startswith("student")
        if teacher is not None:
            assert teacher.vit is not model.vit
            assert_same(teacher.vit.state_dict(), weights)
    assert begun["teacher-1"][1] is None
