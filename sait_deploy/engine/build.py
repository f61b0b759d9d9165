"""The build stage: an artifact and options in, an engine folder inside the artifact out."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.files import check_writable
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact, ArtifactLike, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, Precision
from sait_deploy.engine.choose import Builder, attention_form, choose_builder
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, write_engine_manifest
from sait_deploy.engine.manifest import SCHEMA_VERSION, AttentionSummary, EngineManifest, PartInfo
from sait_deploy.engine.options import (
    MAX_TOPK,
    EngineOptions,
    PluginChoice,
    batch_of,
)
from sait_deploy.engine.packages import PACKAGES, BuilderName
from sait_deploy.engine.process import BuildAnswer, run_builder
from sait_deploy.engine.profiles import PartName, Profile, profiles
from sait_deploy.engine.request import BuildRequest, PartRequest
from sait_deploy.engine.trtexec import write_inputs
from sait_deploy.engine.trust import TRUST_FLAG, record_built
from sait_deploy.errors import ArtifactError, EngineError, InvalidArgument, MissingDependency
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, QuantizedType, SelectionForm
from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS
from sait_deploy.system.progress import Progress, logged, named

if TYPE_CHECKING:
    from sait_deploy.engine.lowering import LoweredPart

_TOOLS: Final = ("sait-deploy", "onnx", "onnx-ir", "onnx-graphsurgeon")
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class _BuildSettings:
    """What to build, once options, artifact and builder are known."""

    builder: Builder
    lowering: LowerOptions
    profiles: dict[PartName, tuple[Profile, ...]]

    @property
    def name(self) -> str:
        """The engine folder's name."""
        builder = self.builder
        kind = "-fp8" if self.lowering.quantized is QuantizedType.FP8 else ""
        kind += "-packed" if self.lowering.attention is AttentionForm.PACKED else ""
        return f"{builder.name}-{builder.version}-{'+'.join(builder.targets)}-{self.lowering.precision}{kind}"


def build_engine(
    artifact: ArtifactLike,
    options: EngineOptions = EngineOptions(),
    progress: Progress = logged,
) -> Engine:
    """Builds an artifact's engines into its folder; one of the same name is replaced.

    Example::

        options = EngineOptions(precision="fp16", batch=BatchRange(1, 8, 32))
        engine = sait_deploy.build_engine("artifacts/sait_demo_digits-density0.6", options)

    Args:
        artifact: what to build, opened or its folder.
        options: how.
        progress: called with each step, which begins with the artifact's name.

    Raises:
        BuilderUnavailable: no builder is installed, or it cannot work here.
        MissingDependency: what lowers graphs is not installed.
        InvalidArgument: options that the builder, the model or its size rule out.
        ArtifactError: the graph cannot be lowered.
        EngineError: the builder gave no engine.
        StorageError: the engine cannot be written.
    """
    artifact = open_artifact(artifact)
    if artifact.manifest.model.tower is not None:
        raise InvalidArgument(
            f"no engines are built of an image tower, and {artifact.manifest.name} is one",
            "run it on onnxruntime, onnxruntime-cuda or openvino",
        )
    options = dataclasses.replace(options, batch=batch_of(artifact.manifest.batch, options.batch))
    settings = _settings(artifact, options)
    if options.timing_cache is not None:
        check_writable(options.timing_cache)
    workspace = Workspace(artifact.path / ENGINES_FOLDER)
    if workspace.root.is_symlink():
        raise ArtifactError(f"{workspace.root} is a link, through which nothing is written", "delete the link")
    place = workspace.root / settings.name
    with _engines_folder(workspace), workspace.writing(place) as folder:
        progress = named(artifact.path.name, progress)
        progress("cutting and lowering")
        lowered = _lowered(artifact, settings, folder)
        answer = run_builder(_request(settings, options, lowered, folder), progress)
        manifest = _manifest(artifact, options, settings, lowered, answer, folder)
        for graph in folder.glob("*.onnx*"):
            graph.unlink()
        write_inputs(folder, manifest.parts, artifact.manifest.model.geometry)
        write_engine_manifest(folder, manifest)
    engine = Engine(artifact, place, manifest)
    if not record_built(engine.digests):
        progress(f"no folder of this user could be written to: running the engine needs {TRUST_FLAG}")
    return engine


def _lowered(artifact: Artifact, settings: _BuildSettings, folder: Path) -> dict[PartName, LoweredPart]:
    try:
        from sait_deploy.artifacts.graph import lowering_errors
        from sait_deploy.engine.lowering import lower_parts
    except ModuleNotFoundError as error:
        extra = PACKAGES[settings.builder.name].extra
        raise MissingDependency(str(error.name), "building engines", extra) from None
    with lowering_errors(artifact):
        return lower_parts(artifact, settings.lowering, folder)


@contextlib.contextmanager
def _engines_folder(workspace: Workspace) -> Iterator[None]:
    """Makes the folder of an artifact's engines, and removes it again if its first engine fails."""
    try:
        workspace.prepare()
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            workspace.root.rmdir()
        raise


