"""The model table: from a name and a source of weights to a supported timm model and what is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy import demo
from sait_deploy.artifacts.manifest import Head, ModelInfo, Pooling, WeightsInfo, WeightsSource
from sait_deploy.artifacts.tower_info import TowerChoice
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.config_files import ConfigFile, read_config_files
from sait_deploy.images.labels import configured_labels
from sait_deploy.images.preprocess import MODES, Preprocessing
from sait_deploy.images.preprocessing_choice import (
    FROM_MODEL,
    FROM_NAME,
    FROM_TYPE,
    NO_CHOICE,
    PreprocessingChoice,
    merged,
)
from sait_deploy.images.preprocessing_files import FoundPreprocessing, check_architecture, read_preprocessing
from sait_deploy.models.checkpoint_files import weights_file
from sait_deploy.models.checkpoint_names import left_out, without_training_only
from sait_deploy.models.config_check import check_configured
from sait_deploy.models.creation import check_known, create_model
from sait_deploy.models.families import check_served, transformer_of
from sait_deploy.models.hugging_face_config import is_hugging_face
from sait_deploy.models.in_memory import check_carried
from sait_deploy.models.input_channels import check_channels
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.placed import check_source, hugging_face_model, timm_request
from sait_deploy.models.places import Place, is_place, place_of
from sait_deploy.models.position_grid import ImageSizes, size_words
from sait_deploy.models.weights import (
    SparseTraining,
    load_weights,
    read_class_names,
    read_state_dict,
    read_training,
    sha256_of_weights,
)
from sait_deploy.system.option_values import check_options

RANDOM_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class WeightsRequest:
    """Where weights come from, and how images are prepared for them.

    Attributes:
        source: what kind of place.
        path: the file; given with ``FILE`` and with no other source.
        preprocessing: what the user says of it.
        known_preprocessing: all of it, where that is known; files beside the weights are not read then.
        global_pool: what the head reads, where it is not what it reads in the model of that name.
        in_chans: channels of the images: 1, 3 or 4; None for those of the weights, else the model's.
        most_parameters: that the model may have; None for any number.
    """

    source: WeightsSource
    path: Path | None = None
    preprocessing: PreprocessingChoice = NO_CHOICE
    known_preprocessing: Preprocessing | None = None
    global_pool: Pooling | None = None
    in_chans: int | None = None
    most_parameters: int | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.in_chans is not None:
            check_channels(self.in_chans)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A supported model with its weights, in inference mode, and what is known about it.

    ``default_image_size`` is the one the model has where none is named; ``training`` is how the weights were trained
    sparse, where they were. ``preprocessing_sources`` says in words where each field of the preprocessing came from; it
    is empty where that is the weights' own. ``head`` is what files beside the weights say that the head is,
    and ``tower`` what they say that a language model takes of the model, which then has no readout.
    """

    vit: nn.Module
    info: ModelInfo
    weights: WeightsInfo
    preprocessing: Preprocessing
    default_image_size: tuple[int, int]
    training: SparseTraining | None = None
    preprocessing_sources: dict[str, str] = field(default_factory=dict)
    head: Head | None = None
    tower: TowerChoice | None = None


