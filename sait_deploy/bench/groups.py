"""Which artifacts are measured in which group: a dense baseline and what is compared with it, at each precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sait_deploy.artifacts.folder import Artifact, ArtifactLike, Workspace, open_artifact, open_artifacts
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.artifacts.precisions import float_id
from sait_deploy.bench.group_results import Skip, group_name
from sait_deploy.engine.folder import builder_of, engine_folders
from sait_deploy.errors import ArtifactError, InvalidArgument, SaitError
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME, RUNTIMES, find_runtime


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A group before anything of it is loaded.

    Attributes:
        runtime: name of the runtime.
        asked: the precision asked for; None where everything runs as it is made.
        artifacts: what to run, the dense baseline first.
        device: where the runtime is to run.
    """

    runtime: str
    asked: RunPrecision | None
    artifacts: tuple[Artifact, ...]
    device: str = DEFAULT_DEVICE

    @property
    def name(self) -> str:
        """The group's name in a report."""
        return group_name(self.runtime, self.asked, self.device)

    def running(self, threads: int | None) -> RunOptions:
        """Returns how its artifacts run, on that many threads, None for all processors."""
        return RunOptions(threads, device=self.device, precision=self.asked)

    def skip(self, error: SaitError) -> Skip:
        """Returns the skip of the whole group for a reason."""
        return _skip(self, None, error)


def with_baseline(artifacts: ArtifactLike | Iterable[ArtifactLike]) -> list[Artifact]:
    """Opens artifacts of one model, their dense baseline first, which is looked for beside them.

    Float artifacts may stand beside the int8 ones made from them: both have a baseline then, the float one first.

    Raises:
        ArtifactError: an artifact cannot be opened, or its baseline is not there.
        InvalidArgument: they have different baselines.
    """
    opened = list({artifact.manifest.id: artifact for artifact in open_artifacts(artifacts)}.values())
    wanted = {artifact.manifest.baseline or artifact.manifest.id: artifact for artifact in reversed(opened)}
    given = {artifact.manifest.id: artifact for artifact in opened if artifact.manifest.baseline is None}
    baselines = [given.get(name) or _baseline(name, artifact) for name, artifact in wanted.items()]
    if len({float_id(artifact) for artifact in baselines}) != 1:
        raise InvalidArgument(
            f"{', '.join(a.path.name for a in opened)} do not share a dense baseline",
            "name artifacts of the same weights, image size and precision together",
        )
    baselines.sort(key=lambda artifact: artifact.manifest.dtype is Precision.INT8)
    return [*baselines, *(a for a in opened if a.manifest.baseline is not None)]


def _baseline(wanted: str, artifact: Artifact) -> Artifact:
    place = Workspace(artifact.path.parent).find(wanted)
    if place is None:
        raise ArtifactError(
            f"the dense baseline {wanted} of {artifact.path.name} is not beside it", "export it with --dense"
        )
    return open_artifact(place)


def runtimes_for(artifacts: Sequence[Artifact], asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the runtimes asked for, or else ONNX Runtime and those that artifacts have engines of."""
    if asked:
        return tuple(dict.fromkeys(asked))
    folders = [folder for artifact in artifacts for folder in engine_folders(artifact)]
    built = {builder_of(folder) for folder in folders}
    return (ONNXRUNTIME, *(name for name, runtime in RUNTIMES.items() if runtime.builder in built))


def plan_groups(
    artifacts: Sequence[Artifact],
    runtimes: Sequence[str],
    precisions: Sequence[RunPrecision],
    device: str = DEFAULT_DEVICE,
) -> tuple[list[GroupPlan], list[Skip]]:
    """Returns the groups to measure, and those that do not exist.

    Args:
        artifacts: as :func:`with_baseline` returns them.
        runtimes: as :func:`runtimes_for` returns them.
        precisions: those asked for; with none, artifacts run as they are made, float and int8 ones in groups apart.
        device: where each of the runtimes is to run.
    """
    if not precisions:
        return list(_as_made(artifacts, runtimes, device)), []
    plans: list[GroupPlan] = []
    skipped: list[Skip] = []
    for runtime in runtimes:
        for asked in dict.fromkeys(precisions):
            found: dict[str, Artifact] = {}
            group = GroupPlan(runtime, asked, (), device)
            for artifact in _one_of_each(artifacts):
                try:
                    chosen = artifact_for(artifact, runtime, asked)
                    found[chosen.manifest.id] = chosen
                except SaitError as error:
                    if artifact.manifest.baseline is None:
                        skipped.append(group.skip(error))
                        found = {}
                        break
                    skipped.append(_skip(group, artifact.path.name, error))
            if found:
                plans.append(replace(group, artifacts=tuple(found.values())))
    return plans, skipped


def _as_made(artifacts: Sequence[Artifact], runtimes: Sequence[str], device: str) -> Iterator[GroupPlan]:
    """Yields a group for each runtime; of artifacts of two precisions, one for each of them, named by it."""
    held = list(dict.fromkeys(artifact.manifest.dtype for artifact in artifacts))
    for runtime in runtimes:
        for precision in held:
            possible = find_runtime(runtime).precisions.get(precision, ())
            named = possible[0] if possible else RunPrecision(precision)
            own = tuple(artifact for artifact in artifacts if artifact.manifest.dtype is precision)
            yield GroupPlan(runtime, named if len(held) > 1 else None, own, device)


def _one_of_each(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Returns one of a float artifact and its int8 one where both were given, the baseline first."""
    found: dict[str, Artifact] = {}
    for artifact in artifacts:
        found.setdefault(float_id(artifact), artifact)
    return list(found.values())


def _skip(group: GroupPlan, artifact: str | None, error: SaitError) -> Skip:
    return Skip(group.runtime, group.asked, artifact, error.message, error.hint, error.exit_code, group.device)
