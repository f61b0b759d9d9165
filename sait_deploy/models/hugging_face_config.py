"""A Hugging Face config.json: checked against what is computed here, and timm's module made as it says."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from torch import nn

from sait_deploy.artifacts.tower_info import SelectStrategy, TowerChoice
from sait_deploy.errors import ModelError
from sait_deploy.images.config_files import ConfigFile
from sait_deploy.models.hugging_face import (
    ACTIVATIONS,
    CLASSES,
    COMPUTED,
    LLAVA,
    NOT_COMPUTED,
    REASONS,
    TOWERS,
    TYPES,
    ModelClass,
    ModelType,
    Readout,
)

_MEND: Final = "make the model in Python and give it to sait_deploy.export, or correct the file if it is wrong"
_MOST: Final = 1 << 16
_DEEPEST: Final = 1 << 10
"""Above any number and any depth of a model: more would take all time and memory before weights are compared."""

_COMPLETE: Final = "download config.json again"


def is_hugging_face(file: ConfigFile) -> bool:
    """Returns whether a configuration is one of Hugging Face's."""
    return isinstance(file.data.get("model_type"), str)


@dataclass(frozen=True, slots=True)
class HuggingFaceConfig:
    """What a config.json says of a model that is served.

    Attributes:
        file: the configuration.
        architecture: name of the class.
        model: what is known of the class.
        kind: and of its ``model_type``.
        values: the model's, or of a model of images and text the image tower's; those left out by default.
        adapted: whether the user chose the channels of the images, so that weights for RGB are adapted to them.
    """

    file: ConfigFile
    architecture: str
    model: ModelClass
    kind: ModelType
    values: Mapping[str, Any]
    adapted: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return _pair(self.values["image_size"])

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.values["num_channels"])

    def with_channels(self, channels: int) -> HuggingFaceConfig:
        """Returns the configuration of the model for images of another number of channels."""
        return dataclasses.replace(self, values={**self.values, "num_channels": channels}, adapted=True)

    @property
    def named_classes(self) -> int | None:
        """How many classes the file names; None where it names none."""
        labels = self.file.data.get("id2label")
        return len(labels) if isinstance(labels, dict) and self.model.readout is Readout.CLASSES else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What users are told of the model, a sentence each."""
        found = [] if self.model.says is None else [f"{self.architecture}: {self.model.says}"]
        if self.file.data.get("auto_map"):
            found.append(f"{self.file.path.name} names code of its own (auto_map), which is not run")
        return tuple(found)

    @property
    def tower(self) -> TowerChoice | None:
        """What the language model takes of the image tower; None of a model that answers otherwise.

        Raises:
            ModelError: it takes tokens of several layers, or a patch for a class token.
        """
        if self.model.readout is not Readout.TOKENS:
            return None
        data, path = self.file.data, self.file.path
        if self.architecture != LLAVA:
            return TowerChoice()
        layer, strategy = data.get("vision_feature_layer", -2), data.get("vision_feature_select_strategy", "default")
        if type(layer) is not int or strategy not in list(SelectStrategy):
            raise ModelError(
                f"{path} has vision_feature_layer {layer!r} and vision_feature_select_strategy {strategy!r}",
                "one layer is exported, by default or full: give the folder of the tower alone, and --task tokens",
            )
        if strategy == SelectStrategy.DEFAULT and self.model.kind == "siglip_vision_model":
            raise ModelError(
                f"{path} has vision_feature_select_strategy 'default', which takes the first patch for a class token, "
                "and SigLIP has none",
                'correct it to "full", or give the folder of the tower alone, and --task tokens',
            )
        return TowerChoice(layer, SelectStrategy(strategy))

    def make(self, image_size: tuple[int, int], outputs: int) -> nn.Module:
        """Makes the model with random weights.

        Args:
            image_size: height and width in pixels.
            outputs: of its head, where it has one.
        """
        arguments: dict[str, Any] = {
            "img_size": image_size,
            "patch_size": _pair(self.values["patch_size"]),
            "in_chans": self.values["num_channels"],
            "num_classes": outputs if self.model.readout is Readout.CLASSES else 0,
            "embed_dim": self.values["hidden_size"],
            "depth": self.values["num_hidden_layers"],
            "num_heads": self.values["num_attention_heads"],
            "norm_layer": functools.partial(LayerNorm, eps=self.values["layer_norm_eps"]),
            "init_values": 1.0 if "layerscale_value" in self.kind.defaults else None,
            **self._mlp(),
            **self.model.arguments,
        }
        registers = self.values["num_register_tokens"] if "num_register_tokens" in self.kind.defaults else 0
        if self.model.module is Eva:
            model = self._eva({**arguments, "num_reg_tokens": registers})
        else:
            common = {"global_pool": "token", "fc_norm": False, "qkv_bias": self.values.get("qkv_bias", True)}
            model = self.model.module(**{**common, **({"reg_tokens": registers} if registers else {}), **arguments})
        if self.model.readout is Readout.PROJECTION:
            model.head = nn.Linear(self.values["hidden_size"], outputs, bias=False)
        return model

    def _mlp(self) -> dict[str, Any]:
        width, activation = self.values["hidden_size"], ACTIVATIONS[self.values["hidden_act"]]
        if "intermediate_size" in self.values:
            hidden = self.values["intermediate_size"]
        else:
            hidden = int(width * self.values["mlp_ratio"])
        # timm multiplies by the ratio and rounds down, which a half more than the number of units survives.
        if not self.values.get("use_swiglu_ffn"):
            return {"mlp_ratio": (hidden + 0.5) / width, "act_layer": activation}
        units = (int(hidden * 2 / 3) + 7) // 8 * 8
        return {"mlp_ratio": (2 * units + 0.5) / width, "act_layer": nn.SiLU, "mlp_layer": SwiGLUPacked}

    def _eva(self, arguments: dict[str, Any]) -> nn.Module:
        """Makes a DINOv3: rotary positions, and biases as the configuration has them."""
        values, width = self.values, self.values["hidden_size"]
        activation = arguments.pop("act_layer")
        model = Eva(
            **arguments,
            global_pool="token",
            use_fc_norm=False,
            qkv_bias=False,
            swiglu_mlp=values["use_gated_mlp"],
            swiglu_align_to=int(values["use_gated_mlp"]),
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            rope_temperature=values["rope_theta"],
            rope_rotate_half=True,
        )
        biased = any(values[f"{part}_bias"] for part in ("query", "key", "value"))
        for block in model.blocks:
            block.attn.qkv = nn.Linear(width, 3 * width, bias=biased)
            block.attn.proj = nn.Linear(width, width, bias=values["proj_bias"])
            block.mlp.act = activation()
            for layer in block.mlp.children() if not values["mlp_bias"] else ():
                if isinstance(layer, nn.Linear):
                    layer.register_parameter("bias", None)
        return model  # type: ignore[no-any-return]


def read_config(file: ConfigFile) -> HuggingFaceConfig:
    """Reads a config.json of Hugging Face's.

    Raises:
        ModelError: it is of a class that is not served, lacks what its class needs, or has a value that no code here
            computes.
    """
    data, path = file.data, file.path
    named = data.get("architectures")
    if not (isinstance(named, list) and len(named) == 1 and isinstance(named[0], str)):
        raise ModelError(
            f"{path} names no class, and nothing is guessed: architectures is {named!r}",
            f'give it one of {", ".join(CLASSES)}, such as "architectures": ["ViTModel"]',
        )
    architecture, kind = named[0], data["model_type"]
    model = _class(architecture, data)
    if model is None or kind not in (model.kind, model.whole):
        reason = REASONS.get(kind, "")
        raise ModelError(
            f"{path} is of {architecture} (model_type {kind!r}), which is not served{reason}",
            f"served are {', '.join((*CLASSES, LLAVA))}",
        )
    if data.get("quantization_config"):
        raise ModelError(
            f"{path} is of quantised weights (quantization_config)", "give the weights as they were before"
        )
    served = TYPES[model.kind]
    values = {**served.defaults, **_tower(file, model)}
    config = HuggingFaceConfig(file, architecture, model, served, values)
    _check(config)
    return config


def _class(architecture: str, data: Mapping[str, Any]) -> ModelClass | None:
    """Returns what is known of a class; of LLaVA and of models that return all tokens that of their image tower."""
    if architecture == LLAVA:
        vision = data.get("vision_config")
        return TOWERS.get(vision.get("model_type", "clip_vision_model")) if isinstance(vision, dict) else None
    model = CLASSES.get(architecture)
    if model is None or model.readout is not Readout.FEATURES or data.get("vision_use_head", True):
        return model
    return dataclasses.replace(TOWERS["siglip_vision_model"], says=None, whole=None)


def _tower(file: ConfigFile, model: ModelClass) -> dict[str, Any]:
    """Returns the values of the model, or of the image tower where the file is of two."""
    data = file.data
    if data["model_type"] == model.kind:
        return dict(data)
    # The second of the two is how old files have what they change, and comes last.
    parts = [data.get(name) for name in ("vision_config", "vision_config_dict")]
    if not isinstance(parts[0], dict):
        raise ModelError(f"{file.path} has no vision_config", _COMPLETE)
    values = {**parts[0], **(parts[1] if isinstance(parts[1], dict) else {})}
    return values


def _check(config: HuggingFaceConfig) -> None:
    """Refuses values of another kind than the class has, and those that no code here computes."""
    path, values, known = config.file.path, config.values, config.kind.defaults
    for name, default in known.items():
        value, sides = values[name], name in ("image_size", "patch_size")
        if not _is_like(value, default) and not (sides and isinstance(value, list) and _is_pair(value)):
            raise ModelError(f"{path} has {name} {value!r}", f"it is one such as {default!r}: {_COMPLETE}")
    for name, value in values.items():
        changes = COMPUTED.search(name) is not None and name not in NOT_COMPUTED
        if changes and name not in known and value not in (None, False, 0, "", [], {}):
            raise ModelError(f"{path} has {name} {value!r}, which no code here computes", _MEND)
    if values["hidden_act"] not in ACTIVATIONS:
        raise ModelError(
            f"{path} has hidden_act {values['hidden_act']!r}, which no code here computes",
            f"computed are {', '.join(ACTIVATIONS)}",
        )
    if values["num_hidden_layers"] > _DEEPEST:
        raise ModelError(f"{path} has {values['num_hidden_layers']} layers, and at most {_DEEPEST} are read", _COMPLETE)
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads or values.get("head_dim") not in (None, width // heads):
        raise ModelError(f"{path} has {heads} heads for a width of {width}, which are not of equal width", _MEND)
    labels = config.file.data.get("id2label")
    if isinstance(labels, dict) and set(labels) != {str(number) for number in range(len(labels))}:
        raise ModelError(
            f"{path} does not number its classes (id2label) from 0 to {len(labels) - 1}",
            "correct it, or take it out and give --labels FILE",
        )
    if not values.get("vision_use_head", True) and config.model.readout is Readout.FEATURES:
        raise ModelError(f"{path} has vision_use_head false: its model returns all tokens and no features", _MEND)
    if config.model.readout is Readout.TOKENS:
        _ = config.tower


def _is_like(value: object, default: object) -> bool:
    """Returns whether a value is of a default's kind, and a number of one that can be."""
    if isinstance(default, (bool, str)):
        return type(value) is type(default)
    kinds = (int, float) if isinstance(default, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return 0 <= value <= _MOST and (value > 0 or default == 0)  # no NaN is


def _is_pair(sides: list[Any]) -> bool:
    return len(sides) == 2 and all(_is_like(side, 1) for side in sides)


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
