"""Trainings of a small model in each of several processes, which leave the weights that each of them ends with.

Started by a launcher, as ``each_process FOLDER OUTPUT NAME...``: of squares, to a folder for each name of a variant.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from safetensors.torch import save_file

from sait_deploy.training.train import train
from tests.training.small import TEACHER, VARIANTS, options, small_model, untimed

VALIDATION_IMAGES = 27
"""Which two processes cannot halve."""


def main(folder: Path, output: Path, names: list[str]) -> None:
    for name in names:
        model, lines = small_model(), list[str]()
        chosen = options(folder, output / name, **VARIANTS[name])
        data = dataclasses.replace(chosen.data, validation_images=VALIDATION_IMAGES)
        chosen = dataclasses.replace(chosen, data=data)
        result = train(model, TEACHER if name == "teacher" else None, chosen, lines.append)
        left = output / f"{name}.{os.environ['RANK']}"
        save_file(dict(model.vit.state_dict()), left.with_name(f"{left.name}.safetensors"))
        log = [dataclasses.asdict(entry) for entry in untimed(result.log)]
        said = {"log": log, "lines": lines, "is_main": result.is_main}
        left.with_name(f"{left.name}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