def load_model(name: str, weights: WeightsRequest, image_size: int | tuple[int, int] | None = None) -> LoadedModel:
    """Creates a model with the weights asked for.

    Example::

        weights = WeightsRequest("file", "checkpoint.pth")
        model = sait_deploy.load_model("deit_small_patch16_224", weights)
        sait_deploy.export(model, ExportOptions(densities=("0.6",)))

    Args:
        name: a name of a family's or the demonstration model's; or a folder that has a config.json of Hugging Face's
            or timm's, or a hub name (``owner/model``, ``hf-hub:owner/model``), which both bring their weights.
        weights: where the weights come from: of a folder or hub name, ``DEMO`` and ``PRETRAINED`` are its own.
        image_size: height and width of the input in pixels, or the side of a square one; None for the model's own.

    Raises:
        ModelError: unknown or unsupported model; weights that cannot be had or do not fit.
        InvalidArgument: an image size that is no multiple of the patch size; a file beside the weights that says how
            images are prepared and cannot be used.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if is_place(name):
        check_source(name, weights.source, weights.global_pool)
        place = place_of(name)
        if is_hugging_face(place.configuration()):
            return _placed(place, weights, size)
        name, pool = timm_request(place, name)
        path = weights.path or (None if place.source is WeightsSource.PRETRAINED else place.folder)
        weights = replace(weights, source=place.source, path=path, global_pool=pool)
    unread = weights.path is None or weights.known_preprocessing is not None
    files = () if unread or weights.path is None else read_config_files(weights.path)
    found = read_preprocessing(files)
    check_architecture(found, name)
    loaded = _loaded(name, weights, size, found)
    check_configured(files, loaded.vit, weights.global_pool)
    return _prepared(_labelled(loaded, files), weights, found, FROM_NAME, size_given=image_size is not None)


def _placed(place: Place, weights: WeightsRequest, image_size: tuple[int, int] | None) -> LoadedModel:
    """Loads the model of a Hugging Face folder."""
    prepared = weights.known_preprocessing is not None
    limits = weights.in_chans, weights.most_parameters
    placed = hugging_face_model(place, weights.path, image_size, *limits, prepared=prepared)
    path = placed.file if weights.path is None else weights.path
    origin = place.origin if weights.path in (None, place.folder) else str(path)
    training, names = read_training(placed.file), read_class_names(placed.file)
    loaded = describe(placed.vit, place.name, WeightsSource.FILE, origin, training, names)
    info = replace(loaded.info, made_from=place.origin)
    source = place.source if weights.path is None else WeightsSource.FILE
    read = replace(loaded.weights, source=source, notes=placed.notes)
    loaded = _labelled(replace(loaded, info=info, weights=read, head=placed.head, tower=placed.tower), placed.files)
    request = replace(weights, source=WeightsSource.FILE, path=path)
    return _prepared(loaded, request, placed.found, FROM_TYPE, size_given=image_size is not None)


def _labelled(loaded: LoadedModel, files: Sequence[ConfigFile]) -> LoadedModel:
    """Returns the model with the labels that files beside the weights tell, where the weights have none."""
    if loaded.info.labels is not None:
        return loaded
    labels, source = configured_labels(files, loaded.info.classes)
    return replace(loaded, info=replace(loaded.info, labels=labels, labels_source=source or None))


def _prepared(
    loaded: LoadedModel, weights: WeightsRequest, found: FoundPreprocessing, assumed: str, *, size_given: bool
) -> LoadedModel:
    """Returns the model with the preprocessing that files and the user say."""
    if weights.known_preprocessing is not None:
        return replace(loaded, preprocessing=weights.known_preprocessing)
    given = weights.preprocessing
    own = weights.source in (WeightsSource.DEMO, WeightsSource.PRETRAINED)
    if own and given == NO_CHOICE and loaded.preprocessing.channels == len(MODES[3]):
        return loaded
    preprocessing, sources = merged(
        loaded.preprocessing, "of the weights" if own else assumed, given, found, size_given=size_given
    )
    return replace(loaded, preprocessing=preprocessing, preprocessing_sources=sources)


def with_preprocessing(loaded: LoadedModel, choice: PreprocessingChoice) -> LoadedModel:
    """Returns a model with the user's choice in place of what was found or assumed before."""
    if choice == NO_CHOICE:
        return loaded
    preprocessing, sources = merged(loaded.preprocessing, "", choice)
    chosen = {name: source for name, source in sources.items() if source}
    return replace(
        loaded, preprocessing=preprocessing, preprocessing_sources={**loaded.preprocessing_sources, **chosen}
    )


def _loaded(
    name: str, weights: WeightsRequest, image_size: tuple[int, int] | None, found: FoundPreprocessing
) -> LoadedModel:
    own = name == demo.NAME or weights.source is WeightsSource.PRETRAINED
    if own and weights.global_pool is not None:
        raise InvalidArgument(f"{name} and its own weights have their pooling", "leave --global-pool out")
    if name == demo.NAME:
        return _load_demo(weights, image_size)
    check_known(name)
    if weights.source is WeightsSource.DEMO:
        raise InvalidArgument(
            f"no weights were named for {name}", "give --weights FILE, --pretrained, or --random-weights"
        )
    if weights.source is WeightsSource.FILE:
        assert weights.path is not None
        file = weights_file(weights.path)
        vit, notes = _from_file(name, file, ImageSizes(image_size, found.image_size), weights)
        origin = str(weights.path)
        if file != weights.path:
            notes = (f"weights {origin}: {file.name} is read", *notes)
        loaded = describe(vit, name, weights.source, origin, read_training(file), read_class_names(file))
        return replace(_pooled(loaded, weights), weights=replace(loaded.weights, notes=notes))
    asked, most = ModelRequest(name, image_size, in_chans=weights.in_chans), weights.most_parameters
    if weights.source is WeightsSource.PRETRAINED:
        vit = create_model(replace(asked, pretrained=True), most)
        origin = str(getattr(vit, "pretrained_cfg", {}).get("hf_hub_id") or name)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            vit = create_model(replace(asked, global_pool=weights.global_pool), most)
        origin = f"seed {RANDOM_SEED}"
    return _pooled(describe(vit, name, weights.source, origin), weights)


