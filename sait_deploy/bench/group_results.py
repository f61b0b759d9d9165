"""The groups of a benchmark: a runtime in a precision each, and those that do not exist here."""

from __future__ import annotations

from dataclasses import dataclass

from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, is_default_device


def group_name(runtime: str, asked: RunPrecision | None, device: str) -> str:
    """Returns a group's name: the runtime, and where they were asked for another device and the precision."""
    words = [runtime] + [device] * (not is_default_device(device)) + ([] if asked is None else [asked.value])
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Group:
    """What is measured together, against a dense baseline of its own: a runtime, in a precision if one was asked for.

    Attributes:
        runtime: name of the runtime.
        asked: the precision asked for; None where everything runs as its artifact or engine is made.
        environment: the versions and the device behind it, none where it ran nothing.
        device: where the runtime runs, as it was asked for.
    """

    runtime: str
    asked: RunPrecision | None
    environment: dict[str, str]
    device: str = DEFAULT_DEVICE

    @property
    def name(self) -> str:
        """The group's name in a report: "openvino bf16", "openvino GPU bf16"."""
        return group_name(self.runtime, self.asked, self.device)


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
        device: where the runtime was asked to run.
    """

    runtime: str
    asked: RunPrecision | None
    artifact: str | None
    reason: str
    hint: str
    exit_code: int
    device: str = DEFAULT_DEVICE

    @property
    def group(self) -> str:
        """The group's name."""
        return group_name(self.runtime, self.asked, self.device)
