"""The TensorRT runner on a stand-in device: everything but TensorRT itself and the GPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.engine.cuda import find_device
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, profiles
from sait_deploy.errors import InvalidArgument, ModelError, RuntimeUnavailable
from sait_deploy.exporters.names import KEPT, LANES
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import load
from sait_deploy.runtime.token_buckets import bucket_of, lanes_of
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.runtime.engines import BATCH, CLOSE, Opener
from tests.runtime.host_device import HostTensorRT
from tests.tiny import random_batch


@pytest.mark.skipif(find_device() is not None, reason="there is a GPU")
def test_loading_says_that_no_gpu_can_be_used(tiny_adaptive: Artifact, engine_of: Callable[[Artifact], Engine]) -> None:
    """Whether or not there is an engine."""
    pytest.importorskip("cuda.bindings")
    for place in (engine_of(tiny_adaptive).artifact.path, tiny_adaptive.path):
        with pytest.raises(RuntimeUnavailable, match="no GPU can be used") as caught:
            load(place, "tensorrt-rtx")
        assert caught.value.exit_code == 7
        assert len(caught.value.message.splitlines()) == 1
        assert "driver" in caught.value.hint


@pytest.mark.parametrize("batch", [1, 4, 5, 2])
def test_dense_and_density_engines_answer_as_onnxruntime(tiny: TinyExport, opened: Opener, batch: int) -> None:
    images = random_batch((batch, *SHAPE), seed=batch)
    for artifact in (tiny.dense, tiny.half):
        runner, _, package = opened(artifact)
        expected = load(artifact, "onnxruntime", ONE_THREAD).run(images)
        for _ in range(2):
            output = runner.run(images)
            np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
            assert output.kept.tolist() == expected.kept.tolist()
        (context,) = package.contexts
        assert context.config.cuda_graph_strategy == "whole"


def test_an_adaptive_engine_gives_each_image_its_own_point(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive)
    reference = load(tiny_adaptive, "onnxruntime", ONE_THREAD)
    rng = np.random.default_rng(3)
    for batch in (5, 1, 3, 5, 2):
        images = random_batch((batch, *SHAPE), seed=batch)
        mass = rng.uniform(0.05, 1.05, size=batch).astype(np.float32)
        expected, output = reference.run(images, mass=mass), runner.run(images, mass=mass)
        np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
        assert output.kept.tolist() == expected.kept.tolist()
    stem, trunk = package.contexts
    specialised = [context.config.dynamic_shapes_kernel_specialization_strategy for context in (stem, trunk)]
    assert specialised == ["eager", "eager"]
    assert [context.config.cuda_graph_strategy for context in (stem, trunk)] == ["whole", "whole"]
    assert trunk.addresses["kept"] == stem.addresses["rows"], "kept is the front of the stem's own buffer"
    for name in ("tokens", "cu_seqlens", "guard"):
        assert trunk.addresses[name] == stem.addresses[name], f"{name} was copied"


masses_of_a_batch = st.lists(st.floats(0, 1.125, width=32, allow_subnormal=False), min_size=1, max_size=BATCH.largest)


def test_rows_and_lanes_to_spare_change_no_answer(tiny_adaptive: Artifact, opened: Opener) -> None:
    """The trunk of TensorRT for RTX runs few different shapes; the rows in addition are of tokens that are dropped."""
    runner, _, package = opened(tiny_adaptive)
    reference, trunk = load(tiny_adaptive, "onnxruntime", ONE_THREAD), package.contexts[1]
    geometry = tiny_adaptive.manifest.model.geometry

    @settings(max_examples=25, deadline=None)
    @given(masses=masses_of_a_batch, seed=st.integers(0, 99))
    def check(masses: list[float], seed: int) -> None:
        images = random_batch((len(masses), *SHAPE), seed=seed)
        expected, output = reference.run(images, mass=masses), runner.run(images, mass=masses)
        np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
        assert output.kept.tolist() == expected.kept.tolist()
        kept = output.kept + geometry.prefix_tokens
        rows, lanes = trunk.shapes[KEPT][0], trunk.shapes[LANES][0]
        assert rows == bucket_of(int(kept.sum()), len(masses) * geometry.tokens)
        assert lanes == lanes_of(int(kept.max()), geometry.tokens)

    check()


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_a_trunk_that_takes_no_rows_to_spare_runs_exactly_what_is_kept(
    tiny_adaptive: Artifact, opened: Opener, runtime: str
) -> None:
    """Of engines that were built before trunks took them, and with TensorRT, whose kernels are for any shape."""
    runner, _, package = opened(tiny_adaptive, runtime, spare_rows=runtime == "tensorrt")
    images = random_batch((3, *SHAPE), seed=3)
    trunk, output = package.contexts[1], runner.run(images, mass=0.5)
    np.testing.assert_allclose(
        output.logits, load(tiny_adaptive, "onnxruntime", ONE_THREAD).run(images, mass=0.5).logits, **CLOSE
    )
    kept = output.kept + tiny_adaptive.manifest.model.geometry.prefix_tokens
    assert (trunk.shapes[KEPT], trunk.shapes[LANES]) == ((kept.sum(),), (kept.max(),))
    if runtime == "tensorrt-rtx":
        assert trunk.config.dynamic_shapes_kernel_specialization_strategy == "none"
        assert not hasattr(trunk.config, "cuda_graph_strategy"), "shapes are others in nearly every batch"
        assert runner.environment["kernels made for the shapes"] == "the stem's"


def test_what_was_selected_can_be_checked(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    images = random_batch((4, *SHAPE), seed=9)
    choice = PointChoice(None, [0.2, 0.5, 0.9, 1.0])
    found, point = runner.select_at(images, choice), resolve(tiny_adaptive.manifest, 4, choice)
    assert point is not None
    prefix = tiny_adaptive.manifest.model.geometry.prefix_tokens
    keep, _ = mass_token_select(found.importance, point.mass, point.keep_limits, prefix)
    assert np.array_equal(found.keep, keep)
    np.testing.assert_allclose(found.logits, runner.run_at(images, choice).logits)


def test_answers_stay_when_the_next_batch_runs(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    first = runner.run(random_batch((2, *SHAPE), seed=1))
    before = first.logits.copy()
    runner.run(random_batch((2, *SHAPE), seed=2))
    assert np.array_equal(first.logits, before)


def test_a_batch_that_the_engine_was_not_built_for_is_refused(tiny: TinyExport, opened: Opener) -> None:
    runner, _, _ = opened(tiny.half)
    with pytest.raises(InvalidArgument, match="takes 1 to 5 images, not 6"):
        runner.run(random_batch((6, *SHAPE)))


def test_compute_and_stages_are_timed_by_the_device(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    images = random_batch((3, *SHAPE))
    assert runner.bind(images)() == pytest.approx(1e-3)
    stages = runner.stages(images)
    assert stages is not None
    assert (stages.upload, stages.compute, stages.download) == pytest.approx((1e-3, 1e-3, 1e-3))
    assert stages.enqueue > 0


MASSES = (1.0, 0.05, 0.05, 1.0, 0.4)


def test_the_trunks_profile_follows_the_rows(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive, "tensorrt")
    reference = load(tiny_adaptive, "onnxruntime", ONE_THREAD)
    spans = profiles(tiny_adaptive.manifest, BATCH, BuilderName.TENSORRT)[PartName.TRUNK]
    prefix = tiny_adaptive.manifest.model.geometry.prefix_tokens
    stem, trunk = package.contexts
    used = []
    for turn, (batch, mass) in enumerate((batch, mass) for batch in (1, 5, 3) for mass in MASSES):
        images = random_batch((batch, *SHAPE), seed=turn)
        expected, output = reference.run(images, mass=mass), runner.run(images, mass=mass)
        np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
        assert output.kept.tolist() == expected.kept.tolist()
        rows = int(output.kept.sum()) + batch * prefix
        used.append(trunk.profile)
        assert spans[trunk.profile].ranges[KEPT].holds((rows,))
    assert len(set(used)) > 2, "rows of one profile show nothing"
    changes = [after for before, after in pairwise([0, *used]) if before != after]
    assert trunk.switches == changes, "a profile is changed only where the rows want another"
    assert stem.switches == []


def test_a_refused_change_of_profile_is_an_error_and_is_tried_again(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive, "tensorrt")
    trunk, images = package.contexts[1], random_batch((5, *SHAPE))
    runner.run(random_batch((1, *SHAPE)), mass=0.05)
    before = trunk.profile
    trunk.refuses = "profile"
    for attempts in (1, 2):
        with pytest.raises(
            RuntimeUnavailable, match=r"could not run a batch of 5: Profile \d is in use by another context\.$"
        ):
            runner.run(images, mass=1.0)
        assert len(trunk.switches) == attempts
    assert trunk.profile == before
    trunk.refuses = ""
    expected = load(tiny_adaptive, "onnxruntime", ONE_THREAD).run(images, mass=1.0)
    np.testing.assert_allclose(runner.run(images, mass=1.0).logits, expected.logits, **CLOSE)
    assert trunk.profile != before


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("refuses_contexts", "cannot be made ready to run: Requested amount of GPU memory could not be allocated."),
        ("cannot_start", "cannot start here: CUDA initialization failure with error: 35"),
    ],
)
def test_what_tensorrt_refuses_while_loading_is_one_line_with_its_reason(
    tiny: TinyExport, opened: Opener, monkeypatch: pytest.MonkeyPatch, what: str, why: str
) -> None:
    monkeypatch.setattr(HostTensorRT, what, property(lambda _: True, lambda *_: None), raising=False)
    with pytest.raises(RuntimeUnavailable) as caught:
        opened(tiny.half, "tensorrt")
    assert caught.value.message.endswith(why)
    assert caught.value.hint


@pytest.mark.parametrize("wrong", [0, 2])
@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_an_image_that_is_not_of_numbers_is_named(
    tiny_adaptive: Artifact, opened: Opener, runtime: str, wrong: int
) -> None:
    runner, _, _ = opened(tiny_adaptive, runtime)
    images = random_batch((3, *SHAPE))
    good = runner.run(images).logits
    bad = images.copy()
    bad[wrong] = np.nan
    with pytest.raises(ModelError, match=f"image {wrong} of the batch: its logits are not finite numbers"):
        runner.run(bad)
    with pytest.raises(ModelError, match=f"image {wrong} of the batch: its importance scores are not finite numbers"):
        runner.select(bad)
    assert np.array_equal(runner.run(images).logits, good), "nothing of it stays"
