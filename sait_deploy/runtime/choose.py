"""Which artifact a runtime runs where a precision is asked for: the one given, its int8 one, or its float one."""

from __future__ import annotations

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.artifacts.precisions import float_of, int8_of
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.precision import QUANTISED, RunPrecision
from sait_deploy.runtime.registry import RUNTIMES, find_runtime


def artifact_for(artifact: Artifact, runtime: str, precision: RunPrecision | None) -> Artifact:
    """Returns the artifact to run for a precision.

    Args:
        artifact: what the user named.
        runtime: name of the runtime.
        precision: what to run in; None for what the artifact is made for.

    Returns:
        The artifact itself where the runtime runs it in that precision; else for int8 the one made from it, and for a
        float precision the one that it was made from.

    Raises:
        InvalidArgument: no such runtime, or it does not run such artifacts in that precision.
        ArtifactError: the other artifact is not there, or damaged.
    """
    possible = find_runtime(runtime).precisions
    if precision is None or precision in possible.get(artifact.manifest.dtype, ()):
        return artifact
    wants_int8 = precision in QUANTISED
    if wants_int8 and precision not in possible.get(Precision.INT8, ()):
        raise _cannot(runtime, Precision.INT8, precision)
    found = int8_of(artifact) if wants_int8 else float_of(artifact)
    if precision not in possible.get(found.manifest.dtype, ()):
        raise _cannot(runtime, found.manifest.dtype, precision)
    return found


def _cannot(runtime: str, held: Precision, precision: RunPrecision) -> InvalidArgument:
    able = ", ".join(name for name, one in RUNTIMES.items() if precision in one.precisions.get(held, ()))
    hint = f"use {able}" if able else f"no runtime runs {held} artifacts so"
    return InvalidArgument(f"{runtime} does not run {held} artifacts in {precision}", hint)