def _pooled(loaded: LoadedModel, weights: WeightsRequest) -> LoadedModel:
    return replace(loaded, info=replace(loaded.info, global_pool=weights.global_pool))


def describe(
    model: nn.Module,
    name: str,
    source: WeightsSource,
    origin: str | None,
    training: SparseTraining | None = None,
    class_names: tuple[str, ...] | None = None,
) -> LoadedModel:
    """Describes a model that exists in memory.

    Args:
        model: a supported one.
        name: what it is called.
        source: where its weights came from.
        origin: the file or hub name.
        training: how they were trained sparse, where they were.
        class_names: of its classes, where the weights bring them; None for what is known of the source.

    Raises:
        ModelError: it is not supported, has what export does not carry, or another number of classes than names.
    """
    check_served(model)
    check_carried(model)
    transformer, vit = transformer_of(model), model.eval()
    shape = transformer.shape()
    if class_names is not None and len(class_names) != shape.classes:
        wrong = f"weights {origin} name {len(class_names)} classes, and have {shape.classes}"
        raise ModelError(wrong, "save them again without metadata")
    known = demo.LABELS if source is WeightsSource.DEMO else transformer.labels(source)
    info = ModelInfo(
        name=name,
        timm_class=type(vit).__name__,
        parameters=sum(p.numel() for p in vit.parameters()),
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        classes=shape.classes,
        labels=class_names or known,
        geometry=shape.geometry,
    )
    weights = WeightsInfo(source, origin, sha256_of_weights(vit), trained_sparse=training is not None)
    default_size, prepared = transformer.default_image_size(), transformer.preprocessing()
    sources = merged(prepared, FROM_MODEL)[1] if source is WeightsSource.MEMORY else {}
    return LoadedModel(vit, info, weights, prepared, default_size, training, sources)


def _load_demo(weights: WeightsRequest, image_size: tuple[int, int] | None) -> LoadedModel:
    if image_size is not None and set(image_size) != {demo.ARCHITECTURE["img_size"]}:
        size = size_words(image_size)
        raise InvalidArgument(f"the demonstration model has no image size {size}", "leave --imgsz out")
    source, path = weights.source, weights.path
    if weights.in_chans not in (None, len(MODES[3])):
        raise InvalidArgument("the demonstration model's images have 3 channels", "leave --in-chans out")
    if source is WeightsSource.PRETRAINED:
        raise InvalidArgument("the demonstration model ships its weights", "leave --pretrained out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        vit = VisionTransformer(**demo.ARCHITECTURE)
    vit.pretrained_cfg = {"mean": demo.MEAN, "std": demo.STD, "crop_pct": 1.0, "interpolation": "bilinear"}
    if source is WeightsSource.RANDOM:
        return describe(vit, demo.NAME, source, f"seed {RANDOM_SEED}")
    chosen = demo.WEIGHTS if path is None else weights_file(path)
    load_weights(vit, read_state_dict(chosen, transformer_of(vit).wanted()).tensors, chosen.name)
    return describe(vit, demo.NAME, source, str(path or chosen.name), read_training(chosen), read_class_names(chosen))


def _from_file(name: str, path: Path, sizes: ImageSizes, weights: WeightsRequest) -> tuple[nn.Module, tuple[str, ...]]:
    """Makes the model of a file; returns what was assumed or left out in reading it, too.

    Only an image size that the user chose resamples position embeddings.
    """
    size, channels, most = sizes.chosen or sizes.known, weights.in_chans, weights.most_parameters
    asked = ModelRequest(name, size, global_pool=weights.global_pool, in_chans=channels)
    with torch.device("meta"):
        outline = transformer_of(create_model(asked, most))
    read = read_state_dict(path, outline.wanted())
    if channels is None:
        channels = outline.stored_channels(read.tensors, path.name)
        with torch.device("meta"):
            outline = transformer_of(create_model(replace(asked, in_chans=channels), most))
    converted, notes = outline.converted(read.tensors, path.name, sizes)
    converted, left = without_training_only(converted)
    if left:
        notes += (left_out(path.name, left),)
    head: Tensor | None = converted.get(outline.HEAD)
    classes = 0 if head is None or head.ndim != 2 else int(head.shape[0])
    model = create_model(replace(asked, classes=classes, in_chans=channels), most)
    load_weights(model, converted, path.name, outline.advice(converted))
    return model, read.notes + notes
