"""What an export makes: its options, and the form, points, name and id of each artifact."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from torch import nn

from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Form, Head, Outputs, Precision, Task, WeightsSource
from sait_deploy.artifacts.manifest_parts import fingerprint
from sait_deploy.artifacts.points import DEFAULT_POINT, PointRequest, threshold_point
from sait_deploy.artifacts.tower_info import SelectStrategy, TowerChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.images.dataset import check_class_map
from sait_deploy.images.preprocessing_choice import NO_CHOICE, PreprocessingChoice, is_assumed
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning, check_blocks, check_pruning
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.weights import chosen_pruning
from sait_deploy.system.option_values import check_options
from sait_deploy.tokens import (
    OperatingPoint,
    Score,
    default_prune_at,
    density_point,
    kept_at_density,
    most_images,
    parse_density,
)

OPSETS: Final = range(17, 26)
DEFAULT_OPSET: Final = 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        densities: token densities in (0, 1], one artifact each; the dense baseline is always exported too. Text and
            floats are taken as the decimals they show.
        points: operating points of one adaptive artifact, its default first; none for no such artifact.
        score: how importance is read off the attention; None for as the weights were trained, else by the mean.
        prune_at: block to prune in; None for the one that the weights were trained at, else depth // 4.
        precision: element type of the weights.
        opset: version of the standard ONNX operators.
        operators: whether ``ai.sait`` operators stay nodes with functions or are inlined.
        outputs: whether the last block's tokens are an output too.
        threshold: multiple of uniform importance that a token of the adaptive artifact must hold beyond the least that
            are kept; where no points are named, it alone decides. None for no such rule.
        feature_blocks: blocks whose tokens are outputs, one each, counted from 0; sorted, each once.
        images: images for the parity check; None for the shipped ones.
        labels: file of class names, one a line.
        output: folder for the artifacts.
        overwrite: whether an artifact of the same identity may be replaced.
        class_map: file that says the class of each subfolder of ``images``; None for the classes of those names.
        preprocessing: what to do with images, where it is not what is known of the model.
        task: what the graph answers; None to classify with a head, and to embed without one.
        head: what the head is, of a model that embeds; see ``models.embedder.for_task``.
        tower: which tokens of an image tower are returned; see ``models.embedder.for_task``.
        batch: images of every request, for runtimes that want graphs of fixed batch size; None for any number.

    Raises:
        InvalidArgument: a density is no number in (0, 1], or two points have the same name.
    """

    densities: tuple[Decimal, ...] = ()
    points: tuple[PointRequest, ...] = ()
    score: Score | None = None
    prune_at: int | None = None
    precision: Precision = Precision.FP32
    opset: int = DEFAULT_OPSET
    operators: OperatorForm = OperatorForm.FUNCTION
    outputs: Outputs = Outputs.LOGITS
    images: Path | None = None
    labels: Path | None = None
    output: Path = field(default_factory=lambda: Path("artifacts"))
    overwrite: bool = False
    class_map: Path | None = None
    preprocessing: PreprocessingChoice = NO_CHOICE
    task: Task | None = None
    head: Head | None = None
    tower: TowerChoice | None = None
    batch: int | None = None
    feature_blocks: tuple[int, ...] = ()
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_class_map(self.images, self.class_map)
        object.__setattr__(self, "densities", tuple(parse_density(str(density)) for density in self.densities))
        if self.precision not in EXPORTED_PRECISIONS:
            raise InvalidArgument(
                f"no model is exported in {self.precision}", "export in fp32, then run: sait-deploy quantize"
            )
        if self.batch is not None and self.batch < 1:
            raise InvalidArgument(f"a batch of {self.batch} images cannot be", "give 1 or more")
        object.__setattr__(self, "feature_blocks", tuple(sorted(set(self.feature_blocks))))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", float(self.threshold))  # 2 and 2.0 are one export
        points = tuple(dict.fromkeys(self.points))
        if self.threshold is not None and not points:
            points = (threshold_point(self.threshold),)
        names = [point.name for point in points]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise InvalidArgument(f"two points are called {repeated!r}", "give each a name of its own")
        object.__setattr__(self, "points", tuple(sorted(points, key=lambda point: point.name != DEFAULT_POINT)))


DEFAULT_OPTIONS: Final = ExportOptions(densities=(Decimal("0.6"),))


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """One artifact to make: its form, and of a pruned one the named points with what each of them is."""

    form: Form
    density: Decimal | None
    pruning: Pruning | None
    points: tuple[tuple[str, OperatingPoint], ...]
    name: str
    id: str


