"""What all families of timm's models have in common: names, creation, preprocessing and labels are timm's."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Final

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.models import is_model_in_modules
from torch import nn

from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing
from sait_deploy.models.transformer import ModelEntry, Transformer
from sait_deploy.system.loggers import errors_only

CHATTY: Final = ("timm", "huggingface_hub")
"""Loggers that report every retry of a download and every resampled embedding."""


class TimmTransformer(Transformer):
    """A model that timm makes."""

    MODULES: ClassVar[tuple[str, ...]] = ()
    """timm modules whose models the family serves."""

    OTHERS: ClassVar[tuple[str, ...]] = ()
    """Parts of names of models in those modules that compute something else."""

    @classmethod
    def names(cls) -> list[str]:
        """Returns timm's names of the family's models."""
        return [name for module in cls.MODULES for name in timm.list_models(module=module) if cls.has(name)]

    @classmethod
    def has(cls, name: str) -> bool:
        """Returns whether a name, with or without the tag of its weights, is one of ``names``."""
        return is_model_in_modules(name, cls.MODULES) and not any(part in f"{name}_" for part in cls.OTHERS)

    @classmethod
    def entry(cls, name: str) -> ModelEntry:
        """Returns the image size of timm's first weights for a name, and how many weights timm has for it."""
        config = timm.get_pretrained_cfg(name)
        size = config.input_size[1] if config is not None else 0
        return ModelEntry(int(size), len(timm.list_pretrained(f"{name}.*")))

    @classmethod
    def create(
        cls,
        name: str,
        *,
        pretrained: bool = False,
        image_size: int | None = None,
        classes: int | None = None,
        global_pool: Pooling | None = None,
    ) -> nn.Module:
        """Makes the model by timm, from a name of timm's or, with pretrained weights, of the hub's."""
        pool = None if global_pool is None else global_pool.value
        asked = {"img_size": image_size, "num_classes": classes, "global_pool": pool}
        options: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        try:
            with errors_only(*CHATTY):
                model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        except AssertionError as error:
            how = f"at image size {image_size}" if pool is None else f"with --global-pool {pool}"
            raise InvalidArgument(f"{name} cannot be made {how} ({error})") from None
        except Exception as error:  # timm and its hub client raise whatever the network or a registry entry gives
            if not pretrained:
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
            raise ModelError(
                f"pretrained weights of {name} cannot be had: {first}",
                "check the network and the name, or download the file elsewhere and give --weights FILE",
            ) from None
        return model

    def preprocessing(self) -> Preprocessing:
        """Returns what timm's configuration of the model says, at the model's image size."""
        config = resolve_model_data_config(self.model)
        size, share = self.shape().image_size, float(config["crop_pct"])
        return Preprocessing(
            image_size=size,
            resize=(math.floor(size[0] / share), math.floor(size[1] / share)),
            crop_mode=CropMode(config["crop_mode"]),
            interpolation=Interpolation(config["interpolation"]),
            antialias=True,
            mean=tuple(float(v) for v in config["mean"]),
            std=tuple(float(v) for v in config["std"]),
        )

    def default_image_size(self) -> tuple[int, int]:
        """Returns the size in timm's configuration; that of the model where it has none."""
        size = (getattr(self.model, "pretrained_cfg", None) or {}).get("input_size")
        return self.shape().image_size if size is None else (int(size[1]), int(size[2]))

    def labels(self, source: WeightsSource) -> tuple[str, ...] | None:
        """Returns the names of ImageNet's classes for pretrained weights of an ImageNet head."""
        subset = infer_imagenet_subset(self.model) if source is WeightsSource.PRETRAINED else None
        if subset is None:
            return None
        return tuple(map(ImageNetInfo(subset).index_to_description, range(self.shape().classes)))

    def new_head(self, classes: int) -> None:
        """Replaces the head by timm's own means."""
        self.model.reset_classifier(classes)  # type: ignore[operator]

    def resized(self, image_size: tuple[int, int]) -> nn.Module:
        """Resamples position embeddings by timm's own means."""
        smaller = copy.deepcopy(self.model, memo={id(parameter): parameter for parameter in self.model.parameters()})
        smaller.set_input_size(img_size=image_size)  # type: ignore[operator]
        return smaller.eval()
