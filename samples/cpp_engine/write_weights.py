"""Writes the weights of an engine that was built with --strip-weights, for run_engine to put into it.

    python samples/cpp_engine/write_weights.py ARTIFACT/engines/NAME FOLDER

One file for each part of the engine, model.npz, or stem.npz and trunk.npz: bytes by element type and name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.engine.folder import open_engine
from sait_deploy.engine.weights import write_weights
from sait_deploy.errors import SaitError


def main(engine: str, folder: str) -> None:
    """Writes the files of an engine into a folder, and prints their names."""
    place = Path(engine).absolute()
    for file in write_weights(open_engine(open_artifact(place.parents[1]), place), Path(folder)):
        print(file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: give an engine folder and a folder to write to: write_weights.py ARTIFACT/engines/NAME FOLDER")
    try:
        main(*sys.argv[1:])
    except SaitError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
