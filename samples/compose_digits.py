"""Writes composed digits as a folder of images, one subfolder per class, to try training, evaluating and tuning on.

    python samples/compose_digits.py build/digits/val --split held-out --per-class 50

The images that ship in ``sait_deploy/demo/images`` are those of ``--per-class 4 --seed 5``.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from sait_deploy.demo.data import CLASSES, Split, compose, load_sources


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice([split.value for split in Split]), default=Split.HELD_OUT.value)
@click.option("--per-class", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(output: Path, split: str, per_class: int, seed: int) -> None:
    """Compose images until each class has as many as asked for."""
    sources, rng = load_sources(Split(split)), np.random.default_rng(seed)
    written = [0] * CLASSES
    while min(written) < per_class:
        pixels, label = compose(sources, rng)
        if written[label] < per_class:
            folder = output / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{written[label]}.png")
            written[label] += 1
    click.echo(f"wrote {sum(written)} images to {output}")


if __name__ == "__main__":
    main()
