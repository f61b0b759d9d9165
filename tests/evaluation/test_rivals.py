"""What costs the same: by multiply-accumulates against the model's own sizes, by time against a benchmark's file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import Precision, WeightsSource
from sait_deploy.bench.group_results import Group
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import SCHEMA_VERSION, Pruning, Refusal, Report, Timing, Variant
from sait_deploy.bench.stats import make_row
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation.rivals import (
    BenchTimes,
    ModelInBench,
    TimedPoint,
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
from tests.tiny import FAMILIES, family

WEIGHTS = "0123456789ab" + "0" * 52
MODEL = ModelInBench("digits", WEIGHTS, DIGITS, Score.MEAN, 1)
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


Times = Mapping[OperatingPoint | int, float]
"""Milliseconds of an adaptive artifact's points, and of densities by the tokens that they keep; N is dense."""


def report_of(
    times: Times,
    batch: int = 4,
    runtime: str = "onnxruntime",
    weights: str = WEIGHTS,
    prune_at: int = 1,
    kept: Sequence[int] = (),
) -> Report:
    """A benchmark in which every image keeps what a density says, and at points what is given or the most allowed."""
    most = max(key for key in times if isinstance(key, int))
    variants, rows = [], []
    for key, milliseconds in times.items():
        baseline, name = key == most, f"{key}@{runtime}"
        density, point = (f"{key / most:.4f}", None) if isinstance(key, int) else (None, key)
        pruning = None if baseline else Pruning(density, point, None, Score.MEAN, prune_at)
        variants.append(
            Variant(
                name, str(key), runtime, None, "", baseline, weights, "0" * 64, False, None, pruning, Precision.FP32
            )
        )
        rows.append(
            make_row(
                batch=batch,
                variant=name,
                seconds=[milliseconds / 1e3] * 6,
                dense_seconds=None if baseline else [times[most] / 1e3] * 6,
                kept=[key] if isinstance(key, int) else kept or [key.max_keep],
                macs=10,
                dense_macs=20,
            )
        )
    return Report(
        SCHEMA_VERSION,
        "now",
        "digits",
        Timing.COMPUTE,
        {},
        {},
        (Group(runtime, None, {}),),
        (),
        tuple(variants),
        tuple(rows),
        (),
        (),
        (),
        None,
        None,
        (),
        (),
    )


def joined(*reports: Report) -> Report:
    """One report of several."""
    first, *others = reports
    for other in others:
        first = dataclasses.replace(
            first,
            groups=first.groups + tuple(group for group in other.groups if group not in first.groups),
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


def mass(share: float, least: int = 1, most: int = N) -> OperatingPoint:
    return OperatingPoint(share, least, most)


TIMES: Times = {N: 20.0, 72: 12.0, 36: 8.0, mass(0.9): 10.0, mass(0.8, 4, 60): 13.0, mass(0.5): 8.0, mass(0.99): 25.0}


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        (mass(0.9), 54),  # half-way from 8 to 12 ms
        (mass(0.8, 4, 60), 81),  # an eighth of the way from 12 to 20 ms
        (mass(0.5), 36),
        (mass(0.99), 144),
    ],
)
def test_density_of_equal_time_lies_between_those_measured(tmp_path: Path, point: OperatingPoint, kept: int) -> None:
    report = report_of({**TIMES, 14: 1.0, mass(0.1): 9.0})
    variants = [
        dataclasses.replace(v, pruning=dataclasses.replace(v.pruning, prune_at=2))
        if v.pruning and v.label in ("14", str(mass(0.1)))
        else v
        for v in report.variants
    ]
    path = written(dataclasses.replace(report, variants=tuple(variants)), tmp_path)
    times = read_bench_times(path, MODEL, None, None)

    assert dict(times.densities) == pytest.approx({36: 8, 72: 12, 144: 20})
    assert times.density_of_equal_time(point, point.max_keep) == kept
    assert mass(0.1) not in times.points, "it was measured in another block, as was the density of 14 tokens"


@pytest.mark.parametrize(
    ("kept_mean", "kept"),
    [
        (30.0, 54),  # as many as were timed: half-way from 8 to 12 ms
        (21.0, 45),  # a ms of the density's between 36 and 72 tokens less
        (39.0, 63),
        (100.0, 124),  # a density takes 7.33 ms at 30 tokens and 15.11 at 100, so the mass takes 17.78
        (12.5, 37),
        (11.0, None),  # less than any density measured
    ],
)
def test_the_time_of_a_mass_is_moved_to_what_it_keeps_of_other_images(kept_mean: float, kept: int | None) -> None:
    times = BenchTimes("onnxruntime", 1, {mass(0.9): TimedPoint(10.0, 30.0)}, ((36, 8.0), (72, 12.0), (144, 20.0)))

    assert times.density_of_equal_time(mass(0.9), kept_mean) == kept


@given(st.lists(st.integers(1, 300), min_size=3, max_size=8, unique=True), st.integers(1, 300))
@settings(max_examples=60)
def test_time_at_the_matched_density_is_just_as_long(tenths: list[int], asked: int) -> None:
    """Also where more tokens were measured to take less: it is the first density that takes as long."""
    curve = tuple((10 * (i + 1), tenth / 10) for i, tenth in enumerate(tenths))
    times = BenchTimes("onnxruntime", 1, {mass(0.5): TimedPoint(asked / 10, 30.0)}, curve)
    if asked / 10 < curve[0][1]:
        with pytest.raises(InvalidArgument, match="ms of 10 tokens"):
            times.density_of_equal_time(mass(0.5), 30.0)
        return

    found = times.density_of_equal_time(mass(0.5), 30.0)
    assert found is not None

    def time_at(kept: float) -> float:
        low = max(point for point in curve if point[0] <= kept)
        high = min(point for point in curve if point[0] >= kept)
        return low[1] if low == high else low[1] + (high[1] - low[1]) * (kept - low[0]) / (high[0] - low[0])

    if found < curve[-1][0]:
        assert time_at(found) >= asked / 10 - 1e-6 or time_at(found - 1) >= asked / 10 - 1e-6
    assert all(time_at(kept) < asked / 10 for kept in range(10, found - 1))


