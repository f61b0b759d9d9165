"""Writes composed images of a demonstration's task as a folder, one subfolder per class, to try all commands on.

    python samples/compose_digits.py build/digits/val --split held-out --per-class 50
    python samples/compose_digits.py build/many/val --task many --per-class 50

The images that ship in ``sait_deploy/demo/images`` are those of ``--per-class 4 --seed 5``, and those in
``sait_deploy/demo/goods_images`` of ``--task goods --fashion DIR --per-class 24 --seed 5 --ending jpg``, composed on
``--photograph`` camera.jpg, chelsea.jpg and coffee.jpg of ``sait_deploy/demo/photographs``.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from sait_deploy.demo.data import Split
from sait_deploy.demo.tasks import DIGITS, TASKS, composer_of
from sait_deploy.errors import SaitError

JPEG_QUALITY = 80


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--task", type=click.Choice(list(TASKS)), default=DIGITS.name, show_default=True)
@click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST, which goods are of.")
@click.option("--photograph", "photographs", type=click.Path(path_type=Path), multiple=True, metavar="FILE")
@click.option("--split", type=click.Choice([split.value for split in Split]), default=Split.HELD_OUT.value)
@click.option("--per-class", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--ending", type=click.Choice(["png", "jpg"]), default="png", show_default=True)
def main(
    output: Path,
    task: str,
    fashion: Path | None,
    photographs: tuple[Path, ...],
    split: str,
    per_class: int,
    seed: int,
    ending: str,
) -> None:
    """Compose images until each class has as many as asked for."""
    chosen, backgrounds = TASKS[task], [Image.open(path).convert("L") for path in photographs]
    try:
        compose = composer_of(chosen, Split(split), fashion, backgrounds)
    except SaitError as error:
        raise click.ClickException(f"{error.message}: {error.hint}") from None
    rng = np.random.default_rng(seed)
    written = [0] * len(chosen.labels)
    while min(written) < per_class:
        scene = compose(rng)
        number = written[scene.label]
        if number < per_class:
            folder = output / chosen.labels[scene.label]
            folder.mkdir(parents=True, exist_ok=True)
            options: dict[str, int] = {"quality": JPEG_QUALITY} if ending == "jpg" else {}
            Image.fromarray(scene.pixels).save(folder / f"{number}.{ending}", **options)
            written[scene.label] += 1
    click.echo(f"wrote {sum(written)} images to {output}")


if __name__ == "__main__":
    main()
