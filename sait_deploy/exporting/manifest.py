"""What an export's manifest says: drafted from the plan, completed by what checking the graph found."""

from __future__ import annotations

import datetime
from typing import Final

from sait_deploy.artifacts.manifest import (
    COUNTS,
    EMBEDDINGS,
    FEATURES,
    SCHEMA_VERSION,
    AccuracyInfo,
    AccuracyStatus,
    Form,
    Manifest,
    ModelInfo,
    Outputs,
    ParityInfo,
    Precision,
    TensorInfo,
    block_features,
)
from sait_deploy.artifacts.manifest_parts import installed_tools
from sait_deploy.artifacts.pruning_info import KeptInfo, MacsInfo, PointInfo, PruningInfo
from sait_deploy.artifacts.tower_info import CU_SEQLENS, POSITIONS, TOKENS
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.names import IMPORTANCE, KEEP, KEEP_LIMITS, MASS
from sait_deploy.exporting.plan import ExportOptions, ExportPlan
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.models.registry import LoadedModel
from sait_deploy.tokens import dense_macs

_UNCHECKED: Final = ParityInfo("", 0, "", (), 0.0, 0.0, None, 0.0, None, ())


def draft_manifest(model: LoadedModel, options: ExportOptions, plan: ExportPlan, baseline: ExportPlan) -> Manifest:
    """Returns a manifest with everything but what checking finds out: parity, accuracy, file hashes, kept tokens."""
    info, dense = model.info, dense_macs(model.info.geometry)
    inputs, outputs = _tensors(model, options, plan)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        id=plan.id,
        name=plan.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        form=plan.form,
        model=info,
        weights=model.weights,
        pruning=_pruning(model, plan),
        inputs=inputs,
        outputs=outputs,
        preprocessing=model.preprocessing,
        dtype=options.precision,
        fp32_operators=()
        if options.precision is Precision.FP32
        else ("LayerNormalization", "Softmax", "MassTokenSelect", *(("ReduceL2",) if info.embedding else ())),
        opset=options.opset,
        inlined=options.operators is OperatorForm.INLINE,
        parity=_UNCHECKED,
        accuracy=AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None),
        macs=MacsInfo(dense, dense, 1.0),
        baseline=None if plan.id == baseline.id else baseline.id,
        tools=installed_tools(),
        files={},
        preprocessing_sources=model.preprocessing_sources,
        batch=options.batch,
    )


def _tensors(
    model: LoadedModel, options: ExportOptions, plan: ExportPlan
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Returns a graph's inputs and outputs."""
    info, geometry = model.info, model.info.geometry
    batch = "batch" if options.batch is None else options.batch
    inputs = [TensorInfo("images", "float32", (batch, model.preprocessing.channels, *info.image_size))]
    outputs = [*_answers(info, batch)]
    if plan.form is Form.ADAPTIVE:
        inputs += [TensorInfo(MASS, "float32", (batch,)), TensorInfo(KEEP_LIMITS, "int32", (batch, 2))]
    if options.outputs is Outputs.LOGITS_AND_FEATURES:
        outputs.append(TensorInfo(FEATURES, "float32", (batch, geometry.tokens, geometry.width)))
    tokens = (batch, geometry.tokens, geometry.width)
    outputs += [TensorInfo(block_features(block), "float32", tokens) for block in options.feature_blocks]
    if options.feature_blocks and plan.pruning is not None:
        outputs.append(TensorInfo(KEEP, "int32", (batch, geometry.tokens)))
    if plan.pruning is not None and info.tower is None:
        outputs.append(TensorInfo(COUNTS, "int32", (batch,)))
    return tuple(inputs), tuple(outputs)


def _answers(info: ModelInfo, batch: int | str) -> tuple[TensorInfo, ...]:
    """Returns the graph's first outputs."""
    if info.tower is not None:
        ends = "batch+1" if isinstance(batch, str) else batch + 1
        return (
            TensorInfo(TOKENS, "float32", ("tokens", info.answer_width)),
            TensorInfo(CU_SEQLENS, "int32", (ends,)),
            TensorInfo(POSITIONS, "int32", ("tokens",)),
        )
    name = EMBEDDINGS if info.embedding is not None else "logits" if info.classes else "features"
    return (TensorInfo(name, "float32", (batch, info.answer_width)),)


def _pruning(model: LoadedModel, plan: ExportPlan) -> PruningInfo | None:
    if plan.pruning is None:
        return None
    dense = dense_macs(model.info.geometry)
    unmeasured = KeptInfo(0, 0.0, 0.0, 0.0, 0.0, 0), MacsInfo(dense, dense, 1.0)
    return PruningInfo(
        score=plan.pruning.score,
        prune_at=plan.pruning.prune_at,
        density=None if plan.density is None else f"{plan.density:f}",
        points=tuple(PointInfo(name, point, *unmeasured) for name, point in plan.points),
        importance=IMPORTANCE,
        keep=KEEP,
        threshold=plan.pruning.threshold if isinstance(plan.pruning, AdaptivePruning) else None,
    )
