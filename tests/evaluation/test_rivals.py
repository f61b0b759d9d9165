"""What costs the same: by multiply-accumulates against the model's own sizes, by time against a benchmark's file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import PruningInfo, WeightsSource
from sait_deploy.artifacts.points import PointRequest, mass_point, named_point
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import SCHEMA_VERSION, Refusal, Report, RuntimeInfo, Timing, Variant
from sait_deploy.bench.stats import make_row
from sait_deploy.bench.variants import Sweep, runnable_variants
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation.rivals import (
    BenchTimes,
    Measured,
    density_of_equal_macs,
    read_bench_times,
    resized_geometry,
    resolution_of_equal_macs,
    smaller_sizes,
)
from sait_deploy.models.registry import describe
from sait_deploy.models.resize import resized
from sait_deploy.tokens import OperatingPoint, Score, dense_macs, pruned_macs
from tests.evaluation.sample import DIGITS
from tests.exported import TinyExport
from tests.tiny import FAMILIES, family

WEIGHTS = "0123456789ab" + "0" * 52
MEASURED = Measured("digits", WEIGHTS, DIGITS, Score.MEAN, 1)
N = DIGITS.patch_tokens


@given(st.integers(0, 5), st.integers(1, N), st.integers(-1, 1))
def test_density_of_equal_macs_is_the_smallest_that_has_them(prune_at: int, kept: int, off: int) -> None:
    wanted = pruned_macs(DIGITS, prune_at, kept) + off

    found = density_of_equal_macs(DIGITS, prune_at, wanted)

    assert found == min(N, kept + (off > 0))


def test_what_no_density_costs_is_matched_by_all_tokens() -> None:
    assert density_of_equal_macs(DIGITS, 1, 2 * dense_macs(DIGITS)) == N
    assert density_of_equal_macs(DIGITS, 1, 0) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_geometry_is_resized_as_the_model_is(name: str) -> None:
    loaded = describe(family(name), name, WeightsSource.MEMORY, None)
    for size in smaller_sizes(loaded.info.image_size, loaded.info.patch_size):
        smaller = resized(loaded, size).info.geometry

        assert resized_geometry(loaded.info.geometry, smaller.patch_tokens) == smaller


@pytest.mark.parametrize(
    ("image_size", "patch_size", "wanted"),
    [
        ((32, 32), (8, 8), [(8, 8), (16, 16), (24, 24)]),
        ((24, 48), (8, 8), [(8, 16), (16, 32)]),
        ((48, 16), (8, 4), [(8, 4), (16, 4), (24, 8), (32, 12), (40, 12)]),
        ((16, 16), (16, 16), []),
    ],
)
def test_smaller_sizes_have_the_shape_and_whole_patches(
    image_size: tuple[int, int], patch_size: tuple[int, int], wanted: list[tuple[int, int]]
) -> None:
    assert smaller_sizes(image_size, patch_size) == wanted


@given(st.floats(0.001, 1.2))
def test_resolution_of_equal_macs_is_the_smallest_that_has_them(share: float) -> None:
    macs = share * dense_macs(DIGITS)
    costs = {side * 8: dense_macs(resized_geometry(DIGITS, side * side)) for side in range(1, 12)}

    found = resolution_of_equal_macs(DIGITS, (96, 96), (8, 8), macs)

    enough = [size for size, cost in costs.items() if cost >= macs]
    assert found == ((enough[0], enough[0]) if enough else None)


def report_of(
    times: Mapping[str, tuple[int, float]], batch: int = 4, runtime: str = "onnxruntime", weights: str = WEIGHTS
) -> Report:
    """A benchmark of these labels: tokens kept, and milliseconds."""
    variants = tuple(
        Variant(f"{label}@{runtime}", label, runtime, label == "dense", weights, "0" * 64, False, None, None, None)
        for label in times
    )
    dense = None if "dense" not in times else [times["dense"][1] / 1e3] * 6
    rows = tuple(
        make_row(
            batch=batch,
            variant=f"{label}@{runtime}",
            seconds=[milliseconds / 1e3] * 6,
            dense_seconds=None if label == "dense" else dense,
            kept=[kept],
            macs=10,
            dense_macs=20,
        )
        for label, (kept, milliseconds) in times.items()
    )
    return Report(
        SCHEMA_VERSION, "now", "digits", Timing.COMPUTE, {}, {}, (RuntimeInfo(runtime, {}),), variants, rows, (), (), ()
    )  # fmt: skip


def joined(*reports: Report) -> Report:
    """One report of several."""
    first, *others = reports
    for other in others:
        first = dataclasses.replace(
            first,
            runtimes=first.runtimes + tuple(info for info in other.runtimes if info not in first.runtimes),
            variants=tuple(dict.fromkeys((*first.variants, *other.variants))),
            rows=first.rows + other.rows,
        )
    return first


def written(report: Report, folder: Path) -> Path:
    """The report's file, which is a whole one."""
    path = folder / "bench.json"
    path.write_text(to_json(report), encoding="utf-8")
    from_json(path.read_text(encoding="utf-8"))
    return path


