"""How commands show what an artifact keeps."""

from __future__ import annotations

from typing import Any

from sait_deploy.artifacts.manifest import Manifest, PointInfo
from sait_deploy.cli._render import counted, table


def kept_text(manifest: Manifest) -> str:
    """Returns what the default point keeps: "87 of 144", or an average where images differ."""
    patches, info = manifest.model.geometry.patch_tokens, manifest.default_point
    if info is None:
        return f"{patches} of {patches}"
    if info.point.min_keep == info.point.max_keep:
        return f"{info.point.max_keep} of {patches}"
    return f"{info.kept.mean:.1f} of {patches} on average"


def points_table(manifest: Manifest) -> tuple[str, Any]:
    """Returns a heading, and a table of the named points: what each of them keeps and what that saves."""
    assert manifest.pruning is not None
    points = manifest.pruning.points
    seen = points[0].kept.images
    title = f"{manifest.name}: patch tokens kept on {counted(seen, 'image')} ({manifest.parity.image_source})"
    if any(info.kept.images != seen for info in points):
        title += ", tuned points on those they were chosen on"
    kept = ("images", "mean ± sd", "p5 – p95", "most", "share")
    headings = ("point", "mass", "limits", *kept, "GMACs/image", "MAC ratio ×")
    return title, table(None, headings, [_row(info, manifest) for info in points])


def _row(info: PointInfo, manifest: Manifest) -> tuple[str, ...]:
    kept, patches = info.kept, manifest.model.geometry.patch_tokens
    return (
        info.name,
        f"{info.point.mass:g}",
        f"{info.point.min_keep} – {info.point.max_keep}",
        str(kept.images),
        f"{kept.mean:.1f} ± {kept.sd:.1f}",
        f"{kept.p5:.0f} – {kept.p95:.0f}",
        str(kept.most),
        f"{kept.mean / patches:.0%}".replace("%", " %"),
        f"{info.macs.per_image / 1e9:.3f}",
        f"{info.macs.ratio:.2f}",
    )
