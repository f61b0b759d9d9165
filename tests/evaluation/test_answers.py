"""Answers to all images: in order, each image decoded once, decoding ahead, and errors that name the image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.artifacts.manifest import Form, ModelInfo
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import ImageError, InvalidArgument, ModelError
from sait_deploy.evaluation import answers as answers_module
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.answers import Answers, Collector
from sait_deploy.evaluation.results import Kind
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import CropMode, ImageLike, Interpolation, Preprocessing, open_image, preprocess
from sait_deploy.runtime.answers import RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.system.progress import Progress, no_progress
from sait_deploy.tokens import Geometry, OperatingPoint, pruned_macs

GEOMETRY = Geometry(
    depth=2,
    width=4,
    attention_width=4,
    patch_tokens=16,
    prefix_tokens=1,
    embed_macs=160,
    attention_macs_per_token=64,
    mlp_macs_per_token=128,
    readout_macs=12,
    readout_macs_per_token=0,
)
PLAIN = Preprocessing((8, 8), (8, 8), CropMode.CENTER, Interpolation.BILINEAR, True, (0.0,) * 3, (1.0,) * 3)
SMALL = Preprocessing((4, 4), (4, 4), CropMode.CENTER, Interpolation.BILINEAR, True, (0.0,) * 3, (1.0,) * 3)

Rule = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Logits [C] of one image [3, H, W]."""


class Scripted(Runner):
    """Answers by a rule, and remembers what it was asked."""

    def __init__(self, rule: Rule, classes: int = 3, preprocessing: Preprocessing = PLAIN) -> None:
        size = preprocessing.image_size
        model = ModelInfo("scripted", "", 0, size, (2, 2), classes, None, GEOMETRY)
        point = OperatingPoint(1.0, 4, 4)
        super().__init__(Description("scripted", Form.DENSITY, model, preprocessing, 1, {"default": point}))
        self.rule = rule
        self.asked: list[int] = []
        self.threads: set[int] = set()

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        """Keeps one patch more than the image is bright, of 10."""
        self.asked.append(len(images))
        self.threads.add(threading.get_ident())
        kept = (1 + 10 * images.mean(axis=(1, 2, 3))).astype(np.int32)
        logits = np.stack([self.rule(image) for image in images]).astype(np.float32)
        return RawOutput(logits, kept + np.int32(GEOMETRY.prefix_tokens), None)

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        raise NotImplementedError

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], float | None]:
        raise NotImplementedError


@dataclass(frozen=True)
class Description:
    """What a scripted runner says of its model."""

    name: str
    form: Form
    model: ModelInfo
    preprocessing: Preprocessing
    prune_at: int | None
    operating_points: dict[str, OperatingPoint]


def scripted(name: str, rule: Rule, classes: int = 3, preprocessing: Preprocessing = PLAIN) -> Answerer:
    """An answerer by a rule."""
    identity = Identity(name, name, Kind.DENSITY, OperatingPoint(1.0, 4, 4))
    return Answerer(identity, Scripted(rule, classes, preprocessing))


def runner_of(answerer: Answerer) -> Scripted:
    assert isinstance(answerer.runner, Scripted)
    return answerer.runner


def collect(answerers: Sequence[Answerer], dataset: Dataset, batch: int, progress: Progress) -> dict[str, Answers]:
    """Collects in one pass."""
    return Collector(dataset, batch, progress).collect(answerers)


