"""The groups of a benchmark: a runtime in a precision each, and those that do not exist here."""

from __future__ import annotations

from dataclasses import dataclass

from sait_deploy.runtime.precision import RunPrecision


def group_name(runtime: str, asked: RunPrecision | None) -> str:
    """Returns a group's name: the runtime, and the precision where one was asked for."""
    return runtime if asked is None else f"{runtime} {asked}"


@dataclass(frozen=True, slots=True)
class Group:
    """What is measured together, against a dense baseline of its own: a runtime, in a precision if one was asked for.

    Attributes:
        runtime: name of the runtime.
        asked: the precision asked for; None where everything runs as its artifact or engine is made.
        environment: the versions and the device behind it, none where it ran nothing.
    """

    runtime: str
    asked: RunPrecision | None
    environment: dict[str, str]

    @property
    def name(self) -> str:
        """The group's name in a report: "openvino bf16"."""
        return group_name(self.runtime, self.asked)


@dataclass(frozen=True, slots=True)
class Skip:
    """A group, or an artifact of one, that was asked for and does not exist here.

    Attributes:
        runtime: name of the runtime.
        asked: the precision asked for.
        artifact: name of the artifact that the group lacks; None where the whole group was skipped.
        reason: why, in one line.
        hint: what to do about it; may be empty.
        exit_code: of the kind of error that it is, see ``sait_deploy.errors``.
    """

    runtime: str
    asked: RunPrecision | None
    artifact: str | None
    reason: str
    hint: str
    exit_code: int

    @property
    def group(self) -> str:
        """The group's name."""
        return group_name(self.runtime, self.asked)
