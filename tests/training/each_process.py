"""Trainings of a small model in each of several processes, which leave the weights that each of them ends with.

Started by a launcher, as ``each_process FOLDER OUTPUT NAME...``: of squares, to a folder for each name of a variant;
each is started once more when it is finished. Last come those that are refused, which leave what they say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from safetensors.torch import save_file

from sait_deploy.errors import InvalidArgument
from sait_deploy.training.options import TrainOptions
from sait_deploy.training.train import train
from tests.training.small import TEACHER, VARIANTS, options, quiet, small_model, untimed

VALIDATION_IMAGES = 27
"""Which two processes cannot halve."""


def of_processes(folder: Path, output: Path, name: str) -> TrainOptions:
    chosen = options(folder, output, **VARIANTS[name])
    return dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, validation_images=VALIDATION_IMAGES))


def main(folder: Path, output: Path, names: list[str]) -> None:
    for name in names:
        model, lines, chosen = small_model(), list[str](), of_processes(folder, output / name, name)
        teacher = TEACHER if name == "teacher" else None
        result = train(model, teacher, chosen, lines.append)
        left = output / f"{name}.{os.environ['RANK']}"
        save_file(dict(model.vit.state_dict()), left.with_name(f"{left.name}.safetensors"))
        log, again = (
            [dataclasses.asdict(entry) for entry in untimed(each.log)]
            for each in (result, train(small_model(), teacher, chosen, quiet))
        )
        said = {"log": log, "again": again, "lines": lines, "is_main": result.is_main}
        left.with_name(f"{left.name}.json").write_text(json.dumps(said))
    refused = {"too few": {"recipe": {"batch": 25}}, "device": {"device": "cpu"}}
    for name, changes in refused.items():
        try:
            train(small_model(), None, options(folder, output / name, **changes), quiet)
        except InvalidArgument as error:
            (output / f"{name}.{os.environ['RANK']}").write_text(error.message)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
