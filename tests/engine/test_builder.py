"""What TensorRT is asked to build, by a stand-in that writes it down: its library builds only beside a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.engine import builder as native
from sait_deploy.engine import cuda
from sait_deploy.engine.builder import BuildFailed, Cancelled, build
from sait_deploy.engine.messages import explain_error
from sait_deploy.engine.options import Portability
from sait_deploy.engine.profiles import PartName, Profile, Range
from sait_deploy.errors import RuntimeUnavailable
from tests.engine import recording
from tests.engine.cases import RTX
from tests.engine.native_cases import Heard, asked, built
from tests.engine.recording import (
    CACHE_HEADER,
    NO_CACHE,
    BuilderFlag,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    Recording,
)

STRONGLY_TYPED, AHEAD_OF_TIME_PLUGINS = 1 << 0, 1 << 2


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """The stand-in in TensorRT's place, beside a GPU of the newest kind."""
    package = Recording()
    monkeypatch.setattr(native, "import_builder", lambda _: package)
    beside(monkeypatch, "sm120")
    return package


def beside(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(cuda, "device", lambda: cuda.Device("NVIDIA Stand-in", target))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The plugins defined from now on, each with the architecture it is compiled for."""
    found: list[tuple[str, int]] = []

    def recorder(name: str) -> Callable[[int], None]:
        return lambda architecture: found.append((name, architecture))

    for name in ("mass_token_select", "pack_rows"):
        monkeypatch.setattr(f"sait_deploy.plugins.{name}.tensorrt_plugin.register", recorder(name))
    return found


def test_each_part_is_built_written_and_told(trt: Recording, tmp_path: Path) -> None:
    heard = built(asked(tmp_path))
    assert [(path.stem, path.read_bytes()) for path in sorted(tmp_path.glob("*.plan"))] == [
        ("model", b"plan of model"),
        ("stem", b"plan of stem"),
    ]
    assert [answer.name for answer in heard.answers] == [PartName.MODEL, PartName.STEM]
    for answer in heard.answers:
        assert answer.product_types == ("float16",)
        assert (answer.network.layers, answer.network.attention_fused) == (3, 1)
        assert answer.network.kinds == {"matrix_multiply": 1, "attention_input": 1, "constant": 1}
        assert answer.network.precisions == {"float16": 2, "float32": 1}
    assert heard.context.errors == heard.warnings == []


def test_the_gpu_is_told_first_and_by_name(trt: Recording, tmp_path: Path) -> None:
    events = built(asked(tmp_path)).events
    assert [event.gpu for event in events if event.gpu is not None] == ["NVIDIA Stand-in"]
    assert events[0].gpu is not None


def test_without_a_gpu_nothing_is_built(trt: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise RuntimeUnavailable("no GPU can be used", "look for one")

    monkeypatch.setattr(cuda, "device", none)
    with pytest.raises(RuntimeUnavailable):
        built(asked(tmp_path))
    assert trt.asked == []


def test_parts_are_built_one_after_another_as_kernels_are_timed(trt: Recording, tmp_path: Path) -> None:
    built(asked(tmp_path))
    assert [one.part for one in trt.asked] == ["model", "stem"]
    assert trt.most_running == 1


def test_tensorrt_for_rtx_looks_for_no_gpu(
    trt: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(cuda, "device", lambda: pytest.fail("a GPU was looked for"))
    heard = built(asked(tmp_path, builder=RTX))
    assert [answer.name for answer in heard.answers] == [PartName.MODEL, PartName.STEM]
    assert registered == []
    assert all(event.gpu is None for event in heard.events)


def test_networks_are_strongly_typed_and_only_those_with_plugins_prefer_them(
    trt: Recording, tmp_path: Path, registered: list[tuple[str, int]]
) -> None:
    built(asked(tmp_path))
    assert registered == []
    built(asked(tmp_path, plugins=True))
    flags = [one.network_flags for one in trt.asked]
    assert flags == [STRONGLY_TYPED] * 2 + [STRONGLY_TYPED | AHEAD_OF_TIME_PLUGINS] * 2


@pytest.mark.parametrize(
    ("target", "portability", "architecture"),
    [
        ("sm75", (), 75),
        ("sm89", (Portability.VERSIONS,), 89),
        ("sm120", (), 120),
        ("sm80", (Portability.HARDWARE,), 80),
        ("sm120", (Portability.HARDWARE, Portability.VERSIONS), 80),
    ],
)
def test_plugins_are_compiled_for_this_gpu_or_for_the_first_that_the_engine_is_to_run_on(
    trt: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[tuple[str, int]],
    target: str, portability: tuple[Portability, ...], architecture: int,
) -> None:  # fmt: skip
    beside(monkeypatch, target)
    built(asked(tmp_path, plugins=True, portability=portability))
    assert registered == [("mass_token_select", architecture), ("pack_rows", architecture)]


@pytest.mark.parametrize("plugins", [True, False])
def test_hardware_compatible_engines_are_refused_beside_an_older_gpu(
    trt: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[tuple[str, int]], plugins: bool
) -> None:
    beside(monkeypatch, "sm75")
    with pytest.raises(BuildFailed, match=r"begin with sm80, and this GPU is sm75"):
        built(asked(tmp_path, plugins=plugins, portability=(Portability.HARDWARE,)))
    assert (trt.asked, registered) == ([], [])


def test_what_is_not_asked_for_is_left_to_the_builder(trt: Recording, tmp_path: Path) -> None:
    built(asked(tmp_path))
    fresh = recording.IBuilderConfig(lambda _: None, True)
    for one in trt.asked:
        assert one.flags == {BuilderFlag.STRICT_NANS}, "TF32 is cleared, NaN stays NaN"
        assert one.config.profiling_verbosity is recording.ProfilingVerbosity.DETAILED
        assert one.config.builder_optimization_level == fresh.builder_optimization_level
        assert one.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE) is None
        assert one.config.hardware_compatibility_level is HardwareCompatibilityLevel.NONE
        assert one.timing_cache is None


@pytest.mark.parametrize(
    ("changes", "flags", "level"),
    [
        (
            {"strip_weights": True},
            {BuilderFlag.STRIP_PLAN, BuilderFlag.REFIT_IDENTICAL},
            HardwareCompatibilityLevel.NONE,
        ),
        ({"portability": (Portability.VERSIONS,)}, {BuilderFlag.VERSION_COMPATIBLE}, HardwareCompatibilityLevel.NONE),
        ({"portability": (Portability.HARDWARE,)}, set(), HardwareCompatibilityLevel.AMPERE_PLUS),
    ],
)
def test_portability_and_stripping_reach_every_part(
    trt: Recording, tmp_path: Path, changes: dict[str, Any], flags: set[BuilderFlag], level: HardwareCompatibilityLevel
) -> None:
    built(asked(tmp_path, **changes))
    assert [one.flags - {BuilderFlag.STRICT_NANS} for one in trt.asked] == [flags, flags]
    assert {one.config.hardware_compatibility_level for one in trt.asked} == {level}


@pytest.mark.parametrize("level", [0, 5])
def test_workspace_and_level_reach_every_part(trt: Recording, tmp_path: Path, level: int) -> None:
    built(asked(tmp_path, workspace_bytes=1 << 40, opt_level=level))
    for one in trt.asked:
        assert one.config.get_memory_pool_limit(MemoryPoolType.WORKSPACE) == 1 << 40
        assert one.config.builder_optimization_level == level


def test_profiles_are_added_in_order_for_the_inputs_that_the_network_has(trt: Recording, tmp_path: Path) -> None:
    spans = [Range((1, size), (2, size + 1), (3, size + 2)) for size in (9, 3, 6)]
    profiles = tuple(Profile({"unknown": Range((1,), (1,), (1,)), "x0": span}) for span in spans)
    request = asked(tmp_path)
    parts = tuple(dataclasses.replace(part, profiles=profiles) for part in request.parts)
    built(dataclasses.replace(request, parts=parts))
    for one in trt.asked:
        assert one.profiles == [{"x0": (span.smallest, span.optimum, span.largest)} for span in spans]


def test_a_timing_cache_is_read_and_what_each_part_learned_is_written_back(trt: Recording, tmp_path: Path) -> None:
    place = tmp_path / "kernels" / "cache"
    for _ in range(2):
        built(asked(tmp_path, timing_cache=str(place)))
    learned = b"model;stem;model;stem;"
    assert place.read_bytes() == CACHE_HEADER + learned
    found = [one.timing_cache for one in trt.asked]
    assert found == [CACHE_HEADER + learned[:end] for end in (0, 6, 11, 17)]
    assert [path.name for path in place.parent.iterdir()] == ["cache"]


@pytest.mark.parametrize("stored", [CACHE_HEADER + b"of another GPU;", b"the weights of somebody's model", b"\0"])
def test_a_timing_cache_that_is_refused_is_not_overwritten(trt: Recording, tmp_path: Path, stored: bytes) -> None:
    trt.accepts_cache = not stored.startswith(CACHE_HEADER)
    place, heard = tmp_path / "cache", Heard()
    place.write_bytes(stored)
    with pytest.raises(BuildFailed, match=r"timing cache .*cache is none, or is of another GPU or TensorRT"):
        build(asked(tmp_path, timing_cache=str(place)), heard.context)
    assert place.read_bytes() == stored
    assert trt.asked == []
    assert heard.warnings == ([] if stored.startswith(CACHE_HEADER) else [NO_CACHE])
    what, hint = explain_error(heard.context.errors)
    assert what == "the timing cache cannot be used"
    assert "--timing-cache" in hint


@pytest.mark.parametrize("stored", [b"", CACHE_HEADER])
def test_an_empty_timing_cache_is_one(trt: Recording, tmp_path: Path, stored: bytes) -> None:
    place = tmp_path / "cache"
    place.write_bytes(stored)
    built(asked(tmp_path, timing_cache=str(place)))
    assert place.read_bytes() == CACHE_HEADER + b"model;stem;"


def test_a_failed_build_teaches_a_timing_cache_nothing(trt: Recording, tmp_path: Path) -> None:
    trt.fails = ("model",)
    place = tmp_path / "cache"
    place.write_bytes(CACHE_HEADER)
    with pytest.raises(BuildFailed):
        built(asked(tmp_path, timing_cache=str(place)))
    assert place.read_bytes() == CACHE_HEADER


def test_progress_is_of_each_part_and_reaches_its_end(trt: Recording, tmp_path: Path) -> None:
    told = built(asked(tmp_path)).progress
    assert [part for part, _ in told] == sorted(part for part, _ in told)
    for name in ("model", "stem"):
        shares = [share for part, share in told if part == name]
        assert shares == sorted(shares)
        assert {0.25, 0.5, 0.75, 1.0} <= set(shares)
        assert shares[-1] == 1.0


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_build_that_is_told_to_stop_stops_at_the_next_step(trt: Recording, tmp_path: Path, share: float) -> None:
    heard, place = Heard(stop_at=share), tmp_path / "cache"
    with pytest.raises(Cancelled):
        build(asked(tmp_path, timing_cache=str(place)), heard.context)
    assert [goes_on for _, goes_on in trt.steps] == [True] * (len(trt.steps) - 1) + [False]
    assert len(trt.steps) == max(1, int(share * recording.STEPS))
    assert [one.part for one in trt.asked] == ["model"], "no other part was begun"
    assert not list(tmp_path.glob("*.plan"))
    assert not place.exists()


def test_a_part_that_comes_to_nothing_ends_the_build_with_its_reason(trt: Recording, tmp_path: Path) -> None:
    trt.fails, trt.warns = ("model",), "kernels are few"
    heard = Heard()
    with pytest.raises(BuildFailed, match="no engine for the model"):
        build(asked(tmp_path), heard.context)
    assert heard.context.errors == ["no engine for model"]
    assert heard.warnings == ["kernels are few"]
    assert [one.part for one in trt.asked] == ["model"], "no other part was begun"
    assert (heard.answers, list(tmp_path.glob("*.plan"))) == ([], [])


def test_all_that_the_parser_complains_of_is_told(trt: Recording, tmp_path: Path) -> None:
    trt.refuses = ("node 3: no such operator", "node 7: no such type")
    heard = Heard()
    with pytest.raises(BuildFailed, match="the parser refused the model"):
        build(asked(tmp_path), heard.context)
    assert heard.context.errors == list(trt.refuses)
    assert trt.asked == []
