"""The stage: an artifact to folders of a Triton model repository, all of them whole or none."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.folder import PARTIAL, Workspace, open_artifact, storage_errors
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.errors import StorageError
from sait_deploy.system.interrupts import deferred
from sait_deploy.system.locks import held
from sait_deploy.triton_repository.artifact_forms import onnxruntime_form, python_form
from sait_deploy.triton_repository.engine_form import tensorrt_form
from sait_deploy.triton_repository.options import Backend, RepositoryOptions
from sait_deploy.triton_repository.parts import ModelFolder, Source, source_of
from sait_deploy.triton_repository.pbtxt import text_of

_FORMS: Final[Mapping[Backend, Callable[[Source, RepositoryOptions], dict[str, ModelFolder]]]] = {
    Backend.ONNXRUNTIME: onnxruntime_form,
    Backend.PYTHON: python_form,
    Backend.TENSORRT: tensorrt_form,
}


def write_repository(options: RepositoryOptions) -> tuple[Path, ...]:
    """Adds an artifact to a model repository, which is made where it is missing.

    Example::

        options = RepositoryOptions(Path("artifacts/sait_demo_digits-adaptive"), Path("repository"))
        sait_deploy.write_repository(options)

    Returns:
        The folders written, that of the model to ask last.

    Raises:
        ArtifactError: the artifact or its engine is missing or damaged.
        InvalidArgument: it has no such point, or Triton cannot load it.
        StorageError: a model of that name is there already, or nothing can be written.
    """
    check_place(options.output)
    artifact = open_artifact(options.artifact)
    refuse_tower(artifact.manifest, "triton-repository")
    source = source_of(artifact, options.name or artifact.path.resolve().name, options.point)
    models = _FORMS[options.backend](source, options)
    new = not options.output.exists()
    partial = options.output / f"{PARTIAL}{secrets.token_hex(8)}"
    placed: list[Path] = []
    try:
        with storage_errors(options.output):
            _check_free(options.output, models)
            Workspace(options.output).recover()
            partial.mkdir(parents=True)
            with held(partial):
                for name, model in models.items():
                    _write(partial / name, model)
                with deferred():
                    for name in models:
                        (partial / name).rename(options.output / name)
                        placed.append(options.output / name)
    except BaseException:
        if len(placed) < len(models):
            for folder in placed:
                shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            if new and not placed:
                options.output.rmdir()
    return tuple(placed)


def _check_free(repository: Path, models: Iterable[str]) -> None:
    for name in models:
        if (repository / name).exists():
            raise StorageError(f"{repository / name} is there already", "remove it, or name the model: --name")


def _write(folder: Path, model: ModelFolder) -> None:
    for name, content in {"config.pbtxt": text_of(model.config).encode(), **model.files}.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            place.write_bytes(content)
