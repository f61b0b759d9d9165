"""All cases, from the modules of each kind."""

from __future__ import annotations

import functools
from typing import Final

from tests.hostile import batches, documents, engines, files, graphs, manifests, names, nodes, sources, states
from tests.hostile.case import Case

CODE_RAN: Final = "SAIT_HOSTILE_RAN"
"""Environment variable that names the file which code in a hostile file makes, should it run."""


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Returns every case; names are unique."""
    made = tuple(
        case
        for module in (files, manifests, graphs, nodes, names, sources, engines, states, documents, batches)
        for case in module.cases()
    )
    assert len({case.name for case in made}) == len(made)
    return made
