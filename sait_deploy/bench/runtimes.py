"""A group that is measured: what of it runs, on which runners, and why the rest cannot run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from sait_deploy.bench.group_results import Group
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.errors import InvalidArgument, RuntimeUnavailable, SaitError
from sait_deploy.runtime import Runner, load
from sait_deploy.runtime.precision import RunPrecision


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something cannot run: an error without the frames that it came through, which would hold on to memory."""

    reason: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, error: SaitError) -> Failure:
        """Takes what a user is to know of an error."""
        return cls(error.message, error.hint, error.exit_code)


@dataclass(slots=True)
class GroupSession:
    """What a group is to run, and what its runtime loaded for that.

    Each is measured by itself: threads and caches of two would be in each other's way.

    Attributes:
        plan: which group.
        variants: what to measure, dense first; their ids name the group too.
        runners: artifact id to its runner, of those that could be loaded.
        refused: variant id to why it cannot run at all.
    """

    plan: GroupPlan
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

    def info(self) -> Group:
        """Says what is behind the runners; where they differ, of which variants it is said."""
        found: dict[str, dict[str, list[str]]] = {}
        for variant in self.running:
            for name, value in self.runner(variant).environment.items():
                found.setdefault(name, {}).setdefault(value, []).append(variant.label)
        found.pop("runtime", None)
        said = {name: _joined(values) for name, values in found.items()}
        return Group(self.plan.runtime, self.plan.asked, said, self.plan.device)


def _joined(values: dict[str, list[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(labels)})" for value, labels in values.items())


def open_session(plan: GroupPlan, variants: Sequence[RunnableVariant], threads: int | None) -> GroupSession:
    """Loads what of a group its runtime can run.

    Args:
        plan: the group.
        variants: of its artifacts, in the same order.
        threads: threads within one operator; None for all processors.
    """
    suffix = plan.runtime if plan.asked is None else f"{plan.runtime}@{plan.asked}"
    session = GroupSession(plan, tuple(dataclasses.replace(s, id=f"{s.id}@{suffix}") for s in variants))
    options = plan.running(threads)
    for artifact in plan.artifacts:
        name = artifact.manifest.id
        try:
            runner = load(artifact, plan.runtime, options)
            _check_kind(runner, session.runners.get(plan.artifacts[0].manifest.id, runner))
            _check_precision(runner, plan.asked)
            session.runners[name] = runner
        except SaitError as error:
            own = [variant.id for variant in session.variants if variant.artifact.manifest.id == name]
            session.refused |= dict.fromkeys(own, Failure.of(error))
    return session


def _check_precision(runner: Runner, asked: RunPrecision | None) -> None:
    """Refuses a runner that runs in another precision than was asked for."""
    if asked is not None and runner.precision != asked:
        raise RuntimeUnavailable(
            f"{runner.runtime} runs {runner.artifact.path.name} in {runner.precision} where {asked} was asked for",
            "leave that precision out",
        )


def _check_kind(runner: Runner, dense: Runner) -> None:
    """Refuses an engine that has another precision, say, than its baseline: their times would not compare."""
    if runner.kind != dense.kind:
        raise InvalidArgument(
            f"it is {runner.kind}, and dense is {dense.kind}: no speed-up can be told from that",
            "build both with the same options: sait-deploy build-engine",
        )
