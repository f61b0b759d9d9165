"""What manifests may say: whatever export writes, and nothing that contradicts itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sait_deploy.artifacts.manifest_document import as_dict, from_json
from sait_deploy.errors import ArtifactError
from tests.exported import draft, draft_adaptive
from tests.hostile.manifests import VALUES


@pytest.mark.parametrize("make", [draft, draft_adaptive])
def test_what_export_writes_can_be(make: Any) -> None:
    manifest = make()
    assert from_json(json.dumps(as_dict(manifest))) == manifest


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in VALUES.items() for v in values[:2]])
def test_a_field_that_cannot_be_is_refused(field: str, value: Any) -> None:
    """The same values in another manifest: its classes, sizes and tensors are others."""
    if field in ("pruning.importance", "pruning.keep", "inputs", "files", "files.golden.npz", "pruning.points.0.name"):
        pytest.skip("means nonsense beside the graph or the files alone")
    data = as_dict(draft_adaptive())
    inner: Any = data
    *above, last = field.split(".")
    for key in above:
        inner = inner[int(key) if isinstance(inner, (list, tuple)) else key]
    inner[last] = value
    with pytest.raises(ArtifactError):
        from_json(json.dumps(data))
