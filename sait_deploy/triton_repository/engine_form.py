"""TensorRT engines as models: a whole one alone, or stem and trunk behind a model in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.folder import Engine, builder_of, engine_folders, open_engine
from sait_deploy.engine.manifest import PartInfo
from sait_deploy.engine.options import Portability
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trust import check_built, granted
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, KEPT, LANES, TOKENS, SelectionForm
from sait_deploy.runtime.engine_buffers import seam_of
from sait_deploy.triton_repository import cut_model
from sait_deploy.triton_repository.configuration import (
    Fields,
    batched,
    inputs_with_defaults,
    outputs_of_python,
    warm_up_data,
    warm_up_whole,
    whole,
    with_labels,
)
from sait_deploy.triton_repository.options import RepositoryOptions
from sait_deploy.triton_repository.parts import VERSION, ModelFolder, Source
from sait_deploy.triton_repository.pbtxt import Symbol

Data = dict[str, NDArray[Any]]
_PLAN: Final = "model.plan"
_BUILD: Final = "sait-deploy build-engine --builder tensorrt"


def tensorrt_form(source: Source, options: RepositoryOptions) -> dict[str, ModelFolder]:
    """Returns the models of the artifact's engine that was built last.

    Raises:
        ArtifactError: there is none of TensorRT's, or it is damaged, or somebody else's.
        InvalidArgument: Triton cannot load it, or it takes no batch of that size.
    """
    if source.artifact.manifest.inlined:
        raise InvalidArgument(
            f"{source.artifact.path.name} was exported with --inline, which leaves no seam to cut engines at",
            "export without --inline, or give --backend onnxruntime",
        )
    engine = _engine(source.artifact)
    batch = engine.manifest.batch
    most = batch.largest if options.max_batch is None else options.max_batch
    if not batch.smallest <= most <= batch.largest:
        raise InvalidArgument(
            f"engine {engine.path.name} takes {batch.smallest} to {batch.largest} images, not {most}",
            "give a batch within, or build it with another --batch",
        )
    names = [part.name for part in engine.manifest.parts]
    return _whole(source, engine, most) if names == [PartName.MODEL] else _cut(source, engine, most)


def _engine(artifact: Artifact) -> Engine:
    """Returns the engine built last of those that Triton can load.

    Raises:
        ArtifactError: there is none, or it is damaged, or somebody else's.
        InvalidArgument: it needs what Triton does not give it.
    """
    folders = [folder for folder in engine_folders(artifact) if builder_of(folder) is BuilderName.TENSORRT]
    if not folders:
        others = " but of TensorRT for RTX, which Triton does not load" if engine_folders(artifact) else ""
        raise ArtifactError(f"{artifact.path.name} has no TensorRT engine{others}", f"run: {_BUILD}")
    engine = open_engine(artifact, max(folders, key=lambda folder: folder.stat().st_mtime_ns))
    manifest = engine.manifest
    if manifest.selection is SelectionForm.PLUGIN:
        raise InvalidArgument(
            f"engine {engine.path.name} selects tokens with a plugin, which Triton does not have",
            f"build one without: {_BUILD} --no-plugin",
        )
    if manifest.stripped or Portability.VERSIONS in manifest.portability:
        what = "has no weights in it" if manifest.stripped else "brings code for the processor"
        raise InvalidArgument(
            f"engine {engine.path.name} {what}, and Triton loads no such engine", f"build another: {_BUILD}"
        )
    check_built(engine.path.name, engine.digests, granted())
    return engine


def _whole(source: Source, engine: Engine, most: int) -> dict[str, ModelFolder]:
    (part,) = engine.manifest.parts
    warm, data = source.warmed()
    config = {
        "name": source.name,
        "platform": "tensorrt_plan",
        "max_batch_size": most,
        "input": [batched(tensor) for tensor in part.inputs],
        "output": with_labels([batched(tensor) for tensor in part.outputs], source.artifact.manifest),
        "dynamic_batching": _batching(engine),
        "instance_group": [_instances(part)],
        **(warm if engine.manifest.batch.smallest == 1 else {}),
        **source.described(engine=engine.manifest.name),
    }
    files: dict[str, bytes | Path] = {f"{VERSION}/{_PLAN}": engine.plan_path(part.name), **data, **source.labels()}
    return {source.name: ModelFolder(config, files)}


def _cut(source: Source, engine: Engine, most: int) -> dict[str, ModelFolder]:
    """Returns stem and trunk, whose shapes are their own affair, and the model that clients ask."""
    manifest = source.artifact.manifest
    stem, trunk = engine.manifest.part(PartName.STEM), engine.manifest.part(PartName.TRUNK)
    named = {part.name: f"{source.name}-{part.name}" for part in (stem, trunk)}
    crossing = seam_of(engine.manifest)
    geometry = manifest.model.geometry
    parameters = source.described(
        engine=engine.manifest.name,
        stem=named[PartName.STEM],
        trunk=named[PartName.TRUNK],
        crossing=" ".join(crossing),
        answer=manifest.output_names[0],
        smallest=engine.manifest.batch.smallest,
        prefix=geometry.prefix_tokens,
        patches=geometry.patch_tokens,
    )
    config = {
        "name": source.name,
        "backend": "python",
        "max_batch_size": most,
        "input": inputs_with_defaults(manifest),
        "output": with_labels(outputs_of_python(manifest), manifest),
        "dynamic_batching": _batching(engine),
        "instance_group": [{"count": 1, "kind": Symbol("KIND_CPU")}],
        **parameters,
    }
    # A model cannot ask others while it warms up, so that its parts do, each by itself.
    files: dict[str, bytes | Path] = {f"{VERSION}/model.py": Path(cut_model.__file__), **source.labels()}
    return {
        named[stem.name]: _part(named[stem.name], engine, stem, _stem_data(source, engine), {}),
        named[trunk.name]: _part(named[trunk.name], engine, trunk, *_trunk_data(source, engine)),
        source.name: ModelFolder(config, files),
    }


def _stem_data(source: Source, engine: Engine) -> Data:
    """Returns the stem's request of the smallest batch: the golden image, repeated."""
    found = warm_up_data(source.artifact.golden().images, source.point)
    return {name: np.repeat(array[:1], engine.manifest.batch.smallest, axis=0) for name, array in found.items()}


