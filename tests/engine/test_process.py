"""The building process: real builds, real signals, and nothing that it does takes this process with it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from sait_deploy.engine.process import run_builder
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.request import BuildRequest
from sait_deploy.errors import EngineError
from sait_deploy.system.progress import Progress, no_progress
from tests.cli.calls import child_environment
from tests.engine.cases import (
    FUSABLE,
    UNFUSABLE,
    attention_graph,
    attention_on_rows,
    bare_attention,
    builder_version,
    gone,
    marked,
    request_for,
    rows_profile,
    workers,
)

pytestmark = pytest.mark.usefixtures("installed")
BLOCKS, LONG = 3, 200
"""Builds of half a second and of ten."""


@pytest.fixture(scope="module")
def installed() -> str:
    return builder_version()


def plans(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.plan"))


def test_each_graph_becomes_a_file_and_an_answer(tmp_path: Path) -> None:
    answer = run_builder(request_for(tmp_path, attention_graph(), attention_graph(blocks=BLOCKS)), no_progress)
    assert [part.name for part in answer.parts] == [PartName.MODEL, PartName.STEM]
    assert plans(tmp_path) == ["model.plan", "stem.plan"]
    assert all((tmp_path / name).stat().st_size > 1000 for name in plans(tmp_path))
    assert [part.network.attention_fused for part in answer.parts] == [1, BLOCKS]
    assert all(part.product_types == ("float16",) for part in answer.parts)
    assert all(part.seconds > 0 for part in answer.parts)
    assert answer.gpu is None
    for part in answer.parts:
        assert sum(part.network.kinds.values()) == part.network.layers
        assert sum(part.network.precisions.values()) <= part.network.layers
        assert part.network.precisions["float16"] > 0
    assert not workers()


def test_progress_only_grows_and_reaches_the_end(tmp_path: Path) -> None:
    reported: dict[str, list[float]] = defaultdict(list)

    def progress(part: str, share: float | None = None, /) -> None:
        assert share is not None
        reported[part].append(share)

    run_builder(request_for(tmp_path, attention_graph(), attention_graph()), progress)
    assert set(reported) == {"model", "stem"}
    for shares in reported.values():
        assert shares == sorted(shares)
        assert len(set(shares)) > 5
        assert (shares[0], shares[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "what", "hint"),
    [
        ("workspace", "no kernel fits within the limits given", "--builder-workspace"),
        ("attention", "an attention has no fused kernel", "--allow-unfused"),
        ("rows", "this GPU has no kernel for attention on packed rows", "without --attention packed"),
    ],
)
def test_a_builder_that_returns_nothing_says_why(tmp_path: Path, kind: str, what: str, hint: str) -> None:
    if kind == "workspace":
        request = request_for(tmp_path, attention_graph(), workspace_bytes=1)
    elif kind == "rows":  # which the builder's parser does know
        request = request_for(tmp_path, attention_on_rows())
        part = dataclasses.replace(request.parts[0], profiles=(rows_profile(),))
        request = dataclasses.replace(request, parts=(part,))
    else:
        request = request_for(tmp_path, bare_attention(UNFUSABLE), head=UNFUSABLE)
    with pytest.raises(EngineError) as caught:
        run_builder(request, no_progress)
    assert caught.value.message.startswith("tensorrt-rtx built no engine: ")
    assert what in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 11
    assert caught.value.__cause__ is not None, "--debug shows all that was said"
    assert (plans(tmp_path), workers()) == ([], [])


def test_a_graph_that_the_parser_refuses(tmp_path: Path) -> None:
    request = request_for(tmp_path, attention_graph())
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="built no engine") as caught:
        run_builder(request, no_progress)
    assert len(caught.value.message.splitlines()) == 1
    assert plans(tmp_path) == []


def test_a_graph_and_a_profile_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="built no engine") as caught:
        run_builder(request_for(tmp_path, attention_graph(), head=UNFUSABLE), no_progress)
    assert len(caught.value.message) < 500
    assert plans(tmp_path) == []


def once(action: Callable[[int], object]) -> Progress:
    """Does something to the building process as soon as it builds."""
    done = threading.Event()

    def progress(_: str, __: float | None = None, /) -> None:
        if not done.is_set():
            done.set()
            (worker,) = workers()
            action(worker)

    return progress


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV], ids=lambda number: number.name)
def test_an_abort_takes_the_building_process_alone(tmp_path: Path, number: signal.Signals) -> None:
    request = request_for(tmp_path, attention_graph(blocks=LONG))
    with pytest.raises(EngineError) as caught:
        run_builder(request, once(lambda worker: os.kill(worker, number)))
    assert caught.value.message.startswith(f"tensorrt-rtx was ended by {number.name}")
    assert caught.value.hint
    assert (plans(tmp_path), workers()) == ([], [])


def test_a_builder_that_crashes_of_itself_takes_the_building_process_alone(tmp_path: Path) -> None:
    try:
        run_builder(request_for(tmp_path, bare_attention(FUSABLE, times=2), attention_graph()), no_progress)
    except EngineError as error:
        assert error.message.startswith("tensorrt-rtx was ended by SIG")
        assert not workers()
    else:
        pytest.skip("this TensorRT for RTX builds the graph at which 1.7.1 crashed")


def test_a_process_that_is_told_to_end_gives_no_engine(tmp_path: Path) -> None:
    request = request_for(tmp_path, attention_graph(blocks=LONG))
    with pytest.raises(EngineError, match="no engine"):
        run_builder(request, once(lambda worker: os.kill(worker, signal.SIGTERM)))
    assert not workers()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.83])
def test_an_interrupt_ends_the_building_process_in_time(
    tmp_path: Path, error: type[BaseException], share: float
) -> None:
    """Of a build that would go on for ten seconds; the last of these is when kernels are chosen."""
    raised: list[float] = []

    def progress(_: str, done: float | None = None, /) -> None:
        assert not raised, "told after it was stopped"
        if done is not None and done >= share:
            raised.append(time.monotonic())
            raise error

    with pytest.raises(error):
        run_builder(request_for(tmp_path, attention_graph(blocks=LONG)), progress)
    assert not workers()
    assert time.monotonic() - raised[0] < 5
    assert plans(tmp_path) == []


def test_a_builder_that_does_not_listen_is_killed_by_the_second_interrupt(tmp_path: Path) -> None:
    """A stopped process stands for native code that is deaf to signals."""

    def progress(_: str, __: float | None = None, /) -> None:
        (worker,) = workers()
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_builder(request_for(tmp_path, attention_graph(blocks=LONG)), progress)
    assert 0.4 < time.monotonic() - started < 8
    assert not workers()


NOISE = """
import os, sys
os.write(1, b'{"schema_version": 1, "error": "this is noise"}\\n' * 5000)
os.write(2, b"[W] noise on the error stream\\n")
print("more noise", flush=True)
"""
"""What Python runs before the building process's own code, of a file named ``sitecustomize``."""