def brightness(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class 0 for dark images, 2 for bright ones."""
    light = float(image.mean())
    return np.array([1 - light, 0.5, light], dtype=np.float32)


def inverted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The other way round."""
    return brightness(image)[::-1]


def grey(levels: list[int]) -> Dataset:
    """Images of one shade each."""
    return Dataset([np.full((8, 8, 3), level, np.uint8) for level in levels], None, "shades")


LEVELS = [0, 255, 30, 200, 90, 170, 250, 10, 60]


@pytest.mark.parametrize("batch", [1, 2, 4, 9, 50])
def test_answers_are_in_the_images_order_whatever_the_batch(batch: int) -> None:
    answerer = scripted("one", brightness)

    found = collect([answerer], grey(LEVELS), batch, no_progress)["one"]

    wanted = [[2, 1, 0] if level > 127 else [0, 1, 2] for level in LEVELS]
    kept = [int(1 + 10 * np.float32(level / 255)) for level in LEVELS]
    assert found.top.tolist() == wanted
    assert found.kept.tolist() == kept
    assert found.macs.tolist() == [pruned_macs(GEOMETRY, 1, count) for count in kept]
    assert sum(runner_of(answerer).asked[1:]) == len(LEVELS)


def test_the_first_run_is_not_timed_and_comes_on_one_image() -> None:
    answerer = scripted("one", brightness)

    found = collect([answerer], grey(LEVELS), 4, no_progress)["one"]

    assert runner_of(answerer).asked == [1, 4, 4, 1]
    assert 0 < found.seconds < 10


def test_cosines_are_to_the_first_answerer() -> None:
    one, same, other = (
        scripted("one", brightness),
        scripted("same", lambda i: 3 * brightness(i)),
        scripted("o", inverted),
    )

    found = collect([one, same, other], grey(LEVELS), 4, no_progress)

    assert found["one"].cosine.tolist() == [1.0] * len(LEVELS)
    assert found["same"].cosine == pytest.approx(1.0)
    for level, cosine in zip(LEVELS, found["o"].cosine.tolist(), strict=True):
        a, b = (rule(np.full((3, 8, 8), level / 255, np.float32)) for rule in (brightness, inverted))
        assert cosine == pytest.approx(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))), abs=1e-5)


def test_a_later_pass_compares_with_the_very_first_answerer() -> None:
    collector = Collector(grey(LEVELS), 4, no_progress)

    first = collector.collect([scripted("one", brightness), scripted("other", inverted)])
    second = collector.collect([scripted("again", inverted), scripted("one more", brightness)])

    assert list(first) == ["one", "other"]
    assert second["again"].cosine.tolist() == first["other"].cosine.tolist()
    assert second["one more"].cosine.tolist() == [1.0] * len(LEVELS)
    assert collector.collect([]) == {}


def test_cosine_of_no_answer_at_all() -> None:
    nothing, something = scripted("nothing", lambda _: np.zeros(3, np.float32)), scripted("something", brightness)

    found = collect([nothing, something], grey(LEVELS), 4, no_progress)

    assert found["nothing"].cosine.tolist() == [1.0] * len(LEVELS)
    assert found["something"].cosine.tolist() == [0.0] * len(LEVELS)


