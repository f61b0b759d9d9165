"""Whose engines are deserialised: a plan is executable code, and its manifest is written by whoever made the plan.

What this user built, plans and manifest, is known by SHA-256 in a folder of the user's, outside of any artifact.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.errors import ArtifactError
from sait_deploy.system.option_values import check_options
from sait_deploy.system.scratch import temporary_place

DOWNLOAD_FLAG: Final = "--download"
TRUST_FLAG: Final = "--trust-engine"
HOST_CODE_FLAG: Final = "--allow-host-code"
_FOLDER: Final = Path("sait-deploy") / "built"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class EngineTrust(StrEnum):
    """Which engines are loaded."""

    BUILT_HERE = "built-here"
    """Those that this user built on this machine."""

    ANY = "any"
    """Whatever lies in an artifact: as much as running a program from there."""


class HostCode(StrEnum):
    """Whether engines may bring code for the processor, which those for other versions of TensorRT do."""

    REFUSED = "refused"
    ALLOWED = "allowed"


class Downloads(StrEnum):
    """Whether the weights that an artifact names may be fetched from a hub, where they are not on this machine."""

    REFUSED = "refused"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user allows artifacts, on a command line or in a call: no file and no environment variable says it.

    Attributes:
        engines: which are loaded.
        host_code: whether they may bring code for the processor.
        downloads: whether an artifact's model may be downloaded.

    Raises:
        InvalidArgument: a value that is none of its choices.
    """

    engines: EngineTrust = EngineTrust.BUILT_HERE
    host_code: HostCode = HostCode.REFUSED
    downloads: Downloads = Downloads.REFUSED

    def __post_init__(self) -> None:
        check_options(self)


_granted = Consent()


def grant(consent: Consent) -> None:
    """Sets what the command line of this process said."""
    global _granted  # noqa: PLW0603 - a process has one command line
    _granted = consent


def granted() -> Consent:
    """Returns what the command line of this process said; nothing where it said nothing."""
    return _granted


def record_built(digests: Iterable[str]) -> bool:
    """Notes files as built by this user, by SHA-256, and returns whether there was a place to note them."""
    wanted = list(digests)
    for folder in _folders():
        try:
            # Each by itself: of parents that are made on the way, the umask alone says who may write to them.
            for place in (folder.parent, folder):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(folder):
                continue
            for digest in wanted:
                flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
                os.close(os.open(folder / digest, flags, 0o600))
        except OSError:
            continue
        return True
    return False


def check_built(name: str, digests: Iterable[str], consent: Consent) -> None:
    """Checks that plans may be deserialised.

    Args:
        name: of the engine.
        digests: SHA-256 of its plans and its manifest, which are what lies there.
        consent: what the user said.

    Raises:
        ArtifactError: this user did not build one of them here, and does not trust whatever there is.
    """
    if consent.engines is EngineTrust.ANY or all(map(built_here, digests)):
        return
    raise ArtifactError(
        f"engine {name} was not built here by this user, and loading it runs its code, which takes {TRUST_FLAG}",
        f"build it here: sait-deploy build-engine; give {TRUST_FLAG} if you trust whoever built it",
    )


def built_here(digest: str) -> bool:
    """Returns whether this user's folders note a file of that SHA-256 as built here."""
    if not _SHA256.fullmatch(digest):
        return False
    return any(_is_ours(folder) and (folder / digest).is_file() for folder in _folders())


def _folders() -> Iterator[Path]:
    """Yields where plans are noted: in the user's folder for state, else, where that cannot be, in a temporary one.

    None of them is in the working folder, which may have come from others as a whole.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        yield state / _FOLDER
    with contextlib.suppress(RuntimeError):  # of a user without a home
        home = Path.home()
        if home.is_absolute():
            yield home / ".local" / "state" / _FOLDER
    with contextlib.suppress(OSError):  # of a machine without a folder for temporary files
        temporary = temporary_place()
        # Python takes the working folder where it can write to no other.
        if temporary.resolve() != Path.cwd():
            user = os.getuid() if hasattr(os, "getuid") else 0
            yield temporary / f"sait-deploy-{user}" / "built"


def _is_ours(folder: Path) -> bool:
    """Returns whether a folder, and the one that it is in, are this user's alone to write to."""
    try:
        for place in (folder, folder.parent):
            status = place.lstat()
            if not stat.S_ISDIR(status.st_mode):
                return False
            # Windows has neither users by number nor these bits.
            if hasattr(os, "getuid") and (
                status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            ):
                return False
    except OSError:
        return False
    return True
