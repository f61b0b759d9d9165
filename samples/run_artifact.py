"""Runs an exported artifact from Python, with neither torch nor timm.

    python samples/run_artifact.py artifacts/sait_demo_digits-density0.6 IMAGE...

The golden file comes first: an artifact that does not reproduce its own answer is not worth asking.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import sait_deploy


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
def main(artifact: Path, images: tuple[Path, ...]) -> None:
    """Check an artifact against its golden file, then classify images with it."""
    runner = sait_deploy.load(artifact)
    golden = runner.artifact.golden()
    output = runner.run(golden.images)
    difference = float(np.abs(output.logits - golden.logits).max())
    click.echo(f"golden image: {int(output.kept[0])} tokens kept, logits differ by at most {difference:.1e}")
    if not images:
        return
    for path, prediction in zip(images, runner.predict(list(images), top=1), strict=True):
        click.echo(f"{path}: {prediction.labels[0]} ({prediction.probabilities[0]:.1%}), {prediction.kept} tokens kept")


if __name__ == "__main__":
    main()