def test_times_are_of_one_batch_and_runtime(tmp_path: Path) -> None:
    one: Times = {N: 20.0, mass(0.9): 10.0, 72: 8.0}
    report = joined(report_of(one, 4), report_of({**one, mass(0.9): 18.0}, 8), report_of({N: 9.0}, 4, "tensorrt"))
    refused = Refusal(f"{N}@tensorrt", (8,), "it takes 4 images", "", 2)
    path = written(dataclasses.replace(report, refusals=(refused,)), tmp_path)

    assert read_bench_times(path, MODEL, "onnxruntime", 4).points[mass(0.9)].milliseconds == pytest.approx(10)
    assert read_bench_times(path, MODEL, "onnxruntime", None).points[mass(0.9)].milliseconds == pytest.approx(18)
    assert dict(read_bench_times(path, MODEL, None, 4, "tensorrt").densities) == pytest.approx({144: 9})
    for runtime, batch, said in [
        (None, 4, "has times of onnxruntime, tensorrt"),
        ("torch", None, "no times on torch"),
        ("tensorrt", 8, "no times on tensorrt at batch 8"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            read_bench_times(path, MODEL, runtime, batch)
    with pytest.raises(InvalidArgument, match="has times of"):
        read_bench_times(path, MODEL, None, 4, preferred="torch")


def test_a_benchmark_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[Times, str]] = [
        ({N: 20.0, 72: 12.0}, "has not measured mass 0.9 with"),
        ({N: 20.0, 72: 12.0, mass(0.9, 2, 9): 13.0}, "has not measured mass 0.9 with"),
        ({N: 20.0, mass(0.9): 10.0}, "has no density beside dense"),
        ({N: 20.0, 72: 12.0, mass(0.9): 10.0}, "less than the 12 ms of 72 tokens"),
    ]
    for times, said in cases:
        read = read_bench_times(written(report_of(times), tmp_path), MODEL, None, None)
        with pytest.raises(InvalidArgument, match=said):
            read.density_of_equal_time(mass(0.9), N)


def test_a_benchmark_in_which_dense_did_not_run_is_refused(tmp_path: Path) -> None:
    whole = report_of({N: 20.0, 72: 12.0})
    alone = dataclasses.replace(whole.rows[1], speedup=None, share=None)
    refused = Refusal(f"{N}@onnxruntime", (4,), "no memory", "", 7)
    report = dataclasses.replace(whole, rows=(alone,), refusals=(refused,))

    with pytest.raises(InvalidArgument, match="dense did not run"):
        read_bench_times(written(report, tmp_path), MODEL, None, None)


def test_a_benchmark_of_another_model_is_refused(tmp_path: Path) -> None:
    report = report_of({196: 20.0, 98: 12.0})

    with pytest.raises(InvalidArgument, match="196 patch tokens, not 144"):
        read_bench_times(written(report, tmp_path), MODEL, None, None)
    with pytest.raises(InvalidArgument, match="of others, not of digits"):
        path = written(dataclasses.replace(report, model="others"), tmp_path)
        read_bench_times(path, MODEL, None, None)


def test_a_benchmark_of_other_weights_is_refused(tmp_path: Path) -> None:
    """On the runtime and batch asked for or not; by their size first, which tells more of weights that were resized."""
    path = written(report_of({N: 20.0, 72: 12.0}, weights="fedcba987654" + "1" * 52), tmp_path)

    for runtime in (None, "onnxruntime", "tensorrt"):
        with pytest.raises(InvalidArgument) as refused:
            read_bench_times(path, MODEL, runtime, None)
        wanted = f"{path} is a benchmark of weights fedcba987654… (SHA-256), not of 0123456789ab…"
        assert refused.value.message == wanted
        assert refused.value.hint == "measure masses and densities together: sait-deploy bench"
    path = written(report_of({196: 20.0}, weights="f" * 64), tmp_path)
    with pytest.raises(InvalidArgument, match="196 patch tokens, not 144"):
        read_bench_times(path, MODEL, None, None)


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema_version": 3}', '{"schema_version": 4}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(ArtifactError):
        read_bench_times(path, MODEL, None, None)


def test_a_benchmark_of_another_precision_says_nothing_of_this_one(tmp_path: Path) -> None:
    whole = report_of({N: 20.0, 72: 12.0, mass(0.9): 13.0})
    variants = [dataclasses.replace(v, precision=Precision.FP16) if v.pruning else v for v in whole.variants]
    times = read_bench_times(written(dataclasses.replace(whole, variants=tuple(variants)), tmp_path), MODEL, None, None)
    assert (times.points, [kept for kept, _ in times.densities]) == ({}, [N])


def test_a_benchmark_of_an_older_version_is_to_be_run_again(tmp_path: Path) -> None:
    path = written(report_of({N: 20.0, 72: 12.0, mass(0.9): 13.0}), tmp_path)
    data = json.loads(path.read_text())
    for variant in data["variants"]:
        del variant["pruning"], variant["precision"]
    data["runtimes"] = [{"name": group["runtime"], "environment": {}} for group in data.pop("groups")]
    path.write_text(json.dumps(data | {"schema_version": 4}))

    with pytest.raises(InvalidArgument, match="does not say how its variants prune") as refused:
        read_bench_times(path, MODEL, None, None)
    assert refused.value.hint.endswith("sait-deploy bench")
