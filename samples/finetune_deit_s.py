"""Fine-tunes DeiT-S on a folder of your images into one model for every density, and exports it.

    python samples/finetune_deit_s.py PHOTOS --weights deit_small_patch16_224.pth --output finetuned

PHOTOS holds ``train`` and ``val`` folders, each with one subfolder of images per class. Without ``--weights`` timm's
are downloaded. A dense model with a head for your classes is trained first: it is the teacher. For the patent notice on
distillation from a teacher's class token see the README.
"""

from __future__ import annotations

from pathlib import Path

import click

from sait_deploy import ExportOptions, mass_point
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli._render import progress
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.training.options import (
    Alternation,
    Augmentation,
    DataOptions,
    DensityRange,
    Head,
    MassRange,
    Recipe,
    TrainOptions,
)
from sait_deploy.training.train import train


def load(name: str, weights: Path | None) -> LoadedModel:
    """Makes the model with weights of a file, or with timm's own."""
    source = WeightsSource.PRETRAINED if weights is None else WeightsSource.FILE
    return load_model(name, WeightsRequest(source, weights))


@click.command()
@click.argument("photos", type=click.Path(path_type=Path))
@click.option("--model", "name", default="deit_small_patch16_224", show_default=True, help="A timm name.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to begin at.  [default: timm's, downloaded]")
@click.option("--output", type=click.Path(path_type=Path), default=Path("finetuned"), show_default=True)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Of each of the two trainings."
)
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
def main(photos: Path, name: str, weights: Path | None, output: Path, epochs: int, batch: int) -> None:
    """Train a teacher, then the student, and export the student."""
    data = DataOptions(str(photos), augmentation=Augmentation.LIGHT)
    recipe = Recipe(epochs=epochs, batch=batch, learning_rate=5e-5, layer_decay=0.75, warmup_epochs=min(1, epochs))
    dense = TrainOptions(output / "teacher", data, recipe, head=Head.NEW, alternation=Alternation.NEVER)
    teacher = train(load(name, weights), None, dense, progress).weights

    # Half of the sparse steps by mass, as it is masses that are exported.
    densities, masses = DensityRange(0.3, 0.9), MassRange(0.6, 0.97)
    sparse = TrainOptions(output / "student", data, recipe, densities=densities, masses=masses)
    student = train(load(name, teacher), load(name, teacher), sparse, progress).weights

    # The table that export prints by itself shows what each mass keeps; tune finds the one that loses little enough.
    options = ExportOptions(points=(mass_point(0.9), mass_point(0.8)), output=output / "artifacts", overwrite=True)
    for artifact in export_model(load(name, student), options, progress):
        click.echo(f"{artifact.path}: {artifact.manifest.macs.ratio:.2f} × fewer multiply-accumulates than dense")
    click.echo(f"next: sait-deploy tune --max-drop 0.5 --images {photos / 'val'} --workspace {output / 'artifacts'}")


if __name__ == "__main__":
    main()