def test_ties_go_to_the_lower_class_as_argmax_does() -> None:
    answerer = scripted("tied", lambda _: np.array([0, 2, 1, 2, 2, 0, 1] + [0] * 93, np.float32), classes=100)
    other = scripted("all tied", lambda _: np.zeros(100, np.float32), classes=100)

    found = collect([answerer, other], grey([0, 1]), 2, no_progress)

    assert found["tied"].top.tolist() == [[1, 3, 4, 2, 6]] * 2
    assert found["all tied"].top.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_headless_models_features_have_no_likeliest_classes() -> None:
    def four(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.append(brightness(image), np.float32(0))

    found = collect([scripted("features", four, classes=0)], grey(LEVELS), 4, no_progress)["features"]

    assert found.top.shape == (len(LEVELS), 0)
    assert found.nearest.shape == (len(LEVELS), len(LEVELS) - 1)


def test_right_and_right_among_five() -> None:
    top = np.array([[3, 1, 2, 0, 4], [9, 8, 7, 6, 5], [2, 9, 1, 4, 3]])
    found = Answers(
        top, np.ones(3, np.int32), np.ones(3, np.int64), np.ones(3, np.float32), 1.0, np.empty((3, 0), np.int32)
    )
    labels = np.array([3, 5, 0])

    assert found.right(labels).tolist() == [True, False, False]
    assert found.right_among_top(labels).tolist() == [True, True, False]


def test_every_image_is_decoded_once_for_all_answerers_and_each_preprocessing_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    noise = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(noise.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    opened: list[object] = []

    def opening(image: ImageLike, channels: int) -> Image.Image:
        opened.append(image)
        return open_image(image, channels)

    monkeypatch.setattr(answers_module, "open_image", opening)
    seen: dict[str, list[NDArray[np.float32]]] = {"whole": [], "small": []}

    def taking(name: str) -> Rule:
        return lambda image: seen[name].append(image.copy()) or brightness(image)  # type: ignore[func-returns-value]

    answerers = [
        scripted("whole", taking("whole")),
        scripted("another", brightness),
        scripted("small", taking("small"), preprocessing=SMALL),
    ]
    collect(answerers, Dataset(paths, None, "files"), 3, no_progress)

    assert sorted(map(str, opened)) == sorted(map(str, paths))
    assert np.array_equal(np.stack(seen["whole"][1:]), preprocess(paths, PLAIN))
    assert np.array_equal(np.stack(seen["small"][1:]), preprocess(paths, SMALL))


def test_images_are_decoded_beside_the_answering_thread_and_not_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    threads: set[int] = set()
    ahead: list[int] = []

    def opening(image: NDArray[np.uint8], channels: int) -> Image.Image:
        decoded.append(1)
        threads.add(threading.get_ident())
        return open_image(image, channels)

    monkeypatch.setattr(answers_module, "open_image", opening)
    monkeypatch.setattr(answers_module, "processors", lambda: 2)
    answerer = scripted("one", lambda image: ahead.append(len(decoded)) or brightness(image))  # type: ignore[func-returns-value]
    collect([answerer], grey(list(range(100))), 2, no_progress)

    assert threading.get_ident() not in threads
    assert runner_of(answerer).threads == {threading.get_ident()}
    assert len(decoded) == 100
    answered = [0, *range(100)]  # the first image is asked about twice
    most = max(done - number for number, done in zip(answered, ahead, strict=True))
    assert most <= 2 * (2 + 1 + 2)


def test_progress_says_how_much_is_answered() -> None:
    reported: list[tuple[str, float | None]] = []

    collect([scripted("one", brightness)], grey([0] * 10), 4, lambda *step: reported.append(step))  # type: ignore[arg-type]

    assert reported == [("answering 10 images, 1 way of answering", share) for share in (0, 0.4, 0.8, 1)]


def broken(folder: Path) -> Path:
    """An image file cut short."""
    path = folder / "cut.png"
    Image.new("RGB", (64, 64), "red").save(path)
    path.write_bytes(path.read_bytes()[:60])
    return path


def narrow(folder: Path) -> Path:
    """A readable image that resizing would make larger than Pillow allows."""
    path = folder / "narrow.png"
    Image.new("L", (1, 60_000)).save(path)
    return path


@pytest.mark.parametrize("make", [broken, narrow, lambda folder: folder / "missing.png"])
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    bad = make(tmp_path)
    large = Preprocessing((800, 800), (800, 800), CropMode.CENTER, Interpolation.BILINEAR, True, (0.0,) * 3, (1.0,) * 3)
    fine = [np.zeros((8, 8, 3), np.uint8)] * 5

    with pytest.raises(ImageError, match=bad.name) as caught:
        collect(
            [scripted("one", brightness, preprocessing=large)], Dataset([*fine, bad, *fine], None, ""), 2, no_progress
        )

    assert caught.value.message.count(bad.name) == 1
    assert "\n" not in caught.value.message


def test_an_array_that_is_no_image_is_named_by_its_number() -> None:
    images = [np.zeros((8, 8, 3), np.uint8)] * 4 + [np.zeros((8, 8, 2), np.uint8)]

    with pytest.raises(ImageError, match="image 4: "):
        collect([scripted("one", brightness)], Dataset(images, None, ""), 2, no_progress)


def test_an_error_leaves_no_decoding_thread_behind() -> None:
    def failing(_: NDArray[np.float32]) -> NDArray[np.float32]:
        raise ModelError("it cannot")

    with pytest.raises(ModelError, match="it cannot"):
        collect([scripted("one", failing)], grey([0] * 200), 1, no_progress)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_an_answer_that_is_no_number_names_answerer_and_image() -> None:
    def rule(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return brightness(image) / (np.float32(0) if image.mean() > 0.99 else np.float32(1))

    with np.errstate(all="ignore"), pytest.raises(ModelError, match="sharp: the answer to image 1 is not finite"):
        collect([scripted("dull", brightness), scripted("sharp", rule)], grey(LEVELS), 4, no_progress)


@pytest.mark.parametrize(("levels", "batch"), [([], 4), ([1], 0)])
def test_nothing_to_answer_is_refused(levels: list[int], batch: int) -> None:
    with pytest.raises(InvalidArgument):
        Collector(grey(levels), batch, no_progress)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_any_number_of_images_in_any_batches(images: int, batch: int, answerers: int) -> None:
    levels = [number * 6 for number in range(images)]
    asked = [scripted(str(number), brightness) for number in range(answerers)]

    found = collect(asked, grey(levels), batch, no_progress)

    alone = collect([scripted("0", brightness)], grey(levels), images, no_progress)["0"]
    for one in found.values():
        assert one.top.tolist() == alone.top.tolist()
        assert one.kept.tolist() == alone.kept.tolist()