ABORT = """
import os, sys
if "sait_deploy.engine.worker" in " ".join(sys.orig_argv):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n\\n")
    os.abort()
"""

EXIT = """
import os, sys
if "sait_deploy.engine.worker" in " ".join(sys.orig_argv):
    sys.stderr.write("Fatal: \\ud83d no way\\n".encode("utf-8", "replace").decode() * 3)
    sys.stderr.flush()
    os._exit(3)
"""


@pytest.fixture
def before_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts code into the processes that are started from now on."""

    def put(code: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", child_environment(PYTHONPATH=str(folder))["PYTHONPATH"])

    return put


def test_noise_neither_breaks_in_nor_gets_out(
    tmp_path: Path, before_the_worker: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """More of it than a pipe holds; standard output is the caller's."""
    before_the_worker(NOISE)
    answer = run_builder(request_for(tmp_path, attention_graph()), no_progress)
    assert [part.name for part in answer.parts] == [PartName.MODEL]
    assert answer.messages == ()
    assert tuple(capfd.readouterr()) == ("", "")


def test_last_words_of_an_abort_are_told(tmp_path: Path, before_the_worker: Callable[[str], None]) -> None:
    before_the_worker(ABORT)
    with pytest.raises(EngineError) as caught:
        run_builder(request_for(tmp_path, attention_graph()), no_progress)
    assert caught.value.message == (
        "tensorrt-rtx was ended by SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'"
    )


def test_a_process_that_ends_of_itself_is_told_with_its_status(
    tmp_path: Path, before_the_worker: Callable[[str], None]
) -> None:
    before_the_worker(EXIT)
    with pytest.raises(EngineError) as caught:
        run_builder(request_for(tmp_path, attention_graph()), no_progress)
    assert caught.value.message.startswith("tensorrt-rtx ended with status 3 and no engine: Fatal: ")


def test_a_package_that_is_not_there_is_no_crash(tmp_path: Path, before_the_worker: Callable[[str], None]) -> None:
    before_the_worker("import sys\nsys.modules['tensorrt_rtx'] = None\n")
    with pytest.raises(EngineError, match="tensorrt_rtx"):
        run_builder(request_for(tmp_path, attention_graph()), no_progress)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    request = request_for(tmp_path, attention_graph())
    (tmp_path / "model.plan").mkdir()
    with pytest.raises(EngineError, match=r"model\.plan"):
        run_builder(request, no_progress)


ORPHAN = """
import os, signal, sys
from pathlib import Path
from sait_deploy.engine.process import run_builder
from sait_deploy.engine.request import BuildRequest
run_builder(BuildRequest.from_json(Path(sys.argv[1]).read_text()), lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_build_does_not_outlive_what_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(request_for(tmp_path, attention_graph(blocks=LONG)).to_json())
    mark = tmp_path.as_posix()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ORPHAN), str(tmp_path / "request.json")],
        env=child_environment(SAIT_TEST=mark),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert gone("SAIT_TEST", mark), f"{marked('SAIT_TEST', mark)} still build"


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    request = request_for(tmp_path, attention_graph(), workspace_bytes=1 << 40, opt_level=3, timing_cache="/cache")
    text = request.to_json()
    assert len(text.splitlines()) == 1
    assert BuildRequest.from_json(text) == request
    assert json.loads(text)["parts"][0]["plan"] == str(tmp_path / "model.plan")