def _trunk_data(source: Source, engine: Engine) -> tuple[Data, dict[str, int]]:
    """Returns the trunk's request of the smallest batch, whose images keep what the point keeps on average."""
    manifest, images = source.artifact.manifest, engine.manifest.batch.smallest
    assert manifest.pruning is not None
    geometry = manifest.model.geometry
    kept = {info.name: round(info.kept.mean) for info in manifest.pruning.points}
    each = geometry.prefix_tokens + kept.get(source.point_name or "", geometry.patch_tokens)
    offsets = each * np.arange(images + 1, dtype=np.int32)
    rows = np.concatenate([image * geometry.tokens + np.arange(each, dtype=np.int32) for image in range(images)])
    data: Data = {CU_SEQLENS: offsets, KEPT: rows.astype(np.int32), LANES: np.arange(each, dtype=np.int32)}
    return data, {TOKENS: images * geometry.tokens, GUARD: images}


def _part(name: str, engine: Engine, part: PartInfo, data: Data, sizes: Mapping[str, int]) -> ModelFolder:
    config = {
        "name": name,
        "platform": "tensorrt_plan",
        "max_batch_size": 0,
        "input": [whole(tensor) for tensor in part.inputs],
        "output": [whole(tensor) for tensor in part.outputs],
        "instance_group": [_instances(part)],
        "model_warmup": [warm_up_whole(part.inputs, data, sizes)],
    }
    files: dict[str, bytes | Path] = {f"warmup/{key}": array.tobytes() for key, array in data.items()}
    return ModelFolder(config, {f"{VERSION}/{_PLAN}": engine.plan_path(part.name), **files})


def _instances(part: PartInfo) -> Fields:
    """Returns a part's instances with all of its profiles: Triton uses the first alone where none is named."""
    profiles = [str(index) for index in range(len(part.profiles))]
    return {"count": 1, "kind": Symbol("KIND_GPU"), "profile": profiles}


def _batching(engine: Engine) -> Fields:
    return {"preferred_batch_size": [engine.manifest.batch.optimum]} if engine.manifest.batch.optimum > 1 else {}