TIMES = {
    "dense": (144, 20.0),
    "density 0.5": (72, 12.0),
    "density 0.25": (36, 8.0),
    "mass 0.9": (90, 10.0),
    "mass 0.8, 4 to 60": (50, 13.0),
    "fast": (40, 8.0),
    "slow": (40, 25.0),
    "quick": (20, 5.0),
    "density 0.1, block 2": (15, 1.0),
}


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (mass_point(0.9), 54),  # half-way from 8 to 12 ms
        (PointRequest("named", 0.9), 54),
        (PointRequest("named", 0.8, 4, 60), 81),  # an eighth of the way from 12 to 20 ms
        (PointRequest("fast", 0.5), 36),
        (PointRequest("slow", 0.99), 144),
    ],
)
def test_density_of_equal_time_lies_between_those_measured(tmp_path: Path, request_: PointRequest, kept: int) -> None:
    times = read_bench_times(written(report_of(TIMES), tmp_path), MEASURED, None, None)

    assert dict(times.densities) == pytest.approx({36: 8, 72: 12, 144: 20})
    assert times.density_of_equal_time(MEASURED.labels(request_, request_.resolve(N))) == kept


@given(st.lists(st.integers(1, 300), min_size=3, max_size=8, unique=True), st.integers(1, 300))
@settings(max_examples=60)
def test_time_at_the_matched_density_is_just_as_long(tenths: list[int], asked: int) -> None:
    """Also where more tokens were measured to take less: it is the first density that takes as long."""
    curve = tuple((10 * (i + 1), tenth / 10) for i, tenth in enumerate(tenths))
    times = BenchTimes("onnxruntime", 1, {"mass 0.5": asked / 10}, curve)
    if asked / 10 < curve[0][1]:
        with pytest.raises(InvalidArgument, match="ms of 10 tokens"):
            times.density_of_equal_time(["mass 0.5"])
        return

    found = times.density_of_equal_time(["mass 0.5"])

    def time_at(kept: float) -> float:
        low = max(point for point in curve if point[0] <= kept)
        high = min(point for point in curve if point[0] >= kept)
        return low[1] if low == high else low[1] + (high[1] - low[1]) * (kept - low[0]) / (high[0] - low[0])

    if found < curve[-1][0]:
        assert time_at(found) >= asked / 10 - 1e-6 or time_at(found - 1) >= asked / 10 - 1e-6
    assert all(time_at(kept) < asked / 10 for kept in range(10, found - 1))


