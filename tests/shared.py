"""What takes long to make is made once in a run of the tests, whichever worker process needs it first."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from filelock import FileLock

T = TypeVar("T")
P = ParamSpec("P")

FOLDER: Final = "SAIT_DEPLOY_TESTS_SHARED"
"""The environment variable that names the folder of the run; ``conftest.py`` sets it."""


def made_once(name: str, make: Callable[[Path], T]) -> T:
    """Returns what ``make`` returns of an empty folder, which lasts as long as the run; workers get it pickled.

    ``name`` stands for it in the whole suite. Files in the folder are to be read only.
    """
    place = Path(os.environ[FOLDER]) / hashlib.sha256(name.encode()).hexdigest()[:16]
    result = place.with_suffix(".pickle")
    with FileLock(place.with_suffix(".lock")):
        if not result.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            data = pickle.dumps(make(place))
            result.with_suffix(".part").write_bytes(data)
            result.with_suffix(".part").rename(result)
    made: T = pickle.loads(result.read_bytes())
    return made


def once_in_a_run(function: Callable[P, T]) -> Callable[P, T]:
    """``functools.cache`` over all workers, for arguments whose ``repr`` tells them apart.

    What such a function returns is to be read only.
    """

    @functools.cache
    def cached(*arguments: P.args, **named: P.kwargs) -> T:
        call = f"{function.__module__}.{function.__qualname__} {arguments!r} {sorted(named.items())!r}"
        return made_once(call, lambda _: function(*arguments, **named))

    return cached
