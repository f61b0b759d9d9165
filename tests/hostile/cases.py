"""All cases, from the modules of each kind."""

from __future__ import annotations

import functools
from typing import Final

from tests.hostile import (
    batches,
    documents,
    engines,
    files,
    graphs,
    headers,
    manifests,
    names,
    nodes,
    options,
    points,
    sources,
    states,
)
from tests.hostile.case import Case

_MODULES: Final = (
    *(files, manifests, graphs, nodes, names, sources, engines, states, documents, batches),
    *(headers, options, points),
)
CODE_RAN: Final = "SAIT_HOSTILE_RAN"
"""Environment variable that names the file which code in a hostile file makes, should it run."""


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Returns every case; names are unique."""
    made = tuple(case for module in _MODULES for case in module.cases())
    assert len({case.name for case in made}) == len(made)
    return made
