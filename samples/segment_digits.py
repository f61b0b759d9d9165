"""Segments composed digits with a linear head on the tokens of a pruned artifact, and draws what it finds.

    python samples/segment_digits.py --density 0.5 --density 0.2

The demonstration model is exported dense and at the densities with the tokens of blocks 1, 3 and 5 as outputs. A head
is trained on what each artifact returns for images of the training split, and judged on held-out ones. It takes one or
two minutes on one core. ``python -m benchmarks.segmentation`` does this over seeds, with random tokens beside it.
"""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import sait_deploy
from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource, block_features
from sait_deploy.demo.data import CLASSES, Split, compose_scenes, stacked, stacked_masks
from sait_deploy.errors import SaitError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime import RunOptions
from sait_deploy.training.linear_head import HeadOptions, feature_maps, mean_iou, train_head

BLOCKS = (1, 3, 5)
SHOWN = 6
SCALE = 2
COLORS = np.array(
    [
        *([0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48], [145, 30, 180]),
        *([70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 190]),
    ],
    dtype=np.uint8,
)
"""Of background and the digits 0 to 9."""


@click.command()
@click.option("--density", "densities", multiple=True, default=("0.5", "0.2"), show_default=True, metavar="D")
@click.option("--trained", type=click.IntRange(min=20), default=600, show_default=True, help="Images of a head.")
@click.option("--judged", type=click.IntRange(min=SHOWN), default=200, show_default=True, help="Held-out images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("segmentation.png"), show_default=True)
def main(densities: tuple[str, ...], trained: int, judged: int, seed: int, output: Path) -> None:
    """Train a head for each density, print its mean IoU, and draw some of the held-out images."""
    train, test = (compose_scenes(*each) for each in ((Split.TRAIN, trained, seed), (Split.HELD_OUT, judged, seed)))
    truth, found = stacked_masks(test), {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifacts = _exported(densities, Path(folder))
        except SaitError as error:
            raise click.ClickException(f"{error.message}: {error.hint}") from None
        for artifact in artifacts:
            runner = sait_deploy.load(artifact, options=RunOptions(threads=1))
            seen, held_out = (_maps(runner, stacked(scenes)[0]) for scenes in (train, test))
            size, options = artifact.manifest.model.image_size, HeadOptions(seed=seed)
            head = train_head(seen, stacked_masks(train), size, CLASSES + 1, options)
            name = artifact.path.name.removeprefix(f"{demo.NAME}-blocks_1_3_5-")
            found[name] = head.segment(held_out, size), held_out[..., -1]
            iou = 100 * mean_iou(found[name][0], truth, CLASSES + 1)
            click.echo(f"{name}: mean IoU {iou:.1f} %, {found[name][1].mean():.0%} of the patches kept")
    _draw(stacked(test)[0], truth, found).save(output)
    click.echo(f"wrote {output}: the image, its mask, and what is found; patches that were dropped are dark")


def _exported(densities: tuple[str, ...], folder: Path) -> list[Artifact]:
    """Exports the demonstration model, dense and at each density, with the tokens of the blocks as outputs."""
    options = ExportOptions(tuple(map(Decimal, densities)), feature_blocks=BLOCKS, output=folder)
    return sait_deploy.export(load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO)), options)


def _maps(runner: sait_deploy.Runner, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the tokens of the blocks and whether each was kept, float32 [n, rows, columns, 3·D + 1]."""
    parts = []
    for start in range(0, len(pixels), 25):
        outputs = runner.run(runner.preprocess(list(pixels[start : start + 25]))).further
        tokens = [outputs[block_features(block)] for block in BLOCKS]
        kept = outputs.get("keep", np.ones(tokens[0].shape[:2]))
        parts.append(feature_maps([*tokens, kept[..., None].astype(np.float32)], runner.description.model))
    return np.concatenate(parts)


def _draw(
    pixels: NDArray[np.uint8], truth: NDArray[np.uint8], found: dict[str, tuple[NDArray[np.uint8], NDArray[np.float32]]]
) -> Image.Image:
    """Draws a row for each image: itself, its mask, and what each artifact's head finds."""
    every = np.ones((len(pixels), 1, 1), np.float32)
    columns = {"image": (np.zeros_like(truth), every), "mask": (truth, every), **found}
    side, top = pixels.shape[1] * SCALE, 16
    sheet = Image.new("RGB", (len(columns) * (side + 4), top + SHOWN * (side + 4)), "white")
    write = ImageDraw.Draw(sheet)
    for column, (name, (classes, kept)) in enumerate(columns.items()):
        write.text((column * (side + 4) + 4, 2), name, fill="black")
        for row in range(SHOWN):
            shade = np.kron(np.where(kept[row] > 0, 1.0, 0.35), np.ones([96 // len(kept[row])] * 2))[..., None]
            picture = np.where(classes[row][..., None] > 0, COLORS[classes[row]], pixels[row] * shade)
            tile = Image.fromarray(picture.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (side + 4), top + row * (side + 4)))
    return sheet


if __name__ == "__main__":
    main()
