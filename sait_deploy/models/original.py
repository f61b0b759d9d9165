"""The model that an artifact was exported from, loaded again from what its manifest says, but not from the network."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Final

from sait_deploy import demo
from sait_deploy.artifacts.manifest import Manifest, Task, WeightsSource
from sait_deploy.engine.trust import DOWNLOAD_FLAG, Consent, Downloads, granted
from sait_deploy.errors import ArtifactError, ModelError, SaitError
from sait_deploy.images.config_files import CONFIG_FILE
from sait_deploy.models.downloads import has_address_alone, is_missing, local_only
from sait_deploy.models.embedder import for_task
from sait_deploy.models.places import FOLDER
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model

_LEFT_OUT: Final = 1 << 20
"""Parameters of heads that an artifact left out, beside as many as it has itself."""


def original_model(
    manifest: Manifest, weights: Path | None = None, folder: Path | None = None, consent: Consent | None = None
) -> LoadedModel:
    """Loads the model that an artifact was exported from, and checks that its weights are the same.

    Others may have written the manifest: no model is made that is much larger than the artifact.

    Args:
        manifest: the artifact's.
        weights: a weights file or folder, where the one the manifest names is not there any more.
        folder: the artifact's. A relative name in the manifest is looked for in the working directory, then in this
            folder, then in each of those above it.
        consent: to downloads; None for what the command line said. Without it, weights of a hub are those that lie in
            its cache on this machine.

    Raises:
        ModelError: the weights cannot be had, or the model is larger than the artifact.
        ArtifactError: they are not those of the artifact.
    """
    downloads = (consent or granted()).downloads
    with contextlib.nullcontext() if downloads is Downloads.ALLOWED else local_only():
        return _original(manifest, weights, folder, downloads)


def _original(manifest: Manifest, weights: Path | None, folder: Path | None, downloads: Downloads) -> LoadedModel:
    info, local = manifest.weights, downloads is not Downloads.ALLOWED
    most = 2 * manifest.model.parameters + _LEFT_OUT
    refusals: list[SaitError] = []
    for name, request in _requests(manifest, weights, folder):
        if local and request.source is WeightsSource.PRETRAINED and has_address_alone(name):
            raise _not_here(manifest, name)
        try:
            pool = manifest.model.global_pool
            prepared = manifest.preprocessing
            known = dataclasses.replace(
                request,
                known_preprocessing=prepared,
                global_pool=pool,
                in_chans=prepared.channels,
                most_parameters=most,
            )
            loaded = load_model(name, known, _named_size(manifest))
        except ModelError as error:
            refusals.append(_not_here(manifest, name) if local and is_missing(error) else error)
            continue
        if loaded.weights.sha256 == info.sha256:
            embedding, tower = manifest.model.embedding, manifest.model.tower
            if tower is not None:
                return for_task(loaded, Task.TOKENS, tower=tower)
            return loaded if embedding is None else for_task(loaded, Task.EMBED, embedding.head)
        found = f"weights {loaded.weights.sha256[:12]}… (SHA-256) are not those of {manifest.name}"
        hint = "name the weights file that it was exported from"
        refusals.append(ArtifactError(f"{found}, {info.sha256[:12]}…", hint))
    raise refusals[0]


def _not_here(manifest: Manifest, name: str) -> ModelError:
    return ModelError(
        f"the weights of {manifest.name} are {name}'s, which are not on this machine, and nothing is fetched unasked",
        f"give {DOWNLOAD_FLAG} to fetch them, or name their file",
    )


def _requests(manifest: Manifest, weights: Path | None, folder: Path | None) -> list[tuple[str, WeightsRequest]]:
    """Returns by which names and with which weights the model can be loaded.

    Raises:
        ModelError: it was in memory.
    """
    info, place = manifest.weights, manifest.model.made_from
    if weights is None and info.source is WeightsSource.MEMORY:
        raise ModelError(f"{manifest.name} was exported from a model in memory", "save its weights and name the file")
    if weights is None and not (info.source is WeightsSource.FILE and info.origin):
        return [(place or manifest.model.name, WeightsRequest(info.source))]
    files = [weights] if weights is not None else _weights_files(Path(info.origin or ""), folder)
    if place is None:
        return [(manifest.model.name, WeightsRequest(WeightsSource.FILE, file)) for file in files]
    own = info.origin == place
    if (weights is None and own) or (weights is not None and (weights / CONFIG_FILE).is_file()):
        return [(f"{FOLDER}{file}", WeightsRequest(WeightsSource.FILE, file)) for file in files]
    beside = [weights.parent] if own and weights is not None else []
    folders = beside + _weights_files(Path(place), folder)
    return [(f"{FOLDER}{one}", WeightsRequest(WeightsSource.FILE, file)) for one in folders for file in files]


def _weights_files(origin: Path, folder: Path | None) -> list[Path]:
    """Returns where the file that a manifest names can be: as it is named, and below the artifact's folder or above."""
    if origin.is_absolute() or folder is None:
        return [origin]
    place, found = folder.resolve(), list[Path]()
    for path in (origin, place / origin, *(above / origin for above in place.parents)):
        if path.exists() and not any(path.samefile(other) for other in found):
            found.append(path)
    return found or [origin]


def _named_size(manifest: Manifest) -> tuple[int, int] | None:
    return None if manifest.model.name == demo.NAME else manifest.model.image_size
