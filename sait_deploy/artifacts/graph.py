"""An artifact's graph, and the folder in which the weights beside it lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import _get_all_tensors, load_external_data_for_model, uses_external_data

from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.errors import ArtifactError, SaitError, first_line


@contextlib.contextmanager
def lowering_errors(artifact: Artifact) -> Iterator[None]:
    """Turns what a lowering stumbles over into an error of the artifact.

    A lowering reads more of a graph than its check promises: the nodes, names, types and sizes that exports write.
    """
    try:
        yield
    except (SaitError, OSError, MemoryError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
        raise ArtifactError(
            f"the graph of {artifact.manifest.name} is not one that exports write ({what})",
            "export again; --debug shows where it ended",
        ) from error


def weights_folder(artifact: Artifact) -> Path:
    """Returns where weights beside the graph lie: the artifact's folder, or a hub cache's blobs."""
    linked = _linked(artifact)
    return linked[0].resolve().parent if linked else artifact.path


def graph_of(artifact: Artifact) -> onnx.ModelProto:
    """Returns the artifact's graph, weights beside it left where they lie: names of files in ``weights_folder``."""
    model = onnx.load(str(artifact.model_path), load_external_data=False)
    # Readers of weights refuse links, so each is named by the blob that the artifact's check followed its link to.
    blobs = {file.name: file.resolve().name for file in _linked(artifact)}
    for tensor in _get_all_tensors(model) if blobs else ():
        if uses_external_data(tensor):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = blobs[entry.value]
    return model


def whole_graph_of(artifact: Artifact) -> onnx.ModelProto:
    """Returns the artifact's graph with all of its weights."""
    model = graph_of(artifact)
    load_external_data_for_model(model, str(weights_folder(artifact)))
    return model


def graph_source(artifact: Artifact) -> str | bytes:
    """Returns what to hand to ONNX Runtime: the graph's path, or its bytes where weights beside it are links."""
    if not _linked(artifact):
        return str(artifact.model_path)
    serialised: bytes = graph_of(artifact).SerializeToString()
    return serialised


def _linked(artifact: Artifact) -> list[Path]:
    """Returns the files of weights that are links."""
    files = [artifact.path / name for name in artifact.manifest.files if name.startswith(f"{MODEL_FILE}.")]
    return [file for file in files if file.is_symlink()]