def _settings(artifact: Artifact, options: EngineOptions) -> _BuildSettings:
    manifest = artifact.manifest
    builder = choose_builder(options)
    if manifest.dtype is Precision.FP16 and options.precision is not EnginePrecision.FP16:
        raise InvalidArgument(
            f"{artifact.path.name} has {manifest.dtype} weights, and a {options.precision} engine was asked for",
            f"build with --precision {manifest.dtype}, or export with --precision fp32",
        )
    if options.quantized is QuantizedType.FP8 and manifest.dtype is not Precision.INT8:
        raise InvalidArgument(
            f"{artifact.path.name} is no int8 artifact, whose ranges fp8 takes",
            "run sait-deploy quantize, and build that",
        )
    selection = SelectionForm.FUNCTION
    pluggable = builder.name is BuilderName.TENSORRT and manifest.form is not Form.DENSE
    if pluggable and options.plugin is PluginChoice.WHERE_POSSIBLE:
        selection = SelectionForm.PLUGIN
    most = MAX_PATCH_TOKENS if selection is SelectionForm.PLUGIN else MAX_TOPK
    tokens = manifest.model.geometry.patch_tokens
    if manifest.form is not Form.DENSE and tokens > most:
        raise InvalidArgument(
            f"{artifact.path.name} selects among {tokens} patch tokens; as a {selection}, {builder.name} sorts {most}",
            "export at a smaller --imgsz",
        )
    return _BuildSettings(
        builder,
        LowerOptions(options.precision, attention_form(builder, options), selection, options.quantized),
        profiles(manifest, options.batch, builder.name),
    )


def _request(
    settings: _BuildSettings, options: EngineOptions, lowered: dict[PartName, LoweredPart], folder: Path
) -> BuildRequest:
    parts = []
    for name, part in lowered.items():
        place = folder / f"{name}.plan"
        parts.append(PartRequest(name, str(part.path.resolve()), str(place.resolve()), _profiles(settings, name, part)))
    cache = options.timing_cache
    return BuildRequest(
        builder=settings.builder.name,
        targets=_capabilities(settings.builder),
        parts=tuple(parts),
        plugins=settings.lowering.selection is SelectionForm.PLUGIN,
        workspace_bytes=None if options.workspace_gib is None else int(options.workspace_gib * _GIB),
        opt_level=options.opt_level,
        timing_cache=None if cache is None else str(cache.resolve()),
        portability=tuple(sorted(options.portability)),
        strip_weights=options.strip_weights,
    )


def _capabilities(builder: Builder) -> tuple[str, ...]:
    """Returns what TensorRT for RTX is to build for; TensorRT builds for the GPU that it runs on."""
    return builder.targets if builder.name is BuilderName.TENSORRT_RTX else ()


def _profiles(settings: _BuildSettings, name: PartName, part: LoweredPart) -> tuple[Profile, ...]:
    """Returns a part's profiles, of the inputs that it has."""
    taken = [tensor.name for tensor in part.inputs]
    return tuple(Profile({name: profile.ranges[name] for name in taken}) for profile in settings.profiles[name])


def _manifest(
    artifact: Artifact,
    options: EngineOptions,
    settings: _BuildSettings,
    lowered: dict[PartName, LoweredPart],
    answer: BuildAnswer,
    folder: Path,
) -> EngineManifest:
    manifest, lowering = artifact.manifest, settings.lowering
    fused = sum(part.network.attention_fused for part in answer.parts)
    expected = sum(part.attention for part in lowered.values())
    if fused != expected:
        raise EngineError(
            f"{expected} attentions went in as one node each, {fused} of them stayed one in the builder's network",
            "build with --allow-unfused, and report this",
        )
    parts = tuple(
        PartInfo(
            name=part.name,
            file=f"{part.name}.plan",
            size_bytes=(folder / f"{part.name}.plan").stat().st_size,
            inputs=lowered[part.name].inputs,
            outputs=lowered[part.name].outputs,
            profiles=_profiles(settings, part.name, lowered[part.name]),
            network=part.network,
            build_seconds=part.seconds,
        )
        for part in answer.parts
    )
    return EngineManifest(
        schema_version=SCHEMA_VERSION,
        name=settings.name,
        artifact=manifest.id,
        source_sha256=manifest.files[MODEL_FILE],
        builder=settings.builder.name,
        builder_version=settings.builder.version,
        targets=settings.builder.targets,
        gpu=answer.gpu,
        precision=options.precision,
        precisions_got=tuple(sorted({kind for part in answer.parts for kind in part.product_types})),
        selection=None if manifest.form is Form.DENSE else lowering.selection,
        attention=AttentionSummary(lowering.attention, manifest.model.geometry.depth, expected, fused),
        portability=tuple(sorted(options.portability)),
        stripped=options.strip_weights,
        batch=options.batch,
        parts=parts,
        files={part.file: sha256_of(folder / part.file) for part in parts},
        messages=answer.messages,
        tools={tool: importlib.metadata.version(tool) for tool in _TOOLS},
        quantized=None if options.quantized is QuantizedType.INT8 else options.quantized,
        # Tokens of blocks are scattered to where `kept` says, and a spare row's would overwrite a dropped token.
        spare_rows=manifest.form is Form.ADAPTIVE and not manifest.returns_tokens,
        weights=_digests(lowered) if options.strip_weights else None,
    )


def _digests(lowered: dict[PartName, LoweredPart]) -> dict[str, str]:
    from sait_deploy.engine.weights import digest_of, weights_of

    return {name.value: digest_of(weights_of(part.path)) for name, part in lowered.items()}