def test_times_are_of_one_batch_and_runtime(tmp_path: Path) -> None:
    one, other = {"dense": (144, 20.0), "mass 0.9": (90, 10.0), "density 0.5": (72, 8.0)}, {"dense": (144, 9.0)}
    report = joined(report_of(one, 4), report_of(one | {"mass 0.9": (90, 18.0)}, 8), report_of(other, 4, "tensorrt"))
    refused = Refusal("dense@tensorrt", (8,), "it takes 4 images", "", 2)
    path = written(dataclasses.replace(report, refusals=(refused,)), tmp_path)

    assert read_bench_times(path, MEASURED, "onnxruntime", 4).milliseconds["mass 0.9"] == pytest.approx(10)
    assert read_bench_times(path, MEASURED, "onnxruntime", None).milliseconds["mass 0.9"] == pytest.approx(18)
    assert dict(read_bench_times(path, MEASURED, None, 4, "tensorrt").densities) == pytest.approx({144: 9})
    for runtime, batch, said in [
        (None, 4, "has times of onnxruntime, tensorrt"),
        ("torch", None, "no times on torch"),
        ("tensorrt", 8, "no times on tensorrt at batch 8"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            read_bench_times(path, MEASURED, runtime, batch)
    with pytest.raises(InvalidArgument, match="has times of"):
        read_bench_times(path, MEASURED, None, 4, preferred="torch")


def test_a_benchmark_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    labels = MEASURED.labels(mass_point(0.9), OperatingPoint(0.9, 1, N))
    cases = [
        ({"dense": (144, 20.0), "density 0.5": (72, 12.0)}, "has no 'mass0.9' or 'mass 0.9'"),
        ({"dense": (144, 20.0), "mass 0.9": (90, 10.0)}, "has no density beside dense"),
        ({"dense": (144, 20.0), "density 0.5": (72, 12.0), "mass 0.9": (90, 10.0)}, "less than the 12 ms of 72 tokens"),
    ]
    for times, said in cases:
        read = read_bench_times(written(report_of(times), tmp_path), MEASURED, None, None)
        with pytest.raises(InvalidArgument, match=said):
            read.density_of_equal_time(labels)


def test_a_benchmark_in_which_dense_did_not_run_is_refused(tmp_path: Path) -> None:
    whole = report_of({"dense": (144, 20.0), "density 0.5": (72, 12.0)})
    alone = dataclasses.replace(whole.rows[1], speedup=None, share=None)
    refused = Refusal("dense@onnxruntime", (4,), "no memory", "", 7)
    report = dataclasses.replace(whole, rows=(alone,), refusals=(refused,))

    with pytest.raises(InvalidArgument, match="dense did not run"):
        read_bench_times(written(report, tmp_path), MEASURED, None, None)


def test_a_benchmark_of_another_model_is_refused(tmp_path: Path) -> None:
    report = report_of({"dense": (196, 20.0), "density 0.5": (98, 12.0)})

    with pytest.raises(InvalidArgument, match="196 patch tokens, not 144"):
        read_bench_times(written(report, tmp_path), MEASURED, None, None)
    with pytest.raises(InvalidArgument, match="of others, not of digits"):
        path = written(dataclasses.replace(report, model="others"), tmp_path)
        read_bench_times(path, MEASURED, None, None)


def test_a_benchmark_of_other_weights_is_refused(tmp_path: Path) -> None:
    """On the runtime and batch asked for or not; by their size first, which tells more of weights that were resized."""
    times = {"dense": (144, 20.0), "density 0.5": (72, 12.0)}
    path = written(report_of(times, weights="fedcba987654" + "1" * 52), tmp_path)

    for runtime in (None, "onnxruntime", "tensorrt"):
        with pytest.raises(InvalidArgument) as refused:
            read_bench_times(path, MEASURED, runtime, None)
        wanted = f"{path} is a benchmark of weights fedcba987654… (SHA-256), not of 0123456789ab…"
        assert refused.value.message == wanted
        assert refused.value.hint == "measure masses and densities together: sait-deploy bench"
    path = written(report_of({"dense": (196, 20.0)}, weights="f" * 64), tmp_path)
    with pytest.raises(InvalidArgument, match="196 patch tokens, not 144"):
        read_bench_times(path, MEASURED, None, None)


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema_version": 3}', '{"schema_version": 4}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(ArtifactError):
        read_bench_times(path, MEASURED, None, None)


@pytest.mark.parametrize("score", list(Score))
@pytest.mark.parametrize("prune_at", [0, 2, 3])
def test_labels_are_those_that_a_benchmark_gives(
    tiny: TinyExport, tiny_adaptive: Artifact, score: Score, prune_at: int
) -> None:
    """Labels of points and densities, at the default block and score and at others, come from the benchmark itself."""

    def changed(artifact: Artifact) -> Artifact:
        pruning = artifact.manifest.pruning
        assert pruning is not None
        other: PruningInfo = dataclasses.replace(pruning, score=score, prune_at=prune_at)
        return Artifact(artifact.path, dataclasses.replace(artifact.manifest, pruning=other))

    adaptive, half = changed(tiny_adaptive), changed(tiny.half)
    manifest = adaptive.manifest
    measured = Measured(manifest.model.name, manifest.weights.sha256, manifest.model.geometry, score, prune_at)
    assert manifest.pruning is not None
    named = {info.name: info.point for info in manifest.pruning.points}

    for subject in runnable_variants([adaptive], Sweep()):
        assert subject.point is not None
        name = next(name for name, point in named.items() if point == subject.point)
        request = PointRequest(name, subject.point.mass, subject.point.min_keep, subject.point.max_keep)
        assert subject.label in measured.labels(request, subject.point)
    for subject in runnable_variants([adaptive], Sweep(masses=(0.7, 0.95))):
        assert subject.point is not None
        point = dataclasses.replace(named_point(manifest, None), mass=subject.point.mass)
        assert subject.label == measured.labels(mass_point(point.mass), point)[1]
    (density,) = runnable_variants([half], Sweep())
    assert density.label == f"density {Decimal('0.5')}{measured.suffix}"
