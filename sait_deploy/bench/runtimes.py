"""What is measured where: the runtimes, and of each what it can run and why it cannot run the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.bench.results import RuntimeInfo
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.engine.folder import builder_of, engine_folders
from sait_deploy.errors import InvalidArgument, SaitError
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.registry import ONNXRUNTIME, RUNTIMES


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure something cannot run: an error without the frames that it came through, which would hold on to memory."""

    reason: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, error: SaitError) -> Failure:
        """Takes what a user is to know of an error."""
        return cls(error.message, error.hint, error.exit_code)


@dataclass(slots=True)
class RuntimeSession:
    """What one runtime is to run, and what it loaded for that.

    Each is measured by itself: threads and caches of two would be in each other's way.

    Attributes:
        runtime: which.
        variants: what to measure, dense first; their ids name the runtime too.
        runners: artifact id to its runner, of those that could be loaded.
        refused: variant id to why it cannot run at all.
    """

    runtime: str
    variants: tuple[RunnableVariant, ...]
    runners: dict[str, Runner] = field(default_factory=dict)
    refused: dict[str, Failure] = field(default_factory=dict)

    @property
    def running(self) -> list[RunnableVariant]:
        """The variants that can run, as far as is known yet."""
        return [variant for variant in self.variants if variant.id not in self.refused]

    @property
    def dense(self) -> RunnableVariant:
        """The baseline, whether or not it can run."""
        return self.variants[0]

    def runner(self, variant: RunnableVariant) -> Runner:
        """Returns what runs a variant."""
        return self.runners[variant.artifact.manifest.id]

    def precision(self, variant: RunnableVariant) -> str | None:
        """Returns the precision that a variant runs in; None where it could not be loaded."""
        runner = self.runners.get(variant.artifact.manifest.id)
        return None if runner is None else runner.precision

    def info(self) -> RuntimeInfo:
        """Says what is behind the runners; where they differ, of which variants it is said."""
        found: dict[str, dict[str, list[str]]] = {}
        for variant in self.running:
            for name, value in self.runner(variant).environment.items():
                found.setdefault(name, {}).setdefault(value, []).append(variant.label)
        found.pop("runtime", None)
        return RuntimeInfo(self.runtime, {name: _joined(values) for name, values in found.items()})


def _joined(values: dict[str, list[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(labels)})" for value, labels in values.items())


def runtimes_for(artifacts: Sequence[Artifact], asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the runtimes asked for, or else ONNX Runtime and those that artifacts have engines of."""
    if asked:
        return tuple(dict.fromkeys(asked))
    folders = [folder for artifact in artifacts for folder in engine_folders(artifact)]
    built = {builder_of(folder) for folder in folders}
    return (ONNXRUNTIME, *(name for name, runtime in RUNTIMES.items() if runtime.builder in built))


def open_session(
    artifacts: Sequence[Artifact], variants: Sequence[RunnableVariant], runtime: str, options: RunOptions
) -> RuntimeSession:
    """Loads what of the artifacts a runtime can run.

    Args:
        artifacts: the dense baseline first.
        variants: of these artifacts, in the same order.
        runtime: which.
        options: threads.
    """
    session = RuntimeSession(runtime, tuple(dataclasses.replace(s, id=f"{s.id}@{runtime}") for s in variants))
    for artifact in artifacts:
        name = artifact.manifest.id
        try:
            runner = load(artifact, runtime, options)
            _check_kind(runner, session.runners.get(artifacts[0].manifest.id, runner))
            session.runners[name] = runner
        except SaitError as error:
            own = [variant.id for variant in session.variants if variant.artifact.manifest.id == name]
            session.refused |= dict.fromkeys(own, Failure.of(error))
    return session


def _check_kind(runner: Runner, dense: Runner) -> None:
    """Refuses an engine that has another precision, say, than its baseline: their times would not compare."""
    if runner.kind != dense.kind:
        raise InvalidArgument(
            f"it is {runner.kind}, and dense is {dense.kind}: no speed-up can be told from that",
            "build both with the same options: sait-deploy build-engine",
        )


def portions(images: int, wanted: int, batch_range: tuple[int, int]) -> list[NDArray[np.intp]]:
    """Splits images into batches that a runner takes.

    Args:
        images: how many.
        wanted: batch size, as far as the runner takes it.
        batch_range: the fewest and the most that it takes.

    Returns:
        The numbers of the images of each batch, from 0; where the last would be too small, it begins again at 0.
    """
    fewest, most = batch_range
    size = min(max(wanted, fewest), most)
    ends = [(start, max(min(start + size, images), start + fewest)) for start in range(0, images, size)]
    return [np.arange(start, end) % images for start, end in ends]
