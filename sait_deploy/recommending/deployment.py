"""The command lines that use what was chosen."""

from __future__ import annotations

import shlex
from pathlib import Path

from sait_deploy.artifacts.folder import MODEL_FILE, Workspace
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.bench.results import Variant
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime, is_default_device

IMAGES = "IMAGES"
"""Stands in commands for the user's images."""


def deploying_commands(variant: Variant, workspace: Path) -> tuple[str, ...]:
    """Returns command lines that run a variant; none where its artifact is not in the workspace.

    The first answers images, or where numbers of kept tokens were forced, which no request can ask for, measures again.
    """
    found = Workspace(workspace).manifests()
    place, manifest = next((one for one in found if one[1].files[MODEL_FILE] == variant.model_sha256), (None, None))
    if place is None or manifest is None:
        return ()
    asked = ["--runtime", variant.runtime] if variant.runtime != ONNXRUNTIME else []
    if not is_default_device(variant.device):
        asked += ["--device", variant.device]
    if variant.precision is not None and not _is_default(variant, manifest):
        asked += ["--precision", variant.precision]
    if variant.pruning is not None and variant.pruning.forced is not None:
        kept = variant.pruning.forced
        return (_joined("bench", place, *asked, "--kept", f"{kept.mean:g}:{kept.sd:g}"),)
    return (_joined("predict", IMAGES, "--artifact", place, *asked, *_point(variant, manifest)),)


def _joined(*words: object) -> str:
    return shlex.join(["sait-deploy", *map(str, words)])


def _is_default(variant: Variant, manifest: Manifest) -> bool:
    """Returns whether the runtime runs the artifact in this precision where none is asked for."""
    possible = find_runtime(variant.runtime).precisions.get(manifest.dtype, ())
    return bool(possible) and variant.precision == possible[0]


def _point(variant: Variant, manifest: Manifest) -> list[str]:
    """Returns the options that ask an adaptive artifact for the variant's point: by name where it has one."""
    pruning = variant.pruning
    if manifest.form is not Form.ADAPTIVE or pruning is None or pruning.point is None:
        return []
    point = pruning.point
    for name, known in manifest.operating_points.items():
        if known == point:
            return ["--point", name]
    limits = {"--mass": f"{point.mass:.12g}", "--min-keep": point.min_keep, "--max-keep": point.max_keep}
    return [str(word) for pair in limits.items() for word in pair]