def plan_exports(model: LoadedModel, options: ExportOptions) -> list[ExportPlan]:
    """Returns what to make, the dense baseline first.

    Raises:
        InvalidArgument: the pruning, the blocks or the batch do not fit the model.
    """
    geometry = model.info.geometry
    if model.info.tower is not None and (options.outputs is not Outputs.LOGITS or options.feature_blocks):
        raise InvalidArgument("an image tower returns the tokens of one layer", "leave --features out")
    check_blocks(geometry, options.feature_blocks)
    if options.batch is not None and options.batch > most_images(geometry):
        most = most_images(geometry)
        raise InvalidArgument(f"a batch of {options.batch} images has more tokens than int32 counts", f"at most {most}")
    score, prune_at = chosen_pruning(model.training, geometry.depth, options.score, options.prune_at)
    drafts = [ExportPlan(Form.DENSE, None, None, (), "", "")]
    for density in dict.fromkeys(options.densities):
        fixed = FixedPruning(score, prune_at, kept_at_density(density, geometry.patch_tokens))
        point = density_point(density, geometry.patch_tokens)
        drafts.append(ExportPlan(Form.DENSITY, density, fixed, ((DEFAULT_POINT, point),), "", ""))
    if options.points:
        points = tuple((request.name, request.resolve(geometry.patch_tokens)) for request in options.points)
        drafts.append(
            ExportPlan(Form.ADAPTIVE, None, AdaptivePruning(score, prune_at, options.threshold), points, "", "")
        )
    for draft in drafts:
        if draft.pruning is not None:
            check_pruning(model.vit, draft.pruning)
    return [_named(model, options, draft) for draft in drafts]


def _named(model: LoadedModel, options: ExportOptions, plan: ExportPlan) -> ExportPlan:
    """Returns the plan with a readable name, of what is not the default, and an id, of all that makes it different."""
    info, pruning, name = model.info, plan.pruning, _name(model, options, plan)
    # A timm name says what is computed with the weights; of other models only their modules do.
    named = model.weights.source is not WeightsSource.MEMORY and info.made_from is None
    structure = "" if named else _structure(model.vit)
    identity = (info.name, info.image_size, model.weights.sha256, structure, plan.form, plan.density, pruning)
    further: tuple[object, ...] = (plan.points, options.precision, options.opset, options.operators, options.outputs)
    # The name and the weights say what is assumed of images; only what was found or given tells exports apart.
    if not is_assumed(model.preprocessing_sources):
        further = (*further, model.preprocessing)
    if info.global_pool is not None:
        further = (*further, info.global_pool)
    if info.embedding is not None:
        further = (*further, info.embedding)
    if info.tower is not None:
        further = (*further, info.tower)
    if options.batch is not None:
        further = (*further, options.batch)
    if options.feature_blocks:
        further = (*further, "blocks", options.feature_blocks)
    if isinstance(pruning, AdaptivePruning) and pruning.threshold is not None:
        further = (*further, "threshold", pruning.threshold)
    return dataclasses.replace(plan, name=name, id=f"{name}-{fingerprint(*identity, *further)}")


def _name(model: LoadedModel, options: ExportOptions, plan: ExportPlan) -> str:
    """Returns a readable name, of what is not the default."""
    pruning = plan.pruning
    info, parts = model.info, [re.sub(r"[^A-Za-z0-9_.]+", "_", model.info.name)]
    if info.image_size != model.default_image_size:
        parts.append("x".join(str(side) for side in dict.fromkeys(info.image_size)) + "px")
    if model.preprocessing.channels != 3:
        parts.append(f"{model.preprocessing.channels}chans")
    if pruning is not None and pruning.prune_at != default_prune_at(info.geometry.depth):
        parts.append(f"block{pruning.prune_at}")
    if pruning is not None and pruning.score is not Score.MEAN:
        parts.append(pruning.score)
    if options.precision is not Precision.FP32:
        parts.append(options.precision)
    if options.opset != DEFAULT_OPSET:
        parts.append(f"opset{options.opset}")
    if options.operators is not OperatorForm.FUNCTION:
        parts.append(options.operators)
    if options.outputs is Outputs.LOGITS_AND_FEATURES:
        parts.append("features")
    if options.feature_blocks:
        parts.append("_".join(("blocks", *map(str, options.feature_blocks))))
    if info.embedding is not None:
        parts.append(Task.EMBED)
    if info.tower is not None:
        parts += _tower_parts(info.tower)
    if options.batch is not None:
        parts.append(f"batch{options.batch}")
    return "-".join((*parts, *_form_parts(plan)))


def _form_parts(plan: ExportPlan) -> list[str]:
    if isinstance(plan.pruning, AdaptivePruning) and plan.pruning.threshold is not None:
        return [f"threshold{plan.pruning.threshold:.12g}", plan.form]
    return [plan.form if plan.density is None else f"density{plan.density:f}"]


def _tower_parts(tower: TowerChoice) -> list[str]:
    layer, strategy = tower.vision_feature_layer, tower.vision_feature_select_strategy
    layers = [] if layer is None else [f"layer{layer}"]
    return [Task.TOKENS, *layers, *([] if strategy is SelectStrategy.DEFAULT else [strategy])]


def _structure(vit: nn.Module) -> str:
    """Returns what weights do not say of a model: classes of its modules, and their settings, such as heads."""
    passing = ("training", "fused_attn", "grad_checkpointing")
    lines = []
    for name, module in vit.named_modules():
        settings = {
            key: value
            for key, value in sorted(vars(module).items())
            if not key.startswith("_") and key not in passing and isinstance(value, (int, float, str, tuple))
        }
        lines.append(f"{name} {type(module).__name__} {settings}")
    return "\n".join(lines)
