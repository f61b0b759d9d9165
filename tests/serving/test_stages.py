"""Cut in process: images of different stems in one trunk answer as they do whole, and a bad image harms no other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import InvalidArgument, NotFinite
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.parts import open_cut, why_whole
from sait_deploy.serving.stages import ImageAnswer, ImagePoint, Prepared, open_stages
from tests.exported import CLASSES, IMAGE_SIZE, TinyExport
from tests.tiny import random_batch

ONE_THREAD = RunOptions(threads=1)
PATCHES, PREFIX = 36, 1


def batch(images: int, seed: int = 0) -> tuple[NDArray[np.float32], list[ImagePoint]]:
    """Images, and an operating point for each of its own."""
    draw = np.random.default_rng(seed)
    least = draw.integers(1, 12, images)
    masses = draw.uniform(0.1, 1.1, images).astype(np.float32)
    points = [ImagePoint(float(m), int(low), int(low) + 20) for m, low in zip(masses, least, strict=True)]
    return random_batch((images, 3, IMAGE_SIZE, IMAGE_SIZE)), points


def prepared(images: NDArray[np.float32], points: list[ImagePoint]) -> list[Prepared]:
    return [Prepared(image, point) for image, point in zip(images, points, strict=True)]


def answered(answers: list[ImageAnswer | Exception]) -> list[ImageAnswer]:
    found = [answer for answer in answers if isinstance(answer, ImageAnswer)]
    assert len(found) == len(answers), answers
    return found


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("images", [1, 3, 11])
def test_images_of_several_stems_answer_in_one_trunk_as_they_do_whole(
    tiny_adaptive: Artifact, runtime: str, images: int
) -> None:
    pixels, points = batch(images)
    stages = open_stages(tiny_adaptive, runtime, ONE_THREAD)
    assert stages.whole == ""
    behind = [part for one in prepared(pixels, points) for part in stages.stem([one])]
    backwards = answered(list(stages.trunk(behind[::-1])))
    whole = load(tiny_adaptive, runtime, ONE_THREAD)
    masses, least, most = zip(*((p.mass, p.min_keep, p.max_keep) for p in points), strict=True)
    expected = whole.select(pixels, mass=masses, min_keep=least, max_keep=most)
    for part, answer, logits, keep in zip(behind, backwards[::-1], expected.logits, expected.keep, strict=True):
        np.testing.assert_allclose(answer.logits, logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(answer.keep, keep[PREFIX:])
        assert answer.kept == keep[PREFIX:].sum() == stages.tokens(part) - PREFIX


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_image_of_no_numbers_gets_an_error_and_the_others_their_answers(
    tiny_adaptive: Artifact, runtime: str
) -> None:
    pixels, points = batch(9)
    stages = open_stages(tiny_adaptive, runtime, ONE_THREAD)
    good = answered(list(stages.trunk(stages.stem(prepared(pixels, points)))))
    pixels[[0, 4]] = np.nan
    found = stages.trunk(stages.stem(prepared(pixels, points)))
    for i, (answer, before) in enumerate(zip(found, good, strict=True)):
        if i in (0, 4):
            assert isinstance(answer, NotFinite)
        else:
            assert isinstance(answer, ImageAnswer)
            np.testing.assert_allclose(answer.logits, before.logits, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(answer.keep, before.keep)


def test_artifacts_without_a_seam_run_whole_and_say_why(tiny: TinyExport) -> None:
    pixels = random_batch((5, 3, IMAGE_SIZE, IMAGE_SIZE))
    for artifact, kept in ((tiny.dense, PATCHES), (tiny.half, PATCHES // 2)):
        stages = open_stages(artifact, "onnxruntime", ONE_THREAD)
        assert stages.whole == f"a {artifact.manifest.form} artifact has no seam; one exported with --mass has"
        images = stages.stem([Prepared(image, None) for image in pixels])
        assert {stages.tokens(image) for image in images} == {PREFIX + kept}
        found = answered(list(stages.trunk(images)))
        expected = load(artifact, "onnxruntime", ONE_THREAD).run(pixels)
        np.testing.assert_allclose([one.logits for one in found], expected.logits, rtol=1e-5, atol=1e-5)
        assert {(one.kept, one.keep is None) for one in found} == {(kept, True)}


def test_whole_too_bad_images_harm_no_other(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    pixels, points = batch(4)
    pixels[[1, 2]] = np.nan
    for artifact, runtime in ((tiny.half, "onnxruntime"), (tiny_adaptive, "torch")):
        stages = open_stages(artifact, runtime, ONE_THREAD)
        adaptive = artifact is tiny_adaptive
        images = [Prepared(image, point if adaptive else None) for image, point in zip(pixels, points, strict=True)]
        found = stages.trunk(images)
        assert [isinstance(one, ImageAnswer) for one in found] == [True, False, False, True]
        assert all(one.logits.shape == (CLASSES,) for one in found if isinstance(one, ImageAnswer))
    assert [stages.tokens(image) for image in images] == [PREFIX + point.max_keep for point in points]


def test_what_cannot_be_cut_is_refused_by_name(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    assert why_whole(tiny_adaptive, "onnxruntime") == ""
    able = "onnxruntime, openvino, tensorrt, tensorrt-rtx cut them"
    assert why_whole(tiny_adaptive, "torch") == f"torch runs artifacts whole; {able}"
    with pytest.raises(InvalidArgument, match="a dense artifact has no seam"):
        open_cut(tiny.dense, "onnxruntime", ONE_THREAD)
    with pytest.raises(InvalidArgument, match="onnxruntime cannot run"):
        open_cut(tiny_adaptive, "onnxruntime", RunOptions(precision="bf16"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="one kind of device"):
        open_cut(tiny_adaptive, "onnxruntime", RunOptions(device="cuda:0"))
